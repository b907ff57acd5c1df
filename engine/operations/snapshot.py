"""Snapshots: writable throw-away copies of points, exported while replication goes on.

Create: the pin and the row first, then the files, then `ready`, then the export. Reset: new overlays and the old ones'
death in one transaction, then the new files, then `ready`; a crash between is finished at boot. Delete: the export
away, then `deleting`, and the caller is answered; `clear_away` unlinks the files, then row and pin go in one
transaction. A pinned point is never folded past. This module must never touch the layers below a snapshot.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from blockstore.errors import LeewardError, VolumeFailed
from blockstore.image import Image
from blockstore.overlay import Overlay
from blockstore.overlay_io import OverlayIO
from engine import model
from engine.errors import BadValue, NameTaken, Raced, RefusedByState, UnknownName
from engine.model import LayerId, PointId, SnapshotId, SnapshotState
from engine.operations import staging
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, SnapshotHandle, VolumeHandle
from engine.operations.volumes import check_name
from engine.records import layers, points, snapshots
from engine.requests import SnapshotCreate, SnapshotDelete, SnapshotReset

LONGEST_LIFE_S = 3650 * 86400


def export_name(volume: str, snapshot: str) -> str:
    """How a snapshot's copy of a volume is called on NBD."""
    return f"{volume}@{snapshot}"


def aside_export_name(volume: str, set_aside: str) -> str:
    """How a set-aside's image of a volume is called on NBD; `~` is in no name, so it is never a snapshot's."""
    return f"{volume}~{set_aside}"


async def create(ctx: Context, handle: GroupHandle, request: SnapshotCreate) -> SnapshotHandle:
    """A new snapshot; `converge` puts its exports up.

    Raises BadValue, UnknownName, NameTaken, RefusedByState, LayerDamaged, OSError; then nothing was made.
    """
    if request.name is not None:
        check_name("snapshot", request.name)
    _check_life(request.for_s)
    point = await _chosen_point(ctx, handle, request.point)
    name = request.name or f"{point.sequence}-{ctx.clock.token(2).hex()}"
    if name in handle.snapshots:
        raise NameTaken(what="snapshot", name=name)
    now = ctx.clock.now()
    record = model.Snapshot(
        id=SnapshotId(ctx.clock.token(16)),
        group=handle.id,
        name=name,
        point=point.id,
        state=SnapshotState.CREATING,
        layers=tuple(LayerId(ctx.clock.token(16)) for _ in handle.volumes),
        wwns=tuple(model.new_wwn(ctx.clock.token(13)) for _ in handle.volumes),
        created_at=now,
        expires_at=None if request.for_s is None else now + timedelta(seconds=request.for_s),
    )
    await ctx.database.transact(lambda conn: snapshots.create(conn, record))
    try:
        snapshot = await _bring_up(ctx, handle, SnapshotHandle(record, point, [], []))
    except BaseException:
        await ctx.database.transact(lambda conn: snapshots.deleting(conn, record.id))
        await _remove(ctx, handle, record)
        raise
    handle.snapshots[name] = snapshot
    return snapshot


def _check_life(for_s: int | None) -> None:
    if for_s is not None and not 0 < for_s <= LONGEST_LIFE_S:
        reason = f"give at least 1 second and at most {LONGEST_LIFE_S // 86400} days"
        raise BadValue(what="life time of a snapshot", value=f"{for_s} s", reason=reason)


async def _bring_up(ctx: Context, handle: GroupHandle, snapshot: SnapshotHandle) -> SnapshotHandle:
    """Make the overlays that its row names, and put them over their point. What was made is closed if one fails."""
    record = snapshot.record
    made: list[Overlay] = []
    try:
        for volume, layer in zip(handle.volumes, record.layers, strict=True):
            made.append(await ctx.pool.call(make_overlay, ctx, volume, layer))
        await ctx.database.transact(lambda conn: snapshots.ready(conn, record.id))
        snapshot.views = await _views(ctx, handle, record, made)
    except BaseException:
        for overlay in made:
            await ctx.pool.call(overlay.close)
        raise
    snapshot.record = replace(record, state=SnapshotState.READY)
    snapshot.overlays, snapshot.failure = made, ""
    return snapshot


async def _views(ctx: Context, handle: GroupHandle, record: model.Snapshot, overlays: list[Overlay]) -> list[OverlayIO]:
    return [
        OverlayIO(overlay, await image_at(ctx, volume, record.point))
        for volume, overlay in zip(handle.volumes, overlays, strict=True)
    ]


async def image_at(ctx: Context, volume: VolumeHandle, point: PointId) -> Image:
    """The volume as of a point that still stands. Raises UnknownName, VolumeFailed: a layer of it is not open."""
    opened = volume.require_open()
    below = await ctx.database.read(lambda conn: layers.up_to(conn, volume.record.id, point))
    packs = {pack.layer_id: pack for pack in volume.chain}
    if any(row.id not in packs for row in below):
        raise VolumeFailed(volume=volume.name, reason="a layer of this point could not be opened")
    return Image(opened.store, [packs[row.id] for row in below], opened.size_bytes, opened.hash_seed)


def image_here(volume: VolumeHandle) -> Image:
    """All that the volume holds below its top. Raises VolumeFailed."""
    opened = volume.require_open()
    return Image(opened.store, volume.chain, opened.size_bytes, opened.hash_seed)


async def _chosen_point(ctx: Context, handle: GroupHandle, wanted: str | None) -> model.Point:
    """By id or number; the newest if none is named. Raises UnknownName, RefusedByState."""
    found = await ctx.database.transact(lambda conn: points.of_group(conn, handle.id))
    if not found:
        raise RefusedByState(operation="snapshot", group=handle.name, reason="it has no recovery point yet")
    if wanted is None:
        return found[0]
    for point in found:
        if wanted.lower() in (point.id.hex(), str(point.sequence)):
            return point
    raise UnknownName(what="point", name=wanted)


def make_overlay(ctx: Context, volume: VolumeHandle, layer: LayerId) -> Overlay:
    """A new overlay of a volume, its files durable. Blocking. Raises OSError."""
    record = volume.record
    ctx.disk.make_dir(ctx.paths.layers(record.id))
    return Overlay.create(
        ctx.disk,
        ctx.paths.layers(record.id),
        layer_id=layer,
        volume_id=record.id,
        image_bytes=record.size_bytes,
        live_folder=ctx.paths.live_folder(record.id),
    )


def open_overlay(ctx: Context, volume: VolumeHandle, layer: LayerId) -> Overlay:
    """A recorded overlay of a volume. Blocking. Raises LayerDamaged, OSError."""
    record = volume.record
    return Overlay.open(
        ctx.disk,
        ctx.paths.layers(record.id),
        layer_id=layer,
        volume_id=record.id,
        image_bytes=record.size_bytes,
        live_folder=ctx.paths.live_folder(record.id),
    )


async def reset(ctx: Context, handle: GroupHandle, request: SnapshotReset) -> SnapshotHandle:
    """Throw away what was written to it: hosts are disconnected, then it shows its point again.

    `converge` puts its exports up again; `clear_away` unlinks what was thrown away. Raises UnknownName, OSError:
    then it is down, and a reset or a delete is what it waits for.
    """
    snapshot = _named(handle, request.name)
    await _withdraw(ctx, handle, snapshot)
    return await _begin_anew(ctx, handle, snapshot)


async def _begin_anew(ctx: Context, handle: GroupHandle, snapshot: SnapshotHandle) -> SnapshotHandle:
    """New overlays in the place of those that its row names."""
    fresh = tuple(LayerId(ctx.clock.token(16)) for _ in handle.volumes)
    await ctx.database.transact(lambda conn: snapshots.reset(conn, snapshot.record.id, fresh))
    await _close(ctx, snapshot, "a reset of it is not complete")
    snapshot.record = replace(snapshot.record, state=SnapshotState.RESETTING, layers=fresh)
    return await _bring_up(ctx, handle, snapshot)


async def delete(ctx: Context, handle: GroupHandle, request: SnapshotDelete) -> None:
    """Withdraw and forget it, its name free at once; `clear_away` does what takes time. Raises UnknownName."""
    snapshot = _named(handle, request.name)
    await _withdraw(ctx, handle, snapshot)
    await ctx.database.transact(lambda conn: snapshots.deleting(conn, snapshot.record.id))
    del handle.snapshots[request.name]
    await _close(ctx, snapshot, "it is deleted")
    await close_retired(ctx, handle)


def _named(handle: GroupHandle, name: str) -> SnapshotHandle:
    snapshot = handle.snapshots.get(name)
    if snapshot is None:
        raise UnknownName(what="snapshot", name=name)
    return snapshot


async def _withdraw(ctx: Context, handle: GroupHandle, snapshot: SnapshotHandle) -> None:
    for volume in handle.volumes:
        await ctx.presenter.withdraw(export_name(volume.name, snapshot.record.name))


async def _close(ctx: Context, snapshot: SnapshotHandle, reason: str) -> None:
    overlays, snapshot.overlays, snapshot.views, snapshot.failure = snapshot.overlays, [], [], reason
    for overlay in overlays:
        await ctx.pool.call(overlay.close)


async def expire(ctx: Context, handle: GroupHandle) -> None:
    """Delete the snapshots whose life is over, each with an event."""
    now = ctx.clock.now()
    for name in [name for name, snapshot in handle.snapshots.items() if is_over(snapshot.record, now)]:
        async with handle.lock:
            snapshot = handle.snapshots.get(name)
            if snapshot is not None and is_over(snapshot.record, now):
                await delete(ctx, handle, SnapshotDelete(group=handle.name, name=name))
                _tell_expired(ctx, handle, name)


def is_over(record: model.Snapshot, now: datetime) -> bool:
    """True if it was asked for until now at most."""
    return record.expires_at is not None and record.expires_at <= now


def _tell_expired(ctx: Context, handle: GroupHandle, name: str) -> None:
    text = f"Snapshot {name} of {handle.name} was deleted: the time that it was asked for is over."
    ctx.report("info", "snapshot_expired", text, group=handle.name)


async def close_retired(ctx: Context, handle: GroupHandle) -> None:
    """Close packs that left the chain once no image that is in use has them. Under the group's lock."""
    for index, volume in enumerate(handle.volumes):
        views = [snapshot.views[index] for snapshot in handle.snapshots.values() if snapshot.views]
        shown = [aside.views[index] for aside in handle.asides.values()]
        in_use = [view for view in (*views, *shown, volume.top_io) if view is not None]
        used = {layer.layer_id for view in in_use for layer in view.layers}
        unused = [pack for pack in volume.retired if pack.layer_id not in used]
        volume.retired = [pack for pack in volume.retired if pack.layer_id in used]
        for pack in unused:
            await ctx.pool.call(pack.close)


async def clear_away(ctx: Context, handle: GroupHandle) -> None:
    """Unlink what deleted and reset snapshots left behind; then rows and pins of the deleted go. Again: nothing."""
    found = await ctx.database.read(lambda conn: snapshots.of_group(conn, handle.id))
    for record in found:
        if record.state is SnapshotState.DELETING:
            with contextlib.suppress(Raced):  # somebody else cleared it away meanwhile
                await _remove(ctx, handle, record)
    await staging.remove_dead(ctx, handle.volumes)


async def _remove(ctx: Context, handle: GroupHandle, record: model.Snapshot) -> None:
    for volume, layer in zip(handle.volumes, record.layers, strict=True):
        folder = ctx.paths.layers(volume.record.id)
        if ctx.disk.exists(folder):
            await ctx.pool.call(Overlay.remove, ctx.disk, folder, layer, ctx.paths.live_folder(volume.record.id))
    await ctx.database.transact(lambda conn: snapshots.delete(conn, record.id))


async def reopen(ctx: Context, handle: GroupHandle) -> None:
    """After a restart: what was half made is deleted, what was half reset is reset, the others are opened.

    One whose life is over is deleted. One that cannot be opened is reported and stays, to be reset or deleted.
    """
    for record in await ctx.database.read(lambda conn: snapshots.of_group(conn, handle.id)):
        has_expired = record.state is not SnapshotState.CREATING and is_over(record, ctx.clock.now())
        if record.state is SnapshotState.DELETING:
            continue
        if has_expired or record.state is SnapshotState.CREATING:
            await ctx.database.transact(partial(snapshots.deleting, snapshot=record.id))
            if has_expired:
                _tell_expired(ctx, handle, record.name)
            continue
        point = await ctx.database.read(partial(points.get, point=record.point))
        snapshot = handle.snapshots[record.name] = SnapshotHandle(record, point, [], [])
        try:
            await _reopen(ctx, handle, snapshot)
        except (LeewardError, OSError) as error:
            snapshot.failure = str(error)
            code = error.code if isinstance(error, LeewardError) else "snapshot_failed"
            ctx.report("error", code, f"Snapshot {record.name} of {handle.name}: {error}", group=handle.name)


async def _reopen(ctx: Context, handle: GroupHandle, snapshot: SnapshotHandle) -> None:
    if snapshot.record.state is SnapshotState.RESETTING:
        await _begin_anew(ctx, handle, snapshot)
        return
    for volume, layer in zip(handle.volumes, snapshot.record.layers, strict=True):
        snapshot.overlays.append(await ctx.pool.call(open_overlay, ctx, volume, layer))
    snapshot.views = await _views(ctx, handle, snapshot.record, snapshot.overlays)
