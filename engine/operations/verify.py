"""Verify: both sides at their newest common point, compared byte for byte by digests, while hosts and syncs go on.

The protected side asks. Its own image of the point is what hosts see now but for the blocks that are dirty: those are
looked at after the bytes were read, so whatever was written meanwhile is among them. A sync that comes between makes
another point common, and the range is compared anew. This module must never change a byte; a repair marks blocks and
leaves the rest to the next sync.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from blockstore.digests import DIGEST_BYTES, KEY_BYTES, digests
from blockstore.units import BLOCK, BLOCKS_PER_REGION, Extent, blocks_in
from engine import model
from engine.decide.roles import require_legal
from engine.errors import RefusedByState, WireDamaged
from engine.link.peer_link import PeerLink
from engine.model import PointId, Role
from engine.operations.context import Context, Progress
from engine.operations.conversation import converse
from engine.operations.handles import GroupHandle
from engine.operations.snapshot import image_at
from engine.records import groups, volumes
from engine.requests import Verify
from engine.wire import limits
from engine.wire.messages import AskHashes, Hashes

CHUNK = 256
"""Blocks of one digest: 1 MiB. Where two differ, every block has its own."""
CONTACT_WAIT_S = 30.0
TRIES = 100
"""Times that a range is compared anew because a sync came between, a moment later each time."""
AGAIN_S = 0.05


@dataclass
class Compared:
    """What came of it. `differing` are runs of blocks, by the volume's index in the group."""

    point: model.Point
    blocks: int = 0
    skipped: int = 0
    """Blocks that hosts have written since the point: nothing can be said of them."""
    differing: list[tuple[int, Extent]] = field(default_factory=list)

    @property
    def mismatched(self) -> int:
        """Blocks that differ."""
        return sum(run.count for _, run in self.differing)


@dataclass(frozen=True)
class _At:
    ctx: Context
    handle: GroupHandle
    key: bytes
    strong: bool


async def verify(ctx: Context, handle: GroupHandle, request: Verify, progress: Progress) -> Compared:
    """Compare everything once. Raises PeerUnreachable, PeerRefused, RefusedByState, VolumeFailed, OSError."""
    record = await _record(ctx, handle)
    require_legal(request, record)
    if record.common is None:
        reason = "its first copy is not complete: there is nothing to compare"
        raise RefusedByState(operation="verify", group=handle.name, reason=reason)
    at = _At(ctx, handle, ctx.clock.token(KEY_BYTES), request.strong)
    found = Compared(record.common)
    progress.begin("comparing both sides", sum(volume.record.size_bytes for volume in handle.volumes))
    for index, volume in enumerate(handle.volumes):
        blocks, before = blocks_in(volume.record.size_bytes), found.mismatched
        for first in range(0, blocks, limits.HASHED_BLOCKS):
            count = min(limits.HASHED_BLOCKS, blocks - first)
            await _range(at, index, first, count, found)
            progress.done_bytes += count * BLOCK
        if found.mismatched == before:
            await _note_equal(ctx, handle, index)
    return found


async def again(ctx: Context, handle: GroupHandle, runs: list[tuple[int, Extent]], *, strong: bool) -> int:
    """How many blocks of these runs still differ. Raises as `verify`."""
    at = _At(ctx, handle, ctx.clock.token(KEY_BYTES), strong)
    left = 0
    for index, run in runs:
        differing, _ = await _blocks(at, index, run.first, run.count)
        left += len(differing)
    return left


async def mark(ctx: Context, handle: GroupHandle, runs: list[tuple[int, Extent]]) -> None:
    """The next sync sends these blocks whatever it knows of them. Raises VolumeFailed, OSError, StoreFlushFailed."""
    for index, run in runs:
        volume = handle.volumes[index]
        opened = volume.require_open()
        async with volume.hashing:
            await ctx.pool.call(opened.hashes.forget, run.first, run.count)
            await ctx.pool.call(opened.hashes.flush)
        opened.mark_blocks(run.first, run.count)
        while (step := opened.save_marks()) is not None:
            await ctx.pool.over(step)


async def _range(at: _At, index: int, first: int, count: int, found: Compared) -> None:
    """Chunks, and the blocks of those that differ: twice, so that a chance of the moment is not called damage."""
    ours, theirs, _ = await _both(at, index, first, count, CHUNK)
    found.blocks += count
    for number in range(len(ours) // DIGEST_BYTES):
        part = slice(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES)
        if ours[part] == theirs[part]:
            continue
        start = first + number * CHUNK
        length = min(CHUNK, first + count - start)
        differing, skipped = await _blocks(at, index, start, length)
        if differing:
            differing = sorted({*differing}.intersection((await _blocks(at, index, start, length))[0]))
        found.skipped += skipped
        found.differing += [(index, run) for run in _runs(differing)]


async def _blocks(at: _At, index: int, first: int, count: int) -> tuple[list[int], int]:
    """Blocks that differ, and how many hosts have written since the point."""
    ours, theirs, dirty = await _both(at, index, first, count, 1)
    differing, skipped = [], 0
    for number in range(count):
        part = slice(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES)
        region, bit = divmod(first + number, BLOCKS_PER_REGION)
        if ours[part] == theirs[part]:
            continue
        if dirty[region] >> bit & 1:
            skipped += 1
        else:
            differing.append(first + number)
    return differing, skipped


async def _both(at: _At, index: int, first: int, count: int, chunk: int) -> tuple[bytes, bytes, dict[int, int]]:
    """Digests of the range at both ends, of one point, and the dirty blocks of its regions once all was read."""
    ctx, handle = at.ctx, at.handle
    regions = range(first // BLOCKS_PER_REGION, (first + count - 1) // BLOCKS_PER_REGION + 1)
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(AGAIN_S)
        common = model.require((await _record(ctx, handle)).common).id
        question = AskHashes(handle.id, common, index, first, count, chunk, at.key, at.strong)
        link = await ctx.links.wait(handle.peer, CONTACT_WAIT_S)
        reading = asyncio.create_task(_own(at, index, first, count, chunk))
        try:
            async with converse(handle, link) as talk:
                told = await talk.ask(question, Hashes)
        finally:
            await asyncio.gather(reading, return_exceptions=True)
        ours = reading.result()
        # First the bits, then the point: bits go only after another point was recorded as common.
        opened = handle.volumes[index].require_open()
        dirty = {region: opened.dirty_bits(region) for region in regions}
        after = model.require((await _record(ctx, handle)).common).id
        if told.point != common or after != common:
            continue  # a sync was sealed or adopted between
        if len(told.digests) != len(ours):
            raise WireDamaged(reason="digests do not fit the question")
        return ours, told.digests, dirty
    raise RefusedByState(operation="verify", group=handle.name, reason="syncs follow each other too closely")


async def _own(at: _At, index: int, first: int, count: int, chunk: int) -> bytes:
    opened = at.handle.volumes[index].require_open()
    read, size = opened.surface.read_blocking, opened.size_bytes
    return await at.ctx.pool.call(
        lambda: digests(read, first, count, chunk, size_bytes=size, key=at.key, strong=at.strong)
    )


async def answer(ctx: Context, handle: GroupHandle, link: PeerLink, message: AskHashes) -> None:
    """The recovery side: digests of its newest point, or which point it is if that is another. Under the lock.

    Raises RefusedByState, WireDamaged, LayerDamaged, OSError.
    """
    record = await _record(ctx, handle)
    if record.role is not Role.RECOVERY:
        raise RefusedByState(operation="verify", group=handle.name, reason="it is not the recovery side")
    common = record.common
    if common is None or record.own_image or common.id != message.point:
        known = common.id if common is not None and not record.own_image else bytes(16)
        await link.send(Hashes(handle.id, known, b""))
        return
    volume = handle.volumes[message.volume_index]
    size = volume.record.size_bytes
    if message.first + message.count > blocks_in(size) or -(-message.count // message.chunk) > limits.HASHES:
        raise WireDamaged(reason="the range ends behind the volume, or has too many digests")
    image = await image_at(ctx, volume, PointId(message.point))
    told = await ctx.pool.call(
        lambda: digests(
            image.read_blocking,
            message.first,
            message.count,
            message.chunk,
            size_bytes=size,
            key=message.key,
            strong=message.strong,
        )
    )
    await link.send(Hashes(handle.id, common.id, told))


async def _note_equal(ctx: Context, handle: GroupHandle, index: int) -> None:
    """Every block of the volume was seen to be the same."""
    volume, now = handle.volumes[index], ctx.clock.now()
    await ctx.database.transact(lambda conn: volumes.verified(conn, volume.record.id, now))
    volume.record = replace(volume.record, verified_at=now)


async def _record(ctx: Context, handle: GroupHandle) -> model.Group:
    return await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))


def _runs(blocks: list[int]) -> list[Extent]:
    runs: list[Extent] = []
    for block in blocks:
        if runs and runs[-1].first + runs[-1].count == block:
            runs[-1] = Extent(runs[-1].first, runs[-1].count + 1)
        else:
            runs.append(Extent(block, 1))
    return runs
