"""The layers into which a sync is received: made, found again after a break, finished or dropped.

A delta goes into one pack a volume; the first copy of a group goes straight into the bases, since there is
no point to protect yet. Rows come before files at birth and files before rows at death, so that every file
has a row. This module must never touch a sealed layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from blockstore.errors import LayerDamaged, LayerSpace
from blockstore.layer import IncomingLayer, SealReceipt
from blockstore.overlay import Overlay
from blockstore.pack import OpenPack
from blockstore.pack_file import SPACE
from blockstore.seed import SeedBase, journal_path
from blockstore.units import BLOCK
from engine import model
from engine.model import LayerId, LayerKind, LayerState, SyncId
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, Receiving, VolumeHandle
from engine.records import groups, incoming, layers
from engine.records.columns import Connection
from engine.wire.messages import Begin

T = TypeVar("T")

Named = tuple[LayerId, IncomingLayer]


async def open_layers(ctx: Context, handle: GroupHandle, message: Begin, wanted: model.Incoming) -> list[Named]:
    """One incoming layer a volume for this sync, in the group's order; what landed before is kept where it fits."""
    if message.mode == "delta":
        return await _open_packs(ctx, handle, wanted)

    def commit(conn: Connection) -> None:
        record = groups.by_id(conn, handle.id)
        incoming.begin(conn, handle.id, wanted, expects=record.version)

    await ctx.database.transact(commit)
    seed = SyncId(message.sync if message.mode == "seed" else message.builds_on or b"")
    return [(LayerId(seed), await ctx.pool.call(_open_seed, ctx, volume, seed)) for volume in handle.volumes]


def _open_seed(ctx: Context, volume: VolumeHandle, seed: SyncId) -> SeedBase:
    opened = volume.require_open()
    for name in ctx.disk.list(opened.folder):
        if name.endswith(".seed") and name != f"{seed.hex()}.seed":
            ctx.disk.unlink(f"{opened.folder}/{name}")  # of a first copy that was begun anew: it stands for nothing
    path = journal_path(opened.folder, seed)
    return _recover_or_create(
        ctx,
        path,
        partial(SeedBase.recover, ctx.disk, opened.store, opened.folder),
        partial(SeedBase.create, ctx.disk, opened.store, opened.folder),
        volume_id=volume.record.id,
        owner=seed,
        image_bytes=opened.size_bytes,
        hash_seed=opened.hash_seed,
    )


async def _open_packs(ctx: Context, handle: GroupHandle, wanted: model.Incoming) -> list[Named]:
    fresh = [LayerId(ctx.clock.token(16)) for _ in handle.volumes]

    def commit(conn: Connection) -> tuple[model.Layer, ...]:
        record = groups.by_id(conn, handle.id)
        if record.incoming is not None and record.incoming.builds_on == wanted.builds_on:
            if record.incoming.sync == wanted.sync:
                return layers.receiving(conn, handle.id)
            return incoming.renew(conn, handle.id, wanted, expects=record.version)
        incoming.begin(conn, handle.id, wanted, expects=record.version)
        for name, volume in zip(fresh, handle.volumes, strict=True):
            layers.open_pack(
                conn,
                name,
                volume.record.id,
                sync=wanted.sync,
                builds_on=wanted.builds_on,
                image_bytes=volume.record.size_bytes,
            )
        return layers.receiving(conn, handle.id)

    rows = await ctx.database.transact(commit)
    return [
        (row.id, await ctx.pool.call(_open_pack, ctx, volume, row, wanted))
        for row, volume in zip(rows, handle.volumes, strict=True)
    ]


def _open_pack(ctx: Context, volume: VolumeHandle, row: model.Layer, wanted: model.Incoming) -> OpenPack:
    path = ctx.paths.pack(volume.record.id, row.id)
    ctx.disk.make_dir(ctx.paths.layers(volume.record.id))
    return _recover_or_create(
        ctx,
        path,
        partial(OpenPack.recover, ctx.disk, path),
        partial(OpenPack.create, ctx.disk, path),
        volume_id=volume.record.id,
        layer_id=row.id,
        builds_on=wanted.builds_on or bytes(16),
        image_bytes=volume.record.size_bytes,
        hash_seed=volume.record.hash_seed,
    )


def _recover_or_create(ctx: Context, path: str, recover: Callable[..., T], create: Callable[..., T], **bound: Any) -> T:
    """What a process left, if it is any good. A crash in making a file can leave its name without its header."""
    if ctx.disk.exists(path):
        try:
            return recover(**bound)
        except LayerDamaged:  # the sender is told of nothing in it, and sends all of it again
            ctx.disk.unlink(path)
    return create(**bound)


async def drop_layers(ctx: Context, handle: GroupHandle) -> None:
    """Give up what is half received, if anything: the rows say so first, then the files go, then the rows."""
    await ctx.database.transact(lambda conn: incoming.drop(conn, handle.id))
    await remove_dead(ctx, handle.volumes)


async def remove_dead(ctx: Context, volumes: Iterable[VolumeHandle]) -> None:
    """Unlink the files of layers that are dead or folded, then forget their rows. Again: nothing.

    By volume: a group that was removed has none any more, but its layers are there until their files are gone.
    """
    mine = {volume.record.id for volume in volumes}
    found = await ctx.database.read(lambda conn: layers.in_state(conn, LayerState.DEAD, LayerState.FOLDED))
    dead = tuple(layer for layer in found if layer.volume in mine)
    if dead:
        await ctx.pool.call(_unlink, ctx, dead)
        await ctx.database.transact(lambda conn: layers.delete(conn, [layer.id for layer in dead]))


def _unlink(ctx: Context, dead: tuple[model.Layer, ...]) -> None:
    folders = {ctx.paths.layers(layer.volume) for layer in dead}
    for layer in dead:
        folder = ctx.paths.layers(layer.volume)
        ctx.disk.unlink(f"{folder}/{layer.id.hex()}.pack")
        if layer.kind is LayerKind.OVERLAY and ctx.disk.exists(folder):
            Overlay.remove(ctx.disk, folder, layer.id, ctx.paths.live_folder(layer.volume))
    for folder in folders:
        if ctx.disk.exists(folder):
            ctx.disk.sync_dir(folder)


async def finish_seed(ctx: Context, handle: GroupHandle, receiving: Receiving) -> None:
    """The first copy is complete in the bases: their hash tables are filled before the point is recorded."""
    for volume, layer in zip(handle.volumes, receiving.layers, strict=True):
        assert isinstance(layer, SeedBase)
        await ctx.pool.call(_fill_hashes, volume, layer, receiving.incoming.point)


def landed_bytes(receiving: Receiving, receipts: list[SealReceipt]) -> int:
    """Bytes of data that a sync has added here. A first copy: of both its passes, also from before a restart."""
    if receiving.mode != "seed_delta":
        return sum(receipt.payload_bytes for receipt in receipts)
    return sum(layer.table.entered_blocks for layer in receiving.layers if isinstance(layer, SeedBase)) * BLOCK


def _fill_hashes(volume: VolumeHandle, layer: SeedBase, point: model.PointId) -> None:
    hashes = volume.require_open().hashes
    try:
        layer.apply_hashes(hashes)
        hashes.bind(point)
    except OSError as error:
        if error.errno in SPACE:
            raise LayerSpace(path=hashes.file.path) from error
        raise


async def forget_seeds(ctx: Context, handle: GroupHandle) -> None:
    """Remove the journals of a first copy that has become a point. Again: nothing."""
    for volume in handle.volumes:
        if volume.open is not None:
            await ctx.pool.call(_remove_seeds, ctx, volume)


def _remove_seeds(ctx: Context, volume: VolumeHandle) -> None:
    folder = volume.require_open().folder
    gone = [name for name in ctx.disk.list(folder) if name.endswith(".seed")]
    for name in gone:
        ctx.disk.unlink(f"{folder}/{name}")
    if gone:
        ctx.disk.sync_dir(folder)
