"""Folding: what retention lets go is copied into the base, in the background, a bounded piece at a time.

The point is gone in the first transaction; until the last one its layers still hide every block that is
being changed, so a crash, an I/O error or a full disk in between costs nothing but another try. This
module must never fold past a pin, nor the newest point.
"""

from __future__ import annotations

from blockstore.fold import Fold
from blockstore.frozen import FoldOverlay, FrozenOverlay
from engine import model
from engine.errors import PointPinned, RefusedByState
from engine.model import LayerState
from engine.operations import staging
from engine.operations.context import Context
from engine.operations.handles import GroupHandle
from engine.operations.pacing import UPKEEP_BYTES_PER_S, Pacer
from engine.operations.snapshot import aside_export_name, close_retired, export_name
from engine.records import folds, groups
from engine.records import layers as layer_records

PIECE_BYTES = 8 << 20


def pacer(ctx: Context, handle: GroupHandle) -> Pacer:
    """Folds and merges yield to hosts of the group and to a sync that is received."""

    def is_busy() -> bool:
        names = [volume.name for volume in handle.volumes]
        names += [export_name(volume, snapshot) for volume in names for snapshot in handle.snapshots]
        names += [aside_export_name(volume.name, aside) for volume in handle.volumes for aside in handle.asides]
        return handle.receiving is not None or any(ctx.presenter.is_busy(name) for name in names)

    return Pacer(ctx.clock, is_busy, busy_bytes_per_s=UPKEEP_BYTES_PER_S)


async def fold_due(ctx: Context, handle: GroupHandle) -> int:
    """Fold until only the points to be kept are left; returns how many went. Raises OSError, LayerDamaged."""
    done = 0
    while await _is_due(ctx, handle):
        try:
            layers = await ctx.database.transact(lambda conn: folds.start(conn, handle.id))
        except (PointPinned, RefusedByState):
            break  # a pin or a seal came between: what is due is looked at again after the next seal
        await finish(ctx, handle, layers)
        done += 1
    return done


async def _is_recovery(ctx: Context, handle: GroupHandle) -> bool:
    return (await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))).role is model.Role.RECOVERY


async def _is_due(ctx: Context, handle: GroupHandle) -> bool:
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    if record.role is not model.Role.RECOVERY:
        return False
    return bool(await ctx.database.transact(lambda conn: folds.retention(conn, handle.id, record.keep)))


async def finish(ctx: Context, handle: GroupHandle, layers: tuple[model.Layer, ...]) -> None:
    """Copy the oldest layer of every volume into its base, then forget it. Repeated from the start after a crash.

    A promotion ends it between two pieces: from then on the hash table is the syncs', and the layer stays where it is.
    """
    pace = pacer(ctx, handle).pace
    for volume, layer in zip(handle.volumes, layers, strict=True):
        pack = volume.chain[0]
        assert pack.layer_id == layer.id, "the oldest layer is the one to fold"
        opened = volume.require_open()
        work: Fold | FoldOverlay
        if isinstance(pack, FrozenOverlay):
            work = FoldOverlay(pack, opened.store, opened.hashes, layer.point or bytes(16))
        else:
            work = Fold(ctx.disk, pack, opened.store, opened.hashes, layer.point or bytes(16))
        is_done = False
        while not is_done:
            await pace(PIECE_BYTES)
            async with volume.hashing:
                if not await _is_recovery(ctx, handle):
                    return
                is_done = await ctx.pool.call(work.step, PIECE_BYTES)
    async with handle.lock:
        await ctx.database.transact(lambda conn: folds.finish(conn, [layer.id for layer in layers]))
        for volume in handle.volumes:
            volume.retired.append(volume.chain[0])
            volume.chain = volume.chain[1:]
        await staging.remove_dead(ctx, handle.volumes)
        await close_retired(ctx, handle)


async def finish_begun(ctx: Context, handle: GroupHandle) -> None:
    """A fold that was begun is repeated from its start: until it is done, its layer hides what it changes.

    Not while a volume of the group cannot be used: reopening it comes here again. Raises OSError, LayerDamaged.
    """
    if handle.failure or not await _is_recovery(ctx, handle):
        return
    begun = await ctx.database.read(lambda conn: layer_records.in_state(conn, LayerState.FOLDING, group=handle.id))
    if begun:
        order = {volume.record.id: index for index, volume in enumerate(handle.volumes)}
        await finish(ctx, handle, tuple(sorted(begun, key=lambda layer: order[layer.volume])))
