"""Merge: neighbouring packs become one, newest wins block by block, a bounded piece at a time.

For points that went from the middle of a chain: only the oldest pack can go into the base. A region is read whole
from all packs that have it, every block hashed on the way, and written as the frames of a new pack, which is durable
with its name before anybody may count on it (`docs/formats.md`, "Merge"). Zeros are blocks like any other: what lies
below must stay hidden. This module must never touch the packs that it reads.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blockstore.disk import Disk, aligned_buffer
from blockstore.errors import BlockMismatch, LayerDamaged
from blockstore.frame import BUFFER_BYTES, DATA, EXTENT, MAX_FRAME_BLOCKS, Extents, Hashes, build_head, spread
from blockstore.layer import SealReceipt
from blockstore.pack import OpenPack
from blockstore.pack_read import SealedPack
from blockstore.units import BLOCK, BLOCKS_PER_REGION, align_up

MOST_EXTENTS = 1024
"""Extents of a frame at most, so that its head stays within its limit beside as many hashes."""
NOTHING = -1


@dataclass(frozen=True, slots=True)
class MergedRegion:
    """What the new pack has of a region: its extents; of each data block the hash, the pack that has it, the slot."""

    extents: Extents
    hashes: Hashes
    packs: NDArray[np.int64]
    slots: NDArray[np.int64]


class Merge:
    """One run, into one new file. All calls are blocking, one at a time."""

    def __init__(
        self,
        disk: Disk,
        packs: Sequence[SealedPack],
        path: str,
        *,
        volume_id: bytes,
        layer_id: bytes,
        builds_on: bytes,
        image_bytes: int,
        hash_seed: int,
    ) -> None:
        """`packs` oldest first; `builds_on`: the point below the oldest. Raises LayerSpace, OSError."""
        self.receipt: SealReceipt | None = None
        self._packs = tuple(packs)
        self._regions = sorted({region for pack in packs for region in pack.regions()})
        self._next = 0
        self._sync_id = layer_id
        self._buffer = aligned_buffer(align_up(BUFFER_BYTES))
        self._pack = OpenPack.create(
            disk,
            path,
            volume_id=volume_id,
            layer_id=layer_id,
            builds_on=builds_on,
            image_bytes=image_bytes,
            hash_seed=hash_seed,
        )
        self._pack.begin_session(self._sync_id)

    def step(self, most_bytes: int) -> bool:
        """Copy about `most_bytes`; True when the pack is whole and durable: `receipt` says what the records name.

        Raises LayerDamaged (a pack that is read), LayerSpace, LayerFailed, OSError: the new file is of no use then.
        """
        done = 0
        while done < most_bytes and self._next < len(self._regions):
            done += self._write(self._batch())
        if self._next < len(self._regions):
            return False
        self.receipt = self._pack.seal().run()
        return True

    def close(self) -> None:
        """Close the new file, whole or not. Again: nothing."""
        self._pack.close()

    def _batch(self) -> list[MergedRegion]:
        """The next regions that fit one frame, at least one."""
        batch: list[MergedRegion] = []
        blocks = extents = 0
        while self._next < len(self._regions):
            merged = merged_region(self._packs, self._regions[self._next])
            blocks += len(merged.hashes)
            extents += len(merged.extents)
            if batch and (blocks > MAX_FRAME_BLOCKS or extents > MOST_EXTENTS):
                break
            batch.append(merged)
            self._next += 1
        return batch

    def _write(self, batch: list[MergedRegion]) -> int:
        """One frame; returns its bytes."""
        hashes = np.concatenate([merged.hashes for merged in batch])
        extents = np.concatenate([merged.extents for merged in batch])
        head = build_head(extents, hashes, len(hashes) * BLOCK)
        at = align_up(len(head))
        self._read(batch, self._buffer[at : at + len(hashes) * BLOCK])
        self._put(bytes(head))
        return at + len(hashes) * BLOCK

    def _read(self, batch: list[MergedRegion], blocks: memoryview) -> None:
        """The data blocks of the batch, in order; neighbours in one pack are one read."""
        packs = np.concatenate([merged.packs for merged in batch])
        slots = np.concatenate([merged.slots for merged in batch])
        breaks = np.flatnonzero((np.diff(packs) != 0) | (np.diff(slots) != 1)) + 1
        for low, high in zip([0, *breaks.tolist()], [*breaks.tolist(), len(slots)], strict=True):
            if high > low:
                pack, slot = self._packs[int(packs[low])], int(slots[low])
                view = blocks[low * BLOCK : high * BLOCK]
                if pack.file.read_into(view, slot * BLOCK) != len(view):
                    raise LayerDamaged(path=pack.file.path, reason="it is shorter than its directory says")

    def _put(self, head: bytes) -> None:
        """Append the frame whose payload is in the buffer. Its blocks are compared with their hashes on the way."""
        for attempt in range(2):
            self._buffer[: len(head)] = head
            slot = self._pack.admit(self._buffer, len(head))
            try:
                self._pack.store(slot)
            except BlockMismatch as error:
                paths = ", ".join(pack.file.path for pack in self._packs)
                reason = f"{error.blocks} blocks from {error.first} on do not match their hashes"
                raise LayerDamaged(path=paths, reason=reason) from error
            except OSError as error:
                if error.errno != errno.EINVAL or attempt:
                    raise
                self._pack.begin_session(self._sync_id)  # direct I/O was refused: from here on buffered
                continue
            self._pack.landed(slot)
            return


def merged_region(packs: Sequence[SealedPack], region: int) -> MergedRegion:
    """What `packs`, oldest first, have of a region together. Raises LayerDamaged, OSError."""
    kinds = np.full(BLOCKS_PER_REGION, NOTHING, np.int64)
    hashes = np.zeros(BLOCKS_PER_REGION, np.uint64)
    sources = np.zeros(BLOCKS_PER_REGION, np.int64)
    slots = np.zeros(BLOCKS_PER_REGION, np.int64)
    base = region * BLOCKS_PER_REGION
    for index, pack in enumerate(packs):
        if not pack.has_region(region):
            continue
        part = pack.part(region)
        for kind in np.unique(part.extents["kind"]).tolist():
            blocks = spread(part.extents, kind) - base
            kinds[blocks] = kind
            if kind == DATA:
                hashes[blocks] = part.hashes
                sources[blocks] = index
                slots[blocks] = np.arange(part.slot, part.slot + len(blocks))
    is_data = kinds == DATA
    return MergedRegion(_extents(kinds, base), hashes[is_data], sources[is_data], slots[is_data])


def _extents(kinds: NDArray[np.int64], base: int) -> Extents:
    """Runs of blocks of one kind."""
    starts = np.flatnonzero(np.diff(kinds, prepend=kinds[0] - 1))
    ends = np.append(starts[1:], len(kinds))
    here = kinds[starts] != NOTHING
    extents = np.zeros(int(here.sum()), EXTENT)
    extents["first"] = base + starts[here]
    extents["count"] = (ends - starts)[here]
    extents["kind"] = kinds[starts][here]
    return extents
