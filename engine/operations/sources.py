"""Where the blocks of a sync come from: a captured delta, or the first pass over a whole volume.

Both are the same shape to the sender. The first pass has no capture: it skips what is dirty again, for the
delta after it brings those blocks, and a read that tears is dirty by construction (the bit comes before
the write). This module must never decide what is sent beyond that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from blockstore.blockset import RegionBits, runs_of, split_by_region
from blockstore.capture import Capture
from blockstore.holes import blank_regions, read_data
from blockstore.units import BLOCK, BLOCKS_PER_REGION, Extent, blocks_in, run_bits
from blockstore.volume import Volume
from engine.model import PointId
from engine.pool import DiskPool
from engine.transfer.pipeline import joined
from engine.transfer.source import U64

T = TypeVar("T")


class DeltaSource:
    """The frozen blocks of one volume, compared with the hashes of the parent point where those are known."""

    knows_holes = False

    def __init__(self, pool: DiskPool, volume: Volume, capture: Capture, parent: PointId | None) -> None:
        self._pool = pool
        self._volume = volume
        self._capture = capture
        self._knows = parent is not None and volume.hashes.point == parent

    def regions(self) -> Iterator[RegionBits]:
        return self._capture.regions()

    async def read_runs(self, runs: Sequence[Extent], buffer: memoryview, examine: Callable[[], T]) -> T:
        step = self._capture.read_runs(runs, buffer, examine)
        await whole(self._pool.over(step))
        return step.result  # type: ignore[return-value]  # a step that is over without error has its result

    async def blank(self, regions: Sequence[RegionBits]) -> list[RegionBits]:
        """None that is known: a frozen image has holes of its own."""
        return []

    def known_hashes(self, runs: Sequence[Extent]) -> U64 | None:
        if not self._knows:
            return None
        known = np.concatenate([self._volume.hashes.lookup(run.first, run.count) for run in runs])
        at = 0
        for first, count in runs:
            # The receiver has other bytes there, whatever the common point had: these are sent.
            for region, bits in split_by_region(first, count):
                for start, length in runs_of(self._capture.theirs(region) & bits):
                    place = at + region * BLOCKS_PER_REGION + start - first
                    known[place : place + length] = 0
            at += count
        return known

    def equal(self, region: int, bits: int) -> None:
        self._capture.done(region, bits)

    def landed(self, region: int, bits: int) -> None:
        self._capture.done(region, bits)


class SeedSource:
    """Every block of one volume but those that are dirty again and the regions that the receiver has.

    `knows_holes`: what the store calls a hole is one (`blockstore.holes`). A hole is asked for when a read would be
    made, and what is true of the read is true of it: a write that it missed has set its bit, so the delta has it.
    """

    def __init__(self, pool: DiskPool, volume: Volume, present: frozenset[int], *, knows_holes: bool) -> None:
        self.knows_holes = knows_holes
        self._pool = pool
        self._volume = volume
        self._present = present

    def regions(self) -> Iterator[RegionBits]:
        blocks = blocks_in(self._volume.size_bytes)
        for region in range(-(-blocks // BLOCKS_PER_REGION)):
            if region not in self._present:
                count = min(BLOCKS_PER_REGION, blocks - region * BLOCKS_PER_REGION)
                bits = run_bits(0, count) & ~self._volume.dirty_bits(region)
                if bits:
                    yield region, bits

    async def read_runs(self, runs: Sequence[Extent], buffer: memoryview, examine: Callable[[], T]) -> T:
        return await whole(self._pool.call(partial(self._read, runs, buffer, examine)))

    def _read(self, runs: Sequence[Extent], buffer: memoryview, examine: Callable[[], T]) -> T:
        """In the pool."""
        at, store = 0, self._volume.store
        for first, count in runs:
            part = buffer[at : at + count * BLOCK]
            if self.knows_holes:
                read_data(store, part, first * BLOCK)
            else:
                store.read_into(part, first * BLOCK)
            at += count * BLOCK
        return examine()

    async def blank(self, regions: Sequence[RegionBits]) -> list[RegionBits]:
        if not self.knows_holes:
            return []
        return await whole(self._pool.call(blank_regions, self._volume.store, regions))

    def known_hashes(self, runs: Sequence[Extent]) -> U64 | None:
        return None

    def equal(self, region: int, bits: int) -> None:
        """Nothing is known of the receiver's blocks, so none is equal."""

    def landed(self, region: int, bits: int) -> None:
        """Nothing is preserved in this pass."""


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Await work of a thread on a buffer or a file; a cancelled caller gets away only when the thread is through."""
    task = asyncio.create_task(work)
    await joined((task,))
    return task.result()


class HashJournal:
    """Takes the heads of a first pass: their hashes go into the table, which is bound to no point yet."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def append(self, head: bytes | bytearray) -> None:
        """Blocking. Raises OSError."""
        self._volume.hashes.store_head(head)
