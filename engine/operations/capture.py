"""The capture of a whole group, and the three ways in which it ends: adopted, equal, or abandoned.

Order (`docs/formats.md`, "Order"): the pending row before the switch; the flush of every volume before
SEAL and before a bit is dropped; the new point known before the frozen bits go. The new hashes of a point
wait in a redo pack named by that point until they are applied; until then a look-up answers *unknown*.
This module must never drop a bit before its point is known.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import datetime

from blockstore.blockset import BlockSet
from blockstore.capture import Capture
from blockstore.errors import LayerDamaged
from blockstore.layer import SealReceipt
from blockstore.redo import RedoPack
from blockstore.writer import freeze
from engine import model
from engine.model import PointId, SyncId, SyncState
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.records import groups

NO_POINT = bytes(16)


@dataclass(slots=True)
class GroupCapture:
    """One instant of all volumes of a group, in the group's order, and the hashes that it will leave behind."""

    sync: SyncId
    point: PointId
    sequence: int
    captured_at: datetime
    parts: list[Capture]
    redos: list[RedoPack]
    receipts: list[SealReceipt] = field(default_factory=list)
    frames: int = 0
    peer_term: int = 0
    """The peer's term that it was taken against: what the peer changed since is in no plan of it."""
    is_doubtful: bool = False
    """True once SEAL may have been sent: only the peer knows whether the point exists."""

    @property
    def pending(self) -> model.Pending:
        """The record of it."""
        return model.Pending(self.sync, self.point, self.sequence, self.captured_at, SyncState.SEALING)

    @property
    def blocks(self) -> int:
        """Blocks frozen at the switch."""
        return sum(part.blocks for part in self.parts)


async def take_capture(
    ctx: Context,
    handle: GroupHandle,
    record: model.Group,
    theirs: list[BlockSet] | None = None,
    *,
    peer_term: int = 0,
) -> GroupCapture:
    """Freeze every volume of the group at one instant. Raises VolumeFailed, OSError; then nothing is frozen.

    `theirs`: what the receiver changed since the common point, in the group's order of volumes; `peer_term`: its term.
    """
    volumes = [volume.require_open() for volume in handle.volumes]
    sync, point = SyncId(ctx.clock.token(16)), PointId(ctx.clock.token(16))
    parent = record.common.id if record.common else NO_POINT
    sequence = record.common.sequence + 1 if record.common else 1
    redos: list[RedoPack] = []
    has_row = False
    try:
        for index, volume in enumerate(handle.volumes):
            changed = theirs[index].regions() if theirs is not None else ()
            await ctx.pool.call(volume.require_open().prepare_capture, sync, changed)
            redos.append(await ctx.pool.call(_make_redo, ctx, volume, point, parent))
        pending = model.Pending(sync, point, sequence, ctx.clock.now(), SyncState.RUNNING)
        await ctx.database.transact(lambda conn: groups.begin_capture(conn, handle.id, pending))
        has_row = True
        captured_at = ctx.clock.now()
        parts = freeze(volumes)
    except BaseException:
        if has_row:  # else what is pending, if anything, is another capture's, and not ours to give up
            await ctx.database.transact(lambda conn: groups.abandon(conn, handle.id, sync))
        await _drop_redos(ctx, redos)
        raise
    captured = GroupCapture(sync, point, sequence, captured_at, parts, redos, peer_term=peer_term)
    handle.capture = captured
    return captured


def _make_redo(ctx: Context, volume: VolumeHandle, point: PointId, parent: bytes) -> RedoPack:
    opened = volume.require_open()
    return RedoPack.create(
        ctx.disk,
        ctx.paths.redo(volume.record.id, point),
        volume_id=volume.record.id,
        sync_id=point,
        builds_on=parent,
        image_bytes=opened.size_bytes,
        hash_seed=opened.hash_seed,
    )


async def flush_capture(ctx: Context, captured: GroupCapture) -> None:
    """Every volume on its disk, once its capture is quiesced. Raises StoreFlushFailed: nothing may be sealed."""
    for part in captured.parts:
        await ctx.pool.over(part.quiesced)
        await ctx.pool.over(part.flush())


async def seal_redos(ctx: Context, captured: GroupCapture) -> list[SealReceipt]:
    """Make the new hashes durable; the receipts say what the peer's layers must be. May be repeated."""
    if not captured.receipts:
        captured.receipts = [await ctx.pool.call(redo.seal) for redo in captured.redos]
    return captured.receipts


async def announce_seal(ctx: Context, handle: GroupHandle, captured: GroupCapture) -> None:
    """Record, before SEAL is sent, that from now on only the peer knows the outcome."""
    captured.is_doubtful = True
    await ctx.database.transact(lambda conn: groups.sealing(conn, handle.id, captured.sync))


async def adopt(
    ctx: Context,
    handle: GroupHandle,
    pending: model.Pending,
    sealed_at: datetime | None = None,
    sent_bytes: int = 0,
) -> model.Point:
    """The peer holds the pending point: it is the common one now, and what was frozen for it is clean."""
    captured = handle.capture
    point = model.Point(
        id=pending.point,
        group=handle.id,
        sequence=pending.sequence,
        captured_at=pending.captured_at,
        sealed_at=sealed_at or ctx.clock.now(),
        generation=None,
        digest=b"",
        bytes=sent_bytes,
        pins=0,
    )
    await ctx.database.transact(lambda conn: groups.adopt(conn, handle.id, point))
    handle.capture = None
    for index, volume in enumerate(handle.volumes):
        if captured is not None:
            await ctx.pool.over(captured.parts[index].settle())
        elif volume.open is not None:
            volume.open.settle_pending(True)
    if captured is not None:
        for redo in captured.redos:
            await ctx.pool.call(redo.close)
    handle.unsettled = point.id
    return point


async def apply_hashes(ctx: Context, handle: GroupHandle) -> None:
    """Bring the hash tables to `common` from its redo packs; where one is missing, the table forgets instead.

    Repeating it is harmless: it is run again after a crash, and before any sync that would look hashes up.
    """
    common = model.require(handle.unsettled)
    for volume in handle.volumes:
        if volume.open is not None:
            async with volume.hashing:
                await ctx.pool.call(apply_volume, ctx, volume, common)
    handle.unsettled = None


def apply_volume(ctx: Context, volume: VolumeHandle, common: PointId) -> None:
    """As `apply_hashes`, one volume. Blocking. Raises OSError."""
    opened, path = volume.require_open(), ctx.paths.redo(volume.record.id, common)
    if opened.hashes.point != common:
        if not _was_applied(ctx, volume, path, common):
            opened.hashes.forget_all()
        opened.hashes.bind(common)
    ctx.disk.unlink(path)
    ctx.disk.sync_dir(opened.folder)


def _was_applied(ctx: Context, volume: VolumeHandle, path: str, common: PointId) -> bool:
    """Apply the redo at `path`, if it is there, whole, and builds on what the table stands for."""
    opened = volume.require_open()
    try:
        redo = RedoPack.open(ctx.disk, path, volume_id=volume.record.id, sync_id=common, hash_seed=opened.hash_seed)
    except FileNotFoundError:
        return False  # it was applied and removed before, or there never was one: a promoted side has none
    except LayerDamaged as error:
        ctx.report("warning", error.code, f"Volume {volume.name}: {error.message} Its hashes are forgotten.")
        return False
    try:
        if redo.builds_on != opened.hashes.point:
            return False
        redo.apply(opened.hashes)
        return True
    except LayerDamaged as error:
        ctx.report("warning", error.code, f"Volume {volume.name}: {error.message} Its hashes are forgotten.")
        return False
    finally:
        redo.close()


async def close_equal(ctx: Context, handle: GroupHandle, captured: GroupCapture) -> None:
    """Every frozen block turned out equal to the common point: the capture ends without a new one."""
    await flush_capture(ctx, captured)
    await ctx.database.transact(lambda conn: groups.abandon(conn, handle.id))
    handle.capture = None
    for part in captured.parts:
        await ctx.pool.over(part.settle())
    await _drop_redos(ctx, captured.redos)


async def abandon_capture(ctx: Context, handle: GroupHandle) -> None:
    """The sync came to nothing: what was frozen is dirty again, at once.

    If SEAL may have been sent, its row and its redo stay until the peer says, at the next contact, whether the
    point exists: forgetting it would leave the peer with a newest point that this side has never heard of.
    """
    captured, handle.capture = handle.capture, None
    if captured is None:
        return
    for part in captured.parts:
        part.abandon()
    if captured.is_doubtful:
        for redo in captured.redos:
            await ctx.pool.call(redo.close)
        return
    await ctx.database.transact(lambda conn: groups.abandon(conn, handle.id))
    await _drop_redos(ctx, captured.redos)


async def forget_pending(ctx: Context, handle: GroupHandle) -> None:
    """The peer does not have the pending point and never will: its bits are dirty again."""
    if handle.capture is not None:
        handle.capture.is_doubtful = False  # the peer has spoken
        await abandon_capture(ctx, handle)
        return
    for volume in handle.volumes:
        if volume.open is not None:
            volume.open.settle_pending(False)
    await ctx.database.transact(lambda conn: groups.abandon(conn, handle.id))


def remove_leftovers(ctx: Context, volume: VolumeHandle, known: set[PointId]) -> None:
    """Remove what captures of a dead process left: their own files, and redos of points not `known`. Blocking."""
    folder, kept = volume.require_open().folder, {f"{point.hex()}.redo" for point in known}
    for name in ctx.disk.list(folder):
        if name.endswith(".capture") or (name.endswith(".redo") and name not in kept):
            ctx.disk.unlink(f"{folder}/{name}")


async def _drop_redos(ctx: Context, redos: list[RedoPack]) -> None:
    for redo in redos:
        with contextlib.suppress(OSError):  # a leftover is named by a point that never was: boot removes it
            await ctx.pool.call(redo.drop)
