"""A frozen overlay: the writes of a promoted side after it gave its role away, read as one layer of an image.

Its data lie at native offsets, so that a slot is simply the number of the block. `FoldOverlay` copies it into the
base as `Fold` does with a pack; it has no stored hashes, so they are computed from what is copied. This module
must never write to the overlay: whoever freezes it has flushed it, and nobody holds a writer any more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from blockstore.blockset import RegionBits, runs_of
from blockstore.frame import hash_blocks
from blockstore.hashes import NO_POINT, HashTable
from blockstore.layer import SLOT_ABSENT, Readers
from blockstore.overlay import Overlay
from blockstore.stores.base import BlockStore
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION_BITS_BYTES


class FrozenOverlay(Readers):
    """An overlay that nobody writes any more. See `Layer`."""

    def __init__(self, overlay: Overlay, image_bytes: int) -> None:
        super().__init__()
        self.overlay = overlay
        self.layer_id = overlay.layer_id
        self.image_bytes = image_bytes
        self.file = overlay.data

    def has_region(self, region: int) -> bool:
        """See Layer.has_region."""
        return region < len(self.overlay.bits.touched) and bool(self.overlay.bits.bits(region))

    def regions(self) -> Iterator[RegionBits]:
        """(region, blocks that it has), ascending."""
        return self.overlay.bits.regions()

    def slots(self, region: int) -> NDArray[np.uint64]:
        """See Layer.slots."""
        slots = np.full(BLOCKS_PER_REGION, SLOT_ABSENT, np.uint64)
        if self.has_region(region):
            raw = self.overlay.bits.bits(region).to_bytes(REGION_BITS_BYTES, "little")
            here = np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little"))
            slots[here] = here.astype(np.uint64) + np.uint64(region * BLOCKS_PER_REGION)
        return slots

    def close(self) -> None:
        """See Layer.close."""
        self.overlay.close()


class FoldOverlay:
    """One run. All calls are blocking, one at a time; what `Fold` says of crashes holds here too."""

    def __init__(self, layer: FrozenOverlay, store: BlockStore, hashes: HashTable, point: bytes) -> None:
        """`point`: 16 bytes, the point that the layer ends in; the base and its hashes stand for it afterwards."""
        self._layer = layer
        self._store = store
        self._hashes = hashes
        self._point = point
        self._regions = list(layer.regions())
        self._copied = 0
        self._found: list[tuple[int, NDArray[np.uint64]]] = []
        """(first block, hashes) of what was copied."""

    def step(self, most_bytes: int) -> bool:
        """Copy about `most_bytes`; True when base and hashes are durable. Raises StoreFlushFailed, OSError."""
        done = 0
        while done < most_bytes and self._copied < len(self._regions):
            region, bits = self._regions[self._copied]
            for start, count in runs_of(bits):
                self._copy(region * BLOCKS_PER_REGION + start, count)
                done += count * BLOCK
            self._copied += 1
        if self._copied < len(self._regions):
            return False
        self._store.flush()
        self._hashes.bind(NO_POINT)
        for first, hashes in self._found:
            self._hashes.store(first, hashes)
        self._hashes.bind(self._point)
        return True

    def _copy(self, first: int, count: int) -> None:
        blocks = memoryview(bytearray(count * BLOCK))
        self._layer.file.read_into(blocks, first * BLOCK)
        length = min(count * BLOCK, self._store.size_bytes - first * BLOCK)
        if np.frombuffer(blocks, np.uint64).any():
            self._store.write(blocks[:length], first * BLOCK)
        else:
            self._store.discard(first * BLOCK, length)
        self._found.append((first, hash_blocks(blocks, self._hashes.hash_seed).copy()))
