"""leeward peer: the sites that this one is paired with."""

from __future__ import annotations

import sys

import rich_click as click

from engine.cli import output, views, words
from engine.cli.call import Call, common, names_of, no_wait
from engine.cli.quantities import duration, typed
from engine.cli.waiting import carry_out
from engine.requests import InvitationDoc, PeerAdd, PeerDoc, PeerInvite, PeerJoin, PeerRemove, RemovedDoc

LONGEST = "10m"
LONGEST_TOKEN = 8192


@click.group()
def peer() -> None:
    """Pair this site with others, and list them."""


@peer.command("invite")
@click.argument("name")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="HOST:PORT",
    help="Where the other site reaches this one; may be given several times. Where this site listens, if left out.",
)
@click.option(
    "--valid",
    metavar="DURATION",
    default=LONGEST,
    show_default=True,
    callback=typed(duration),
    help="For how long, 10m at most.",
)
@common
def invite(call: Call, name: str, addresses: tuple[str, ...], valid: int) -> None:
    """Print a token that lets one site become the peer NAME, once, with `leeward peer join`."""
    import dataclasses
    import secrets

    from engine.wire import invitation

    secret = secrets.token_bytes(invitation.SECRET_BYTES)

    def with_token(doc: InvitationDoc) -> InvitationDoc:
        token = invitation.Token(doc.site, doc.addresses, doc.fingerprint, secret)
        return dataclasses.replace(doc, token=invitation.write(token))

    def tell(doc: InvitationDoc) -> None:
        output.line(f"Run this at the other site; it works once, until {words.moment(doc.expires_at)}:")
        output.line(f"leeward peer join {doc.token}")

    carry_out(call, PeerInvite(name, secret.hex(), addresses, valid), tell, complete=with_token)


@peer.command("join")
@click.argument("token")
@click.option("--name", metavar="NAME", help="What the other site is called here; its own name if left out.")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Where the other site reaches this one; where this site listens, as it is seen from there, if left out.",
)
@common
def join(call: Call, token: str, name: str | None, address: str | None) -> None:
    """Pair this site with the one where `leeward peer invite` printed TOKEN; - reads it from standard input."""
    if token == "-":
        token = sys.stdin.buffer.read(LONGEST_TOKEN).decode(errors="replace")

    def tell(doc: PeerDoc) -> None:
        output.line(f"This site and {doc.name} at {doc.address} are peers now.")

    carry_out(call, PeerJoin(token, name, address), tell)


@peer.command("add")
@click.argument("name")
@click.option("--address", required=True, metavar="HOST:PORT", help="Where the peer listens for its peers.")
@click.option(
    "--fingerprint", required=True, metavar="SHA256:HEX", help="Fingerprint that `leeward init` printed at the peer."
)
@click.option("--plain", is_flag=True, help="No TLS: loopback addresses only, and the peer has to say so too.")
@no_wait
@common
def add(call: Call, name: str, address: str, fingerprint: str, plain: bool, no_wait: bool) -> None:
    """Pair this site with the site that has this fingerprint; do the same over there."""

    def tell(doc: PeerDoc) -> None:
        link = "it is connected" if doc.connected else "it will be dialled until it answers"
        output.line(f"Peer {doc.name} at {doc.address} is known here; {link}.")

    carry_out(call, PeerAdd(name, address, fingerprint, plain), tell, no_wait=no_wait)


@peer.command("list")
@common
def list_(call: Call) -> None:
    """List the peers and whether they are connected."""
    docs = call.client().peers()
    if call.as_json:
        output.document(docs)
    else:
        views.peers(docs)


@peer.command("remove")
@click.argument("name", shell_complete=names_of("peers"))
@no_wait
@common
def remove(call: Call, name: str, no_wait: bool) -> None:
    """Forget a peer that no group uses."""

    def tell(doc: RemovedDoc) -> None:
        output.line(f"Peer {doc.removed} is forgotten here.")

    carry_out(call, PeerRemove(name), tell, no_wait=no_wait)
