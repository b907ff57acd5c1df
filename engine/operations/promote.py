"""Promotion: the newest recovery point becomes writable here, from metadata alone, whatever the size.

Fence the receiver, name the new files, make them durable, then one transaction for the whole group, then
the exports. Crash before the transaction: still recovery, the files are removed at boot. After: promoted.
It never needs the peer. Nothing of the point or above is folded from now on. This module must never copy data.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockstore.overlay import Overlay
from blockstore.overlay_io import OverlayIO
from engine import model
from engine.decide.roles import is_already, require_legal
from engine.errors import LeewardError, RefusedByState
from engine.model import LayerId, TrackingId
from engine.operations import receive, staging, volumes
from engine.operations.context import Context
from engine.operations.converge import converge
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.operations.snapshot import image_at, make_overlay
from engine.records import groups
from engine.records import promote as records
from engine.requests import Promote


@dataclass(frozen=True, slots=True)
class Prepared:
    """The durable files of one volume's new top and tracking."""

    overlay: Overlay
    tracking: TrackingId


async def promote(ctx: Context, handle: GroupHandle, request: Promote, *, peer_is_protected: bool) -> None:
    """Make the group writable here, its exports up on return. Again: nothing. Raises RefusedByState, OSError."""
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    if is_already(request, record):
        await converge(ctx, handle)
        return
    require_legal(request, record)
    point = _promotable(handle, record)
    if peer_is_protected and not request.force:
        raise RefusedByState(
            operation="promote",
            group=handle.name,
            reason="the peer is connected and protected; --force promotes this side all the same",
        )
    await receive.end_session(ctx, handle)
    prepared = await _prepare(ctx, handle, point)
    nonces = {volume.record.id: volume.record.nonce for volume in handle.volumes}
    try:
        record = await ctx.database.transact(
            lambda conn: records.commit(conn, handle.id, point.id, nonces, term=record.term + 1, expects=record.version)
        )
    except LeewardError:
        await _give_up(ctx, handle, prepared)
        raise
    for volume, made in zip(handle.volumes, prepared, strict=True):
        await bind_top(ctx, volume, point.id, made.overlay)
    await staging.remove_dead(ctx, handle.volumes)
    ctx.report("warning", "promoted", f"Group {handle.name} is protected here, term {record.term}.", group=handle.name)
    await converge(ctx, handle)
    ctx.links.redial(handle.peer)


def _promotable(handle: GroupHandle, record: model.Group) -> model.Point:
    if record.common is None:
        raise RefusedByState(
            operation="promote", group=handle.name, reason="its first copy is not complete: there is no recovery point"
        )
    for volume in handle.volumes:
        volume.require_open()
    return record.common


async def _prepare(ctx: Context, handle: GroupHandle, point: model.Point) -> list[Prepared]:
    """Name, then make the files of every volume's top and tracking; taken back if one of them cannot be made."""
    tops = [
        records.Top(volume.record.id, LayerId(ctx.clock.token(16)), TrackingId(ctx.clock.token(16)))
        for volume in handle.volumes
    ]
    await ctx.database.transact(lambda conn: records.prepare(conn, handle.id, point.id, tops))
    made: list[Prepared] = []
    try:
        for volume, top in zip(handle.volumes, tops, strict=True):
            made.append(await _make(ctx, volume, top))
    except BaseException:
        await _give_up(ctx, handle, made)
        raise
    return made


async def _give_up(ctx: Context, handle: GroupHandle, made: list[Prepared]) -> None:
    for prepared in made:
        await ctx.pool.call(prepared.overlay.close)
    await take_back(ctx, handle)


async def _make(ctx: Context, volume: VolumeHandle, top: records.Top) -> Prepared:
    opened = volume.require_open()
    overlay = await ctx.pool.call(make_overlay, ctx, volume, top.layer)
    try:
        await ctx.pool.call(opened.start_tracking, top.tracking, all_dirty=False)
        found = await ctx.pool.call(opened.open_tracking, top.tracking, nonce=bytes(16), clean=False, pending=False)
    except BaseException:
        await ctx.pool.call(overlay.close)
        raise
    volume.record = model.with_tracking(volume.record, top.tracking, found.nonce)
    return Prepared(overlay, top.tracking)


async def bind_top(ctx: Context, volume: VolumeHandle, point: model.PointId, overlay: Overlay) -> None:
    """Put the overlay on top of the image of `point`: from now on it takes the volume's writes."""
    volume.top = overlay
    volume.top_io = OverlayIO(overlay, await image_at(ctx, volume, point))


async def take_back(ctx: Context, handle: GroupHandle) -> None:
    """Remove what a promotion that did not happen has made. Again: nothing; boot runs it."""
    await ctx.database.transact(lambda conn: records.cancel(conn, handle.id))
    await staging.remove_dead(ctx, handle.volumes)
    await volumes.forget_planned(ctx, handle)
