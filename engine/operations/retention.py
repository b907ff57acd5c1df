"""Retention: what count and schedule let go is dropped, merged or folded, in the background, a bounded piece at a time.

A point in the middle goes in one transaction, and its layer is merged into the next one later; the oldest ones go into
the base (`fold`). A merge writes a new file: until the one transaction that puts it into the place of its inputs
nobody reads it, and a crash, an error or a full disk costs nothing but another try. Images that were made before go
on reading the old files. This module must never touch what a pin holds, and never run where hosts write.
"""

from __future__ import annotations

import contextlib
from functools import partial

from blockstore.layer import SealReceipt
from blockstore.merge import Merge
from blockstore.pack_read import SealedPack
from blockstore.steps import Step
from engine.decide.retention import runs_backwards
from engine.errors import PointPinned, Raced
from engine.model import LayerId, require
from engine.operations import fold, staging
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.operations.pacing import Pacer
from engine.operations.receive import open_pack
from engine.operations.snapshot import close_retired
from engine.records import groups, merges, points

PIECE_BYTES = 8 << 20


async def retain(ctx: Context, handle: GroupHandle) -> None:
    """Until nothing more may go and no layer waits to be merged. Raises LayerDamaged, LayerSpace, OSError."""
    if runs_backwards(await ctx.database.read(lambda conn: points.of_group(conn, handle.id))):
        text = f"The newest point of {handle.name} was captured before the one before it: the clock there went back."
        ctx.report("warning", "capture_times_backwards", text, group=handle.name)
    await fold.finish_begun(ctx, handle)  # one that an error cut short, of a volume that was reopened
    record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
    with contextlib.suppress(PointPinned):  # a pin came between: what is due is looked at again after the next seal
        await ctx.database.transact(lambda conn: merges.drop(conn, handle.id, record.keep))
    while await merge_next(ctx, handle):
        pass
    await fold.fold_due(ctx, handle)


async def merge_next(ctx: Context, handle: GroupHandle) -> bool:
    """Merge the oldest layers that end in no point into the next one that does; False: there are none."""
    fresh = {volume.record.id: LayerId(ctx.clock.token(16)) for volume in handle.volumes}
    due = await ctx.database.transact(lambda conn: merges.start(conn, handle.id, fresh))
    if not due:
        return False
    pacer = fold.pacer(ctx, handle)
    receipts: list[SealReceipt] = []
    made: list[SealedPack] = []
    try:
        for volume, merge in zip(handle.volumes, due, strict=True):
            receipts.append(await _build(ctx, volume, merge, pacer))
            made.append(await ctx.pool.call(open_pack, ctx, volume.record, merge.output.id, receipts[-1]))
        async with handle.lock:
            await ctx.database.transact(lambda conn: merges.finish(conn, handle.id, due, receipts))
            for volume, merge in zip(handle.volumes, due, strict=True):
                _replace(volume, merge, made.pop(0))
            await close_retired(ctx, handle)
    except Raced:  # a promotion came between: what is due is looked at again when the group receives again
        return False
    finally:
        for pack in made:
            pack.close()
        await give_up(ctx, handle)
    return True


async def _build(ctx: Context, volume: VolumeHandle, merge: merges.Merge, pacer: Pacer) -> SealReceipt:
    """The new pack of one volume, whole and durable. Who is cancelled leaves the file to the piece that runs."""
    work = await ctx.pool.call(
        Merge,
        ctx.disk,
        _packs(volume, merge),
        ctx.paths.pack(volume.record.id, merge.output.id),
        volume_id=volume.record.id,
        layer_id=merge.output.id,
        builds_on=merge.output.builds_on or bytes(16),
        image_bytes=merge.output.image_bytes,
        hash_seed=volume.record.hash_seed,
    )
    step: Step[bool] | None = None
    try:
        while step is None or not step.result:
            await pacer.pace(PIECE_BYTES)
            step = Step(partial(work.step, PIECE_BYTES))
            await ctx.pool.over(step)
    finally:
        if step is not None and step.started:
            step.then(work.close)
        else:
            work.close()
    return require(work.receipt)


def _packs(volume: VolumeHandle, merge: merges.Merge) -> list[SealedPack]:
    """The open inputs, which stand in a row in the volume's chain."""
    wanted = [layer.id for layer in merge.inputs]
    packs = [pack for pack in volume.chain if isinstance(pack, SealedPack) and pack.layer_id in wanted]
    assert [pack.layer_id for pack in packs] == wanted, "records and chain say the same"
    return packs


def _replace(volume: VolumeHandle, merge: merges.Merge, pack: SealedPack) -> None:
    old = _packs(volume, merge)
    at = volume.chain.index(old[0])
    volume.retired.extend(old)
    volume.chain = (*volume.chain[:at], pack, *volume.chain[at + len(old) :])


async def give_up(ctx: Context, handle: GroupHandle) -> None:
    """What was being built is dead, and files of dead layers go. Again: nothing; boot runs it."""
    await ctx.database.transact(lambda conn: merges.cancel(conn, handle.id))
    await staging.remove_dead(ctx, handle.volumes)
