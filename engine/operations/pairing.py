"""Two sites become peers by one invitation: invite, join, and the welcome of who was invited (docs/protocol.md).

The invited site proves the secret first, and is written down together with the use of the invitation, in one
transaction; then it gets the proof of this side and writes us down. Cut anywhere, the same join again goes on from
there while the invitation is valid. This module must never log, record or send a secret, and never write down a
certificate other than the one that TLS showed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from engine import model
from engine.errors import (
    AlreadyPaired,
    BadValue,
    InvitationClosed,
    InvitationExpired,
    InvitationNameTaken,
    InvitationUnknown,
    InvitationUsed,
    InvitationWrong,
    LeewardError,
    NameTaken,
)
from engine.link.address import is_any, join_address
from engine.model import InvitationId, SiteId
from engine.operations.context import Context
from engine.operations.documents import at_text
from engine.operations.peers import refresh
from engine.operations.volumes import check_name
from engine.records import invitations, peers
from engine.records.database import Connection
from engine.requests import InvitationDoc, PeerInvite, PeerJoin
from engine.settings import parse_address
from engine.wire import invitation
from engine.wire.hello import VERSION
from engine.wire.messages import Pair, Paired

LONGEST_S = 600
"""An invitation is valid for so long at most."""

LONGEST_ADDRESS = 255
"""Bytes of an address, as a token and a PAIR hold it."""

MOST_WRONG = 5
"""So many proofs that are none close an invitation."""


def begin(ctx: Context) -> None:
    """Answer those who were invited. Before the links start."""
    ctx.links.pairing.welcome(partial(welcome, ctx))


async def invite(ctx: Context, request: PeerInvite) -> InvitationDoc:
    """Let one site become the peer of that name, once, for a while. Raises BadValue, NameTaken."""
    check_name("peer", request.name)
    if not 1 <= request.valid_s <= LONGEST_S:
        raise BadValue(what="validity", value=f"{request.valid_s} s", reason=f"1 to {LONGEST_S} s are possible")
    secret = _secret(request.secret)
    addresses = _reachable(ctx, request.addresses)
    now = ctx.clock.now()
    made = model.Invitation(
        id=InvitationId(invitation.id_of(secret)),
        peer=request.name,
        key=invitation.key_of(secret),
        made_at=now,
        expires_at=now + timedelta(seconds=request.valid_s),
    )

    def record(conn: Connection) -> None:
        if peers.find(conn, made.peer) is not None:
            raise NameTaken(what="peer", name=made.peer)
        invitations.forget(conn, now)
        invitations.insert(conn, made)

    await ctx.database.transact(record)
    expires_at = at_text(made.expires_at)
    text = f"A site may join as peer {made.peer} until {expires_at}."
    ctx.report("info", "peer_invited", text, peer=made.peer, expires_at=expires_at)
    return InvitationDoc(made.peer, ctx.site.name, addresses, ctx.links.fingerprint, expires_at)


def _secret(digits: str) -> bytes:
    try:
        secret = bytes.fromhex(digits)
    except ValueError:
        secret = b""
    if len(secret) != invitation.SECRET_BYTES:
        raise BadValue(what="secret", value="What was given", reason=f"{2 * invitation.SECRET_BYTES} hex digits are it")
    return secret


def _reachable(ctx: Context, given: Sequence[str]) -> tuple[str, ...]:
    """Where the other site may dial this one."""
    if len(given) > invitation.ADDRESSES:
        raise BadValue("list of addresses", ", ".join(given), f"a token holds {invitation.ADDRESSES} at most")
    if given:
        return tuple(_address(text) for text in given)
    host = ctx.settings.listen.host
    if is_any(host):
        reason = "it stands for every address of this host; say with --address where the other site reaches it"
        raise BadValue(what="address to dial", value=str(ctx.settings.listen), reason=reason)
    return (join_address(host, ctx.links.port),)


def _address(text: str) -> str:
    try:
        address = parse_address(text)
    except ValueError as error:
        raise BadValue(what="address", value=text, reason=str(error)) from None
    if not address.port or is_any(address.host) or not text.isprintable() or len(text.encode()) > LONGEST_ADDRESS:
        raise BadValue(what="address", value=text, reason="nobody can dial it")
    return str(address)


# --- at the inviting site


async def welcome(ctx: Context, pair: Pair, fingerprint: str, address: str) -> Paired:
    """Who came with an invitation, and proves it, is a peer when this returns. Raises what the caller is told."""
    known = await ctx.database.read(lambda conn: invitations.find(conn, InvitationId(pair.invitation)))
    if known is None:  # nothing is written for a stranger
        raise InvitationUnknown(site=pair.site_name, address=address, fingerprint=fingerprint)
    peer = model.Peer(known.peer, _address(pair.address), fingerprint, False, SiteId(pair.site_id))
    now = ctx.clock.now()
    settled = await ctx.database.transact(partial(_settle, ctx, pair, peer, address, now))
    if isinstance(settled, LeewardError):
        raise settled
    await refresh(ctx)
    text = f"Site {pair.site_name} became peer {settled.peer} by invitation."
    ctx.report("info", "peer_paired", text, peer=settled.peer, address=peer.address, fingerprint=fingerprint)
    answer = invitation.proof(settled.key, "inviter", inviter=ctx.links.fingerprint, joiner=fingerprint)
    return Paired(pair.invitation, ctx.site.id, ctx.site.name, answer)


def _settle(
    ctx: Context, pair: Pair, peer: model.Peer, address: str, now: datetime, conn: Connection
) -> model.Invitation | LeewardError:
    """Judge and record as one: the invitation as it was, or why not. Raises InvitationNameTaken, AlreadyPaired."""
    found = invitations.find(conn, InvitationId(pair.invitation))
    if found is None:
        return InvitationUnknown(site=pair.site_name, address=address, fingerprint=peer.fingerprint)
    error = judge(found, pair.proof, inviter=ctx.links.fingerprint, joiner=peer.fingerprint, address=address, now=now)
    if isinstance(error, InvitationWrong):
        invitations.count_wrong(conn, found.id)
    if error is not None:
        return error
    known = peers.with_fingerprint(conn, peer.fingerprint)
    if found.used_by is not None:
        if known is None:  # it was removed since
            return InvitationUsed(found.peer, found.used_by, address, peer.fingerprint)
        return found
    if known is not None and known.name != found.peer:
        raise AlreadyPaired(peer=known.name, site=ctx.site.name, fingerprint=peer.fingerprint)
    if known is None:
        if peers.find(conn, peer.name) is not None:
            raise InvitationNameTaken(peer=peer.name, site=ctx.site.name)
        peers.insert(conn, peer, now)
    invitations.use(conn, found.id, peer.fingerprint)
    return found


def judge(
    found: model.Invitation, proof: bytes, *, inviter: str, joiner: str, address: str, now: datetime
) -> LeewardError | None:
    """Why the site with the certificate `joiner` is not let in; None: it is, for the first time or once more."""
    if not found.made_at <= now < found.expires_at:  # a clock that was set back makes no invitation longer
        return InvitationExpired(found.peer, at_text(found.expires_at), address, joiner)
    if found.wrong >= MOST_WRONG:
        return InvitationClosed(found.peer, found.wrong, address, joiner)
    if not invitation.is_proof(proof, found.key, "joiner", inviter=inviter, joiner=joiner):
        return InvitationWrong(found.peer, address, joiner)
    if found.used_by not in (None, joiner):
        return InvitationUsed(found.peer, found.used_by or "", address, joiner)
    return None


# --- at the joining site


async def join(ctx: Context, request: PeerJoin) -> model.Peer:
    """Become a peer of the site that made the token. Again with the same token: what is missing is done.

    Raises BadValue, NameTaken, AlreadyPaired before anything is said; PeerRefused, InviterWrong, InviterUnreachable.
    """
    token = invitation.read(request.token)
    ours = ctx.links.fingerprint
    if token.fingerprint == ours:
        raise BadValue(what="invitation token", value="What was given", reason="this very site made it")
    name = request.name or token.site
    check_name("peer", name)
    own = _address(request.address) if request.address else None
    key = invitation.key_of(token.secret)
    await ctx.database.read(lambda conn: _known(ctx, conn, name, token.fingerprint, request.name))

    def make(own_host: str) -> Pair:
        listen = ctx.settings.listen
        host = own_host if is_any(listen.host) else listen.host
        return Pair(
            version=VERSION,
            invitation=invitation.id_of(token.secret),
            site_id=ctx.site.id,
            site_name=ctx.site.name,
            address=own or join_address(host, ctx.links.port),
            proof=invitation.proof(key, "joiner", inviter=token.fingerprint, joiner=ours),
        )

    with ctx.links.pairing.joining(token.fingerprint):
        answer, address = await ctx.links.pairing.ask(token.addresses, token.fingerprint, token.site, make)
        if not invitation.is_proof(answer.proof, key, "inviter", inviter=token.fingerprint, joiner=ours):
            raise InvitationWrong(peer=ctx.site.name, address=address, fingerprint=token.fingerprint)
        peer = model.Peer(name, address, token.fingerprint, False, SiteId(answer.site_id))
        now = ctx.clock.now()

        def record(conn: Connection) -> model.Peer:
            known = _known(ctx, conn, name, peer.fingerprint, request.name)
            if known is None:
                peers.insert(conn, peer, now)
            return known or peer

        recorded = await ctx.database.transact(record)
        await refresh(ctx)
    text = f"Site {answer.site_name} became peer {recorded.name} by its invitation."
    ctx.report("info", "peer_paired", text, peer=recorded.name, address=address, fingerprint=token.fingerprint)
    return recorded


def _known(ctx: Context, conn: Connection, name: str, fingerprint: str, wanted: str | None) -> model.Peer | None:
    """The inviting site if it is a peer already. Raises AlreadyPaired under another name than wanted, NameTaken."""
    known = peers.with_fingerprint(conn, fingerprint)
    if known is not None:
        if wanted is not None and known.name != wanted:
            raise AlreadyPaired(peer=known.name, site=ctx.site.name, fingerprint=fingerprint)
        return known
    if peers.find(conn, name) is not None:
        raise NameTaken(what="peer", name=name)
    return None
