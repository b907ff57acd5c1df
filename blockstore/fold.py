"""Fold: copy the oldest pack of a volume into its base, a bounded piece at a time, and its hashes behind it.

Until the records say that it is folded, the layer still hides every block that is being changed; so a crash or an
error anywhere in here costs another run from the start and nothing else (`docs/formats.md`, "Fold"). Every block
is hashed before it is written: rot in a pack must not spread. This module must never touch the pack.
"""

from __future__ import annotations

from blockstore.disk import Disk
from blockstore.errors import LayerDamaged
from blockstore.frame import DATA, hash_blocks
from blockstore.hashes import NO_POINT, HashTable
from blockstore.pack_read import RegionPart, SealedPack
from blockstore.stores.base import BlockStore
from blockstore.units import BLOCK, align_up


class Fold:
    """One run. All calls are blocking, one at a time."""

    def __init__(self, disk: Disk, pack: SealedPack, store: BlockStore, hashes: HashTable, point: bytes) -> None:
        """`point`: 16 bytes, the point that `pack` ends in; the base and its hashes stand for it afterwards."""
        self._disk = disk
        self._pack = pack
        self._store = store
        self._hashes = hashes
        self._point = point
        self._regions = list(pack.regions())
        self._copied = 0
        self._seed = hashes.hash_seed

    def step(self, most_bytes: int) -> bool:
        """Copy about `most_bytes`; True when base and hashes are durable.

        Raises LayerDamaged, StoreFlushFailed, OSError; begin anew with another Fold then.
        """
        done = 0
        while done < most_bytes and self._copied < len(self._regions):
            done += self._copy(self._pack.part(self._regions[self._copied]))
            self._copied += 1
        if self._copied < len(self._regions):
            return False
        self._store.flush()
        self._hashes.bind(NO_POINT)
        for region in self._regions:
            part = self._pack.part(region)
            self._hashes.apply(part.extents, part.hashes)
        self._hashes.bind(self._point)
        return True

    def _copy(self, part: RegionPart) -> int:
        """One region into the base; returns the bytes that were read."""
        blocks = memoryview(bytearray(len(part.hashes) * BLOCK))
        if len(blocks):
            self._pack.file.read_into(blocks, part.slot * BLOCK)
            if (hash_blocks(blocks, self._seed) != part.hashes).any():
                reason = f"blocks of region {part.region} do not match their hashes"
                raise LayerDamaged(path=self._pack.file.path, reason=reason)
        at = 0
        for first, count, kind in part.extents.tolist():
            offset = first * BLOCK
            length = min(count * BLOCK, align_up(self._store.size_bytes) - offset)
            if kind == DATA:
                self._store.write(blocks[at : at + count * BLOCK], offset)
                at += count * BLOCK
            elif length > 0:
                self._store.discard(offset, length)
        return len(blocks)
