"""Snapshots: writable throw-away copies of a point, exported while replication goes on.

Create: the pin and the row first, then the files, then `ready`, then the export. Delete: the export away,
then `deleting`, then the files, then the row and the pin in one transaction. A crash between finishes as a
delete. A pinned point is never folded past. This module must never touch the layers below a snapshot.
"""

from __future__ import annotations

from dataclasses import replace

from blockstore.errors import VolumeFailed
from blockstore.image import Image
from blockstore.overlay import Overlay
from blockstore.overlay_io import OverlayIO
from engine import model
from engine.errors import NameTaken, RefusedByState, UnknownName
from engine.model import LayerId, PointId, SnapshotId, SnapshotState
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, SnapshotHandle, VolumeHandle
from engine.records import layers, points, snapshots
from engine.requests import SnapshotCreate, SnapshotDelete


def export_name(volume: str, snapshot: str) -> str:
    """How a snapshot's copy of a volume is called on NBD."""
    return f"{volume}@{snapshot}"


async def create(ctx: Context, handle: GroupHandle, request: SnapshotCreate) -> SnapshotHandle:
    """A new snapshot, its exports up. Raises UnknownName, NameTaken, RefusedByState, LayerDamaged, OSError."""
    point = await _chosen_point(ctx, handle, request.point)
    name = request.name or f"{point.sequence}-{ctx.clock.token(2).hex()}"
    if name in handle.snapshots:
        raise NameTaken(what="snapshot", name=name)
    record = model.Snapshot(
        id=SnapshotId(ctx.clock.token(16)),
        group=handle.id,
        name=name,
        point=point.id,
        state=SnapshotState.CREATING,
        layers=tuple(LayerId(ctx.clock.token(16)) for _ in handle.volumes),
        wwns=tuple(model.new_wwn(ctx.clock.token(13)) for _ in handle.volumes),
        created_at=ctx.clock.now(),
    )
    await ctx.database.transact(lambda conn: snapshots.create(conn, record))
    try:
        made = [
            await ctx.pool.call(make_overlay, ctx, volume, layer)
            for volume, layer in zip(handle.volumes, record.layers, strict=True)
        ]
        await ctx.database.transact(lambda conn: snapshots.ready(conn, record.id))
    except BaseException:
        await _remove(ctx, handle, record)
        raise
    snapshot = await bind(ctx, handle, replace(record, state=SnapshotState.READY), point, made)
    handle.snapshots[name] = snapshot
    return snapshot


async def bind(
    ctx: Context, handle: GroupHandle, record: model.Snapshot, point: model.Point, overlays: list[Overlay]
) -> SnapshotHandle:
    """The open overlays over the image of their point, ready to be exported."""
    views = []
    for volume, overlay in zip(handle.volumes, overlays, strict=True):
        views.append(OverlayIO(overlay, await image_at(ctx, volume, record.point)))
    return SnapshotHandle(record, point, overlays, views)


async def image_at(ctx: Context, volume: VolumeHandle, point: PointId) -> Image:
    """The volume as of a point that still stands. Raises UnknownName, VolumeFailed: a layer of it is not open."""
    opened = volume.require_open()
    below = await ctx.database.read(lambda conn: layers.up_to(conn, volume.record.id, point))
    packs = {pack.layer_id: pack for pack in volume.chain}
    if any(row.id not in packs for row in below):
        raise VolumeFailed(volume=volume.name, reason="a layer of this point could not be opened")
    return Image(opened.store, [packs[row.id] for row in below], opened.size_bytes, opened.hash_seed)


async def _chosen_point(ctx: Context, handle: GroupHandle, wanted: str | None) -> model.Point:
    found = await ctx.database.transact(lambda conn: points.of_group(conn, handle.id))
    if not found:
        raise RefusedByState(operation="snapshot", group=handle.name, reason="it has no recovery point yet")
    if wanted is None:
        return found[0]
    for point in found:
        if point.id.hex() == wanted:
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


async def delete(ctx: Context, handle: GroupHandle, request: SnapshotDelete) -> None:
    """Withdraw it and remove it. Raises UnknownName."""
    snapshot = handle.snapshots.get(request.name)
    if snapshot is None:
        raise UnknownName(what="snapshot", name=request.name)
    for volume in handle.volumes:
        await ctx.presenter.withdraw(export_name(volume.name, request.name))
    del handle.snapshots[request.name]
    for overlay in snapshot.overlays:
        await ctx.pool.call(overlay.close)
    await _remove(ctx, handle, snapshot.record)
    await close_retired(ctx, handle)


async def close_retired(ctx: Context, handle: GroupHandle) -> None:
    """Close folded packs once no image that was made before their fold can read them."""
    if handle.snapshots or any(volume.top is not None for volume in handle.volumes):
        return
    for volume in handle.volumes:
        while volume.retired:
            await ctx.pool.call(volume.retired.pop().close)


async def _remove(ctx: Context, handle: GroupHandle, record: model.Snapshot) -> None:
    await ctx.database.transact(lambda conn: snapshots.deleting(conn, record.id))
    for volume, layer in zip(handle.volumes, record.layers, strict=True):
        await ctx.pool.call(
            Overlay.remove, ctx.disk, ctx.paths.layers(volume.record.id), layer, ctx.paths.live_folder(volume.record.id)
        )
    await ctx.database.transact(lambda conn: snapshots.delete(conn, record.id))


async def finish_deletes(ctx: Context, handle: GroupHandle) -> list[model.Snapshot]:
    """After a restart: what was half made or half removed goes; returns the snapshots that are ready."""
    found = await ctx.database.transact(lambda conn: snapshots.of_group(conn, handle.id))
    for record in found:
        if record.state is not SnapshotState.READY:
            await _remove(ctx, handle, record)
    return [record for record in found if record.state is SnapshotState.READY]
