"""What a buffer of blocks comes to: zero, equal, held by the receiver, or changed; and the frame that says so.

One call in the pool does all of it for a whole frame, in arrays: one call a block, or a hop a run, would
cost more than the hashing. It may be made again when some of the blocks had to be read anew, so it leaves
the buffer as it is. This module must never touch anything but what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blockstore.blockset import RegionBits
from blockstore.frame import (
    DATA,
    EXTENT,
    KEPT,
    MAX_FRAME_BLOCKS,
    MAX_HEAD_BYTES,
    ZERO,
    Extents,
    Hashes,
    build_head,
    hash_slices,
    make_extents,
    region_rows,
    zero_blocks,
    zero_hash,
)
from blockstore.units import BLOCK, BLOCKS_PER_REGION, Extent, blocks_in
from engine.decide.plan import Batch, batches
from engine.transfer.codecs import probe
from engine.transfer.pipeline import Buffer
from engine.transfer.source import U64

MOST_REGIONS = 1024
"""Regions of a frame that we make: the format allows more, but what is confirmed late is preserved for long."""

_FEW_RUNS = 32


@dataclass(slots=True)
class Head:
    """Extents and the hashes of their data blocks, on the way to becoming the head of a frame."""

    extents: Extents
    hashes: Hashes

    def fits(self, more: Head) -> bool:
        """True if one frame can hold both, `more` lying behind this one."""
        hashes, extents = len(self.hashes) + len(more.hashes), len(self.extents) + len(more.extents)
        last = self.extents[-1]
        return (
            hashes <= MAX_FRAME_BLOCKS
            and 128 + 16 * extents + 8 * hashes <= MAX_HEAD_BYTES
            and int(last["first"]) + int(last["count"]) <= int(more.extents[0]["first"])
        )

    def joined(self, more: Head) -> Head:
        """Both in one; `fits` said that they do."""
        extents, follow = self.extents, more.extents
        last, first = extents[-1], follow[0]
        if last["kind"] == first["kind"] and int(last["first"]) + int(last["count"]) == int(first["first"]):
            follow = follow.copy()
            follow[0]["first"] = last["first"]
            follow[0]["count"] += last["count"]
            extents = extents[:-1]
        return Head(np.concatenate((extents, follow)), np.concatenate((self.hashes, more.hashes)))

    def to_bytes(self) -> bytearray:
        """The head as it travels."""
        return build_head(self.extents, self.hashes, len(self.hashes) * BLOCK)


@dataclass(slots=True)
class Examined:
    """What a batch came to. `sent` and `noted` are None when every block is equal.

    `noted` is the head as if all that is not equal were sent: the redo log keeps it. `sent` is the head
    that travels; the same object, unless the receiver holds some of the regions. `payload` are the runs
    of blocks in the buffer that travel with it. `regions` is what the frame settles once it is durable.
    """

    sent: Head | None
    noted: Head | None
    payload: list[Extent]
    regions: list[RegionBits]
    equal: list[RegionBits]
    blocks: int
    zero_blocks: int
    kept_blocks: int
    shrinks_to: float

    @property
    def data_blocks(self) -> int:
        """Blocks that travel."""
        return 0 if self.sent is None else len(self.sent.hashes)


class Examiner:
    """The rules for one volume: its hash seed, the hashes of its parent point, and what the receiver holds.

    `reusable`: region -> digest (8 bytes) that the receiver has of an older sync. `probes`: also say how far the
    blocks would shrink. Used from two threads at once: nothing here changes.
    """

    def __init__(
        self,
        *,
        image_bytes: int,
        hash_seed: int,
        known_hashes: Callable[[Sequence[Extent]], U64 | None],
        reusable: Mapping[int, bytes],
        probes: bool,
    ) -> None:
        self._image_blocks = blocks_in(image_bytes)
        self._seed = hash_seed
        self._zero_hash = zero_hash(hash_seed)
        self._known_hashes = known_hashes
        self._reusable = reusable
        self._probes = probes

    def examine(self, batch: Batch, buffer: Buffer) -> Examined:
        """Blocking: what the blocks of `batch`, end to end in `buffer`, come to."""
        zeros = zero_blocks(buffer.view[: batch.blocks * BLOCK])
        hashes = self._hash(buffer, zeros)
        numbers = _numbers(batch)
        known = self._known_hashes(batch.runs)
        if known is None or not (known == hashes).any():
            chosen = np.arange(batch.blocks)
            equal: list[RegionBits] = []
            regions = list(batch.regions)
        else:
            same = known == hashes  # 0 is "unknown" and no block's hash
            chosen = np.flatnonzero(~same)
            equal = _by_region(numbers[same], batch)
            left = dict(equal)
            regions = [(r, rest) for r, bits in batch.regions if (rest := bits & ~left.get(r, 0))]
        if not len(chosen):
            return Examined(None, None, [], [], equal, batch.blocks, 0, 0, 1.0)
        return self._frame(batch, buffer, chosen, numbers[chosen], zeros[chosen], hashes[chosen], regions, equal)

    def blank(self, regions: Sequence[RegionBits]) -> Examined:
        """What regions of nothing but zeros come to, for a receiver that holds nothing of an older sync."""
        assert not self._reusable, "what the receiver holds is compared by digest"
        if not regions:
            return Examined(None, None, [], [], [], 0, 0, 0, 1.0)
        (batch,) = batches(regions, len(regions) * BLOCKS_PER_REGION)
        extents = make_extents([(first, count, ZERO) for first, count in batch.runs])
        head = Head(extents, np.zeros(0, np.uint64))
        return Examined(head, head, [], list(regions), [], batch.blocks, batch.blocks, 0, 1.0)

    def _hash(self, buffer: Buffer, zeros: NDArray[np.bool_]) -> Hashes:
        """The hash of every block; that of a zero block is known without looking."""
        count = len(zeros)
        if not zeros.any():
            return hash_slices(buffer.slices[:count], self._seed)
        hashes = np.full(count, self._zero_hash, np.uint64)
        busy = np.flatnonzero(~zeros)
        slices = buffer.slices
        if len(busy):
            hashes[busy] = hash_slices([slices[at] for at in busy.tolist()], self._seed)
        return hashes

    def _frame(
        self,
        batch: Batch,
        buffer: Buffer,
        chosen: NDArray[np.int64],
        numbers: NDArray[np.int64],
        zeros: NDArray[np.bool_],
        hashes: Hashes,
        regions: list[RegionBits],
        equal: list[RegionBits],
    ) -> Examined:
        noted = Head(_extents(numbers, zeros), hashes[~zeros])
        sent, travels = noted, ~zeros
        held = self._held(noted, regions)
        kept_blocks = 0
        if held:
            stays = np.isin(numbers // BLOCKS_PER_REGION, held)
            kept_blocks = int(stays.sum())
            travels = ~zeros & ~stays
            sent = Head(self._with_kept(_extents(numbers[~stays], zeros[~stays]), held), hashes[travels])
        payload = _runs(chosen[travels])
        return Examined(
            sent=sent,
            noted=noted,
            payload=payload,
            regions=regions,
            equal=equal,
            blocks=batch.blocks,
            zero_blocks=int((zeros & ~np.isin(numbers // BLOCKS_PER_REGION, held)).sum()) if held else int(zeros.sum()),
            kept_blocks=kept_blocks,
            shrinks_to=self._probe(buffer, payload),
        )

    def _held(self, noted: Head, regions: list[RegionBits]) -> list[int]:
        """The regions of which the receiver holds all that the plan has there, ascending."""
        if not self._reusable or not any(region in self._reusable for region, _ in regions):
            return []
        rows = region_rows(noted.extents, noted.hashes, self._seed)
        return [
            region
            for region, digest in zip(rows["region"].tolist(), rows["digest"].tolist(), strict=True)
            if self._reusable.get(region) == digest.to_bytes(8, "little")
        ]

    def _with_kept(self, extents: Extents, held: list[int]) -> Extents:
        rows = []
        for first, count in _runs(np.array(held)):
            begin = first * BLOCKS_PER_REGION
            rows.append((begin, min(count * BLOCKS_PER_REGION, self._image_blocks - begin), KEPT))
        merged = np.concatenate((extents, np.array(rows, EXTENT)))
        ordered: Extents = merged[np.argsort(merged["first"])]
        return ordered

    def _probe(self, buffer: Buffer, payload: list[Extent]) -> float:
        if not self._probes or not payload:
            return 1.0
        first, count = max(payload, key=lambda run: run.count)
        return probe(buffer.view[first * BLOCK : (first + count) * BLOCK])


def _numbers(batch: Batch) -> NDArray[np.int64]:
    """The block number at each position of the buffer."""
    if len(batch.runs) == 1:
        return np.arange(batch.runs[0].first, batch.runs[0].first + batch.blocks)
    runs = np.array(batch.runs, np.int64)
    first, count = runs[:, 0], runs[:, 1]
    shift = first - (np.cumsum(count) - count)
    return np.repeat(shift, count) + np.arange(batch.blocks)


def _extents(numbers: NDArray[np.int64], zeros: NDArray[np.bool_]) -> Extents:
    """The fewest extents over ascending block `numbers`, of zeros or data each."""
    if not len(numbers):
        return np.zeros(0, EXTENT)
    breaks = np.flatnonzero((np.diff(numbers) != 1) | (zeros[1:] != zeros[:-1])) + 1
    starts = np.concatenate(([0], breaks))
    extents = np.empty(len(starts), EXTENT)
    extents["first"] = numbers[starts]
    extents["count"] = np.diff(starts, append=len(numbers))
    extents["kind"] = np.where(zeros[starts], ZERO, DATA)
    return extents


def _runs(positions: NDArray[np.int64]) -> list[Extent]:
    """Maximal runs in ascending `positions`."""
    if not len(positions):
        return []
    starts = np.concatenate(([0], np.flatnonzero(np.diff(positions) != 1) + 1))
    counts = np.diff(starts, append=len(positions))
    return [Extent(first, count) for first, count in zip(positions[starts].tolist(), counts.tolist(), strict=True)]


def _by_region(numbers: NDArray[np.int64], batch: Batch) -> list[RegionBits]:
    """Ascending block `numbers` of the batch as bits per region."""
    names = np.array([region for region, _ in batch.regions])
    table = np.zeros((len(names), BLOCKS_PER_REGION), np.bool_)
    table[np.searchsorted(names, numbers // BLOCKS_PER_REGION), numbers % BLOCKS_PER_REGION] = True
    packed = np.packbits(table, axis=1, bitorder="little")
    rows = (int.from_bytes(row.tobytes(), "little") for row in packed)
    return [(region, bits) for region, bits in zip(names.tolist(), rows, strict=True) if bits]
