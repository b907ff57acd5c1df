"""Reverse and restore: after a promotion, one of two writable sides gives way, by the verdict both came to.

Reverse: the side that was protected before yields. Restore: the promoted one does, and a demoted old side is
protected again. Whoever is asked to discard something says what, and runs only with the token of that decision or
with the operator's word under the hold. This module must never let the side yield that holds writes unnamed.
"""

from __future__ import annotations

import contextlib

from engine import model
from engine.decide import yielding
from engine.decide.lineage import Standing
from engine.errors import PeerRefused, PeerUnreachable, RefusedByState, TokenStale, WouldDiscard
from engine.link.peer_link import PeerLink
from engine.model import Role
from engine.operations.contact import Contact, contact
from engine.operations.context import Context
from engine.operations.converge import converge
from engine.operations.conversation import converse
from engine.operations.handles import GroupHandle
from engine.operations.yielding import give_way
from engine.records import groups, roles
from engine.requests import Restore, Reverse, YieldDoc
from engine.wire.messages import AskYield, Yielded


async def reverse(ctx: Context, handle: GroupHandle, request: Reverse) -> YieldDoc:
    """Asked at either side: the old one yields. Raises PeerUnreachable, RefusedByState, WouldDiscard, TokenStale."""
    async with handle.changing:
        return await _reverse(ctx, handle, request)


async def _reverse(ctx: Context, handle: GroupHandle, request: Reverse) -> YieldDoc:
    if await _role(ctx, handle) is Role.RECOVERY:
        return await _doc(ctx, handle, None)
    met, asked = await _meet(ctx, handle, "reverse", request)
    if asked is not None:
        return await _doc(ctx, handle, asked)
    own, peer = met.own, met.peer
    if request.discard:
        reason = yielding.why_not_discard(peer, met.verdict)
    else:
        reason = yielding.why_not_reverse(own, peer, met.verdict, await _consent(ctx, handle))
    if reason and not request.discard and own.written and own.term < peer.term:
        raise WouldDiscard(group=handle.name, reason=reason, blocks=own.written, token=_token(handle, own, peer))
    if reason:
        raise RefusedByState(operation="reverse", group=handle.name, reason=reason)
    _check_decided(handle, request, own, peer)

    def guard(record: model.Group, now: Standing) -> str:
        if request.token is not None:
            _check_token(handle, request.token, now, peer)
        if request.discard:
            _check_decided(handle, request, now, peer)
            return "" if now.common == own.common else "its newest common point is another one by now"
        return yielding.why_not_reverse(now, peer, met.verdict, record.consent_term)

    async with handle.lock:
        kept = await give_way(ctx, handle, "reverse", guard, term=peer.term)
    await _tell(ctx, handle)
    return await _doc(ctx, handle, Yielded(handle.id, kept.name if kept else None, kept.blocks if kept else 0))


def _check_decided(handle: GroupHandle, request: Reverse, own: Standing, peer: Standing) -> None:
    """What would be set aside is named by a token or confirmed. Raises WouldDiscard."""
    if request.discard and request.token is None and own.written and not request.confirmed:
        what = f"{own.written} blocks written here since the newest common point would be set aside"
        raise WouldDiscard(group=handle.name, reason=what, blocks=own.written, token=_token(handle, own, peer))


async def _tell(ctx: Context, handle: GroupHandle) -> None:
    """Contact once more, so that the other side stops calling it split, and promises are kept again. It may be away."""
    link = ctx.links.get(handle.peer)
    if link is not None:
        with contextlib.suppress(PeerUnreachable, PeerRefused):  # the contact of its next link tells it
            async with converse(handle, link) as talk:
                await contact(ctx, handle, talk)


async def restore(ctx: Context, handle: GroupHandle, request: Restore) -> YieldDoc:
    """Asked at the old side: the promoted one yields, then this one is protected. Raises as `reverse`."""
    async with handle.changing:
        return await _restore(ctx, handle, request)


async def _restore(ctx: Context, handle: GroupHandle, request: Restore) -> YieldDoc:
    link = _link(ctx, handle)
    if await _role(ctx, handle) is Role.RECOVERY:
        reason = "this site is recovery; run `leeward restore` at the site that was protected before"
        raise RefusedByState(operation="restore", group=handle.name, reason=reason)
    async with converse(handle, link) as talk:
        met = await contact(ctx, handle, talk)
        if not met.peer.is_writable:
            asked = Yielded(handle.id, None, 0)  # it has given way before: only the second half is left
        else:
            _check_restore(handle, request, met)
            question = AskYield(handle.id, "restore", request.token, request.confirmed and request.token is None)
            asked = await talk.ask(question, Yielded)
    handle.is_split = False
    await undo_demote(ctx, handle)
    return await _doc(ctx, handle, asked)


def _check_restore(handle: GroupHandle, request: Restore, met: Contact) -> None:
    reason = yielding.why_not_restore(met.own, met.peer, met.verdict)
    if reason:
        raise RefusedByState(operation="restore", group=handle.name, reason=reason)
    if request.token is not None:
        _check_token(handle, request.token, met.peer, met.own)
    elif met.peer.written and not request.confirmed:
        what = f"{met.peer.written} blocks written at the promoted site since the common point would be set aside"
        token = _token(handle, met.peer, met.own)
        raise WouldDiscard(group=handle.name, reason=what, blocks=met.peer.written, token=token)


async def undo_demote(ctx: Context, handle: GroupHandle) -> None:
    """Protected again where it was demoted, in the same term, its exports up. Elsewhere: nothing."""
    async with handle.lock:
        record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
        if record.role is not Role.DEMOTED:
            return
        await ctx.database.transact(lambda conn: roles.undo_demote(conn, handle.id))
        await converge(ctx, handle)
    ctx.report("info", "demote_undone", f"Group {handle.name} is protected here again.", group=handle.name)


async def answer(ctx: Context, handle: GroupHandle, link: PeerLink, message: AskYield) -> None:
    """The peer asks this side to yield. Under the group's lock. Raises RefusedByState, TokenStale.

    Not while somebody here asks for the opposite: both sides would give way, and nobody be protected.
    """
    if handle.changing.locked():
        reason = "a reverse or restore asked for at the other side is under way; look at both sides and repeat it"
        raise RefusedByState(operation=message.operation, group=handle.name, reason=reason)
    term = handle.peer_term

    def guard(record: model.Group, now: Standing) -> str:
        is_due = now.term < term if message.operation == "reverse" else now.term > term
        if not is_due:
            return "it is not this side that gives way: look at both with `leeward group show`"
        if message.token is not None:
            _check_token(handle, message.token, now, Standing(Role.PROTECTED, term, now.common))
            return ""
        may = message.confirmed or not now.written or (record.role is Role.DEMOTED and record.consent_term == term)
        return "" if may else f"{now.written} blocks were written here since the newest common point"

    kept = await give_way(ctx, handle, message.operation, guard, term=term)
    await link.send(Yielded(handle.id, kept.name if kept else None, kept.blocks if kept else 0))


async def _meet(ctx: Context, handle: GroupHandle, operation: str, request: Reverse) -> tuple[Contact, Yielded | None]:
    """Contact; where the other side is the old one, it is asked to yield, and its answer is the second value."""
    async with converse(handle, _link(ctx, handle)) as talk:
        met = await contact(ctx, handle, talk)
        is_peers = met.verdict in yielding.BOTH_WRITABLE and met.peer.term < met.own.term
        if not is_peers or request.discard:
            return met, None
        asked = await talk.ask(AskYield(handle.id, "reverse", None), Yielded)
    handle.is_split = False
    return met, asked


def _link(ctx: Context, handle: GroupHandle) -> PeerLink:
    link = ctx.links.get(handle.peer)
    if link is None:
        raise PeerUnreachable(peer=handle.peer)
    if handle.syncing is not None:
        raise RefusedByState(operation="role change", group=handle.name, reason="a sync of it runs; wait for its end")
    return link


async def _role(ctx: Context, handle: GroupHandle) -> Role:
    return (await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))).role


async def _consent(ctx: Context, handle: GroupHandle) -> int | None:
    return (await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))).consent_term


def _token(handle: GroupHandle, loser: Standing, winner: Standing) -> str:
    return yielding.token(handle.id, loser, winner)


def _check_token(handle: GroupHandle, token: str, loser: Standing, winner: Standing) -> None:
    if token != _token(handle, loser, winner):
        raise TokenStale(group=handle.name)


async def _doc(ctx: Context, handle: GroupHandle, yielded: Yielded | None) -> YieldDoc:
    record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
    aside, blocks = (yielded.set_aside, yielded.blocks) if yielded is not None else (None, 0)
    return YieldDoc(group=handle.name, role=record.role.value, set_aside=aside, set_aside_blocks=blocks)
