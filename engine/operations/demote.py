"""Demote: hosts may not write here any more, for a planned move; the image stays, and syncs go on.

Hold, flush, one transaction, and the exports stay away. A crash before the transaction: still protected. After it:
demoted, through any restart, until it is promoted again or yields. This module must never discard anything.
"""

from __future__ import annotations

from engine.decide.lineage import VerdictKind
from engine.decide.roles import is_already, require_legal
from engine.errors import PeerRefused, PeerUnreachable
from engine.model import Role
from engine.operations.contact import contact
from engine.operations.context import Context
from engine.operations.conversation import converse
from engine.operations.handles import GroupHandle
from engine.operations.holding import held
from engine.records import groups, roles
from engine.requests import Demote


async def demote(ctx: Context, handle: GroupHandle, request: Demote) -> None:
    """Again: success, nothing is done. Raises RefusedByState, VolumeFailed, StoreFlushFailed, Raced."""
    record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
    if is_already(request, record) and not request.consent:
        return
    require_legal(request, record)
    consent = await _consent(ctx, handle) if request.consent else None
    async with handle.lock, held(ctx, handle):
        record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
        if record.role is Role.RECOVERY:
            return  # it gave way meanwhile: nobody writes here
        await ctx.database.transact(lambda conn: roles.demote(conn, handle.id, consent_term=consent))
    ctx.report("warning", "demoted", f"Group {handle.name} takes no writes here any more.", group=handle.name)


async def _consent(ctx: Context, handle: GroupHandle) -> int | None:
    """The term of the promoted peer to which this side agrees to yield what it wrote; None: there is none to ask."""
    link = ctx.links.get(handle.peer)
    met = None
    if link is not None and handle.syncing is None:
        try:
            async with converse(handle, link) as talk:
                met = await contact(ctx, handle, talk)
        except (PeerUnreachable, PeerRefused):
            met = None  # as if it was away: a plain demote is safe, and is what was asked for first
    if met is not None and met.peer.is_writable and met.peer.term > met.own.term:
        return met.peer.term
    reason = "the peer is away" if met is None else _words(met.verdict)
    text = f"Group {handle.name}: no consent to discard was recorded, because {reason}."
    ctx.report("warning", "no_consent", text, group=handle.name)
    return None


def _words(found: VerdictKind) -> str:
    return "the peer was not promoted" if found in (VerdictKind.FORWARD, VerdictKind.IN_SYNC) else found.value
