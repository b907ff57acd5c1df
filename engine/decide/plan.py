"""What to ship, worked out from changed regions without ever holding the plan: its totals, and its batches.

Pure. A plan is an ascending stream of (region, bits). Its digest lets the receiver tell whether what it
staged belongs to the same plan: xxh3-128, seed 0, over u32 LE region and 128 bytes of bits (bit b of the
region is bit b & 7 of byte b >> 3), region after region. This module must never do I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import xxhash

from blockstore.blockset import RegionBits, runs_of
from blockstore.units import BLOCKS_PER_REGION, REGION_BITS_BYTES, WHOLE_REGION, Extent

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class PlanTotals:
    """`blocks` to be looked at, and the digest (16 bytes) of which they are."""

    blocks: int
    digest: bytes


class PlanDigest:
    """Takes in a plan piece by piece, so that a loop can do other work between two pieces of a large one."""

    def __init__(self) -> None:
        self._state = xxhash.xxh3_128()
        self._last = -1
        self.blocks = 0

    def add(self, region: int, bits: int) -> None:
        """The next region of the plan; regions ascend. About 0.5 us."""
        assert region > self._last, "a plan ascends"
        self._last = region
        self.blocks += bits.bit_count()
        self._state.update(region.to_bytes(4, "little") + bits.to_bytes(REGION_BITS_BYTES, "little"))

    def totals(self) -> PlanTotals:
        """Of all that was added so far."""
        return PlanTotals(self.blocks, self._state.digest())


def plan_volume(regions: Iterable[RegionBits]) -> PlanTotals:
    """Totals of a whole plan at once."""
    digest = PlanDigest()
    for region, bits in regions:
        digest.add(region, bits)
    return digest.totals()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one buffer is filled with: whole regions, `blocks` in all, as maximal `runs` of block numbers."""

    regions: tuple[RegionBits, ...]
    runs: tuple[Extent, ...]
    blocks: int


def batches(regions: Iterable[RegionBits], limit: int) -> Iterator[Batch]:
    """Cut ascending `regions` into batches of at most `limit` blocks, lazily; no region is in two of them.

    `limit` is at least the blocks of a region (1,024), so that every region fits. A step back in the stream
    (regions that are sent again) begins a new batch.
    """
    assert limit >= BLOCKS_PER_REGION
    taken: list[RegionBits] = []
    blocks = 0
    for region, bits in regions:
        count = bits.bit_count()
        if taken and (blocks + count > limit or region <= taken[-1][0]):
            yield _batch(taken, blocks)
            taken, blocks = [], 0
        taken.append((region, bits))
        blocks += count
    if taken:
        yield _batch(taken, blocks)


def _batch(regions: list[RegionBits], blocks: int) -> Batch:
    runs: list[Extent] = []
    for region, bits in regions:
        base = region * BLOCKS_PER_REGION
        for first, count in ((0, BLOCKS_PER_REGION),) if bits == WHOLE_REGION else runs_of(bits):
            if runs and runs[-1].first + runs[-1].count == base + first:
                runs[-1] = Extent(runs[-1].first, runs[-1].count + count)
            else:
                runs.append(Extent(base + first, count))
    return Batch(tuple(regions), tuple(runs), blocks)
