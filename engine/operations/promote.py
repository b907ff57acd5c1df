"""Promotion: the newest recovery point becomes writable here, from metadata alone, whatever the size.

Fence the receiver, name the new files, make them durable, then one transaction for the whole group, then
the exports. Crash before the transaction: still recovery, the files are removed at boot. After: promoted.
It never needs the peer. Nothing of the point or above is folded from now on. This module must never copy data.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from blockstore.overlay import Overlay
from blockstore.overlay_io import OverlayIO
from engine import model
from engine.decide.roles import is_already, require_legal
from engine.errors import LeewardError, PeerRefused, PeerUnreachable, RefusedByState
from engine.model import LayerId, Role, TrackingId
from engine.operations import receive, staging, volumes
from engine.operations.contact import contact
from engine.operations.context import Context
from engine.operations.converge import converge
from engine.operations.conversation import converse
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.operations.snapshot import image_at, image_here, make_overlay
from engine.records import groups, roles
from engine.records import promote as records
from engine.requests import Promote

ANSWER_S = 3.0
"""Seconds that a connected peer has to say how it stands before it counts as an objection."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The durable file of one volume's new top; its tracking too, unless one goes on."""

    overlay: Overlay


async def objection(ctx: Context, handle: GroupHandle) -> str:
    """What is known that speaks against a promotion without --force; asks the peer if it is connected."""
    record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
    link = ctx.links.get(handle.peer)
    if record.own_image:
        return "this site gave way with writes that its newest recovery point lacks, and has received none since"
    if link is None or record.role is Role.PROTECTED:
        return ""
    try:
        async with asyncio.timeout(ANSWER_S), converse(handle, link) as talk:
            peer = (await contact(ctx, handle, talk)).peer
    except (TimeoutError, PeerUnreachable, PeerRefused):
        return "the peer is connected, and does not say how it stands"
    if peer.role is Role.PROTECTED:
        return "the peer is connected and protected"
    if record.role is Role.RECOVERY and peer.written:
        return f"the peer was demoted with {peer.written} blocks that were not synced"
    return ""


async def promote(ctx: Context, handle: GroupHandle, request: Promote, *, against: str) -> None:
    """Make the group writable here, its exports up on return. Again: nothing. Raises RefusedByState, OSError.

    `against`: what `objection` said.
    """
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    if is_already(request, record):
        await converge(ctx, handle)
        return
    require_legal(request, record)
    if against and not request.force:
        reason = f"{against}; --force promotes this side all the same"
        raise RefusedByState(operation="promote", group=handle.name, reason=reason)
    if record.role is Role.DEMOTED:
        await ctx.database.transact(lambda conn: roles.undo_demote(conn, handle.id))
        ctx.report("info", "demote_undone", f"Group {handle.name} is protected here again.", group=handle.name)
        await converge(ctx, handle)
        return
    point = _promotable(handle, record)
    await receive.end_session(ctx, handle)
    prepared = await _prepare(ctx, handle, point)
    nonces = {volume.record.id: volume.record.nonce for volume in handle.volumes}
    term = 1 + max(record.term, handle.peer_term)
    try:
        record = await ctx.database.transact(
            lambda conn: records.commit(conn, handle.id, point, nonces, term=term, expects=record.version)
        )
    except LeewardError:
        await _give_up(ctx, handle, prepared)
        raise
    for volume, made in zip(handle.volumes, prepared, strict=True):
        volume.record = replace(volume.record, top=LayerId(made.overlay.layer_id))
        await bind_top(ctx, volume, point, made.overlay)
    await staging.remove_dead(ctx, handle.volumes)
    ctx.report("warning", "promoted", f"Group {handle.name} is protected here, term {record.term}.", group=handle.name)
    await converge(ctx, handle)
    ctx.links.redial(handle.peer)


def _promotable(handle: GroupHandle, record: model.Group) -> model.PointId | None:
    """The newest point; None: the image that this side still holds of its own."""
    if record.common is None:
        raise RefusedByState(
            operation="promote", group=handle.name, reason="its first copy is not complete: there is no recovery point"
        )
    for volume in handle.volumes:
        volume.require_open()
    return None if record.own_image else record.common.id


async def _prepare(ctx: Context, handle: GroupHandle, point: model.PointId | None) -> list[Prepared]:
    """Name, then make the files of every volume's top and tracking; taken back if one of them cannot be made."""
    tops = [
        records.Top(volume.record.id, LayerId(ctx.clock.token(16)), TrackingId(ctx.clock.token(16)))
        for volume in handle.volumes
    ]
    await ctx.database.transact(lambda conn: records.prepare(conn, handle.id, point, tops))
    made: list[Prepared] = []
    try:
        for volume, top in zip(handle.volumes, tops, strict=True):
            made.append(await _make(ctx, volume, top, keeps_tracking=point is None))
    except BaseException:
        await _give_up(ctx, handle, made)
        raise
    return made


async def _give_up(ctx: Context, handle: GroupHandle, made: list[Prepared]) -> None:
    for prepared in made:
        await ctx.pool.call(prepared.overlay.close)
    await take_back(ctx, handle)


async def _make(ctx: Context, volume: VolumeHandle, top: records.Top, *, keeps_tracking: bool) -> Prepared:
    opened = volume.require_open()
    overlay = await ctx.pool.call(make_overlay, ctx, volume, top.layer)
    if keeps_tracking:
        return Prepared(overlay)
    try:
        await ctx.pool.call(opened.start_tracking, top.tracking, all_dirty=False)
        found = await ctx.pool.call(opened.open_tracking, top.tracking, nonce=bytes(16), clean=False, pending=False)
    except BaseException:
        await ctx.pool.call(overlay.close)
        raise
    volume.record = model.with_tracking(volume.record, top.tracking, found.nonce)
    return Prepared(overlay)


async def bind_top(ctx: Context, volume: VolumeHandle, point: model.PointId | None, overlay: Overlay) -> None:
    """Put the overlay on top of the image of `point`, or of all that the volume holds: it takes the writes now."""
    volume.top = overlay
    overlay.on_failure = volume.require_open().fail
    below = await image_at(ctx, volume, point) if point is not None else image_here(volume)
    volume.top_io = OverlayIO(overlay, below)


async def take_back(ctx: Context, handle: GroupHandle) -> None:
    """Remove what a promotion that did not happen has made. Again: nothing; boot runs it."""
    await ctx.database.transact(lambda conn: records.cancel(conn, handle.id))
    await staging.remove_dead(ctx, handle.volumes)
    await volumes.forget_planned(ctx, handle)
