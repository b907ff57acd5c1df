"""Image: what a reader sees of a base and the sealed layers above it, newest wins, readable while others fold.

Per region that a layer has, a merged map is made on first touch from the heads of the layers (`docs/formats.md`,
"Reading"): an integer per block, layer << 40 | slot, 0 for the base, all ones for zeros. Neighbours in one file
are one read. The layers are taken once, at construction; a fold makes the same bytes readable from the base,
so an image that was made before stays right. This module must never write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from blockstore.layer import MAX_SLOT, SLOT_ABSENT, SLOT_ZERO, Allocation, Layer
from blockstore.steps import Step, Wait
from blockstore.stores.base import BlockStore
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION, cover

MOST_MAPS = 2048
"""Merged maps that an image keeps: 16 MiB, 8 GiB of warm regions."""
INLINE_BYTES = 128 << 10
"""Reads up to this size are tried from the page cache on the loop."""

Piece = tuple[int, int, int, int]
"""(source, offset in it, start in the buffer, length): source -1 zeros, 0 the base, n layer n - 1."""


class Image:
    """Base and layers, oldest first. `read_into` and `allocated` on the loop, the `_blocking` ones in the pool."""

    def __init__(self, base: BlockStore, layers: Sequence[Layer], size_bytes: int, hash_seed: int) -> None:
        self.size_bytes = size_bytes
        self.hash_seed = hash_seed
        self.layers = tuple(layers)
        self._base = base
        self._maps: dict[int, NDArray[np.uint64]] = {}

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        """As BlockIO.read_into. Raises LayerDamaged, OSError by the step."""
        if len(buffer) <= INLINE_BYTES and self.read_cached(offset, buffer):
            return None
        return Step(lambda: self.read_blocking(offset, buffer), final=True)

    def read_cached(self, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` if that needs no disk."""
        if not self._is_mapped(offset, len(buffer)):
            return False
        return all(self._read_cached(piece, buffer) for piece in self._pieces(offset, len(buffer)))

    def read_blocking(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; blocking. Past the end of the image are zeros. Raises LayerDamaged, OSError."""
        for source, at, start, length in self._pieces(offset, len(buffer)):
            view = buffer[start : start + length]
            if source > 0:
                got = self.layers[source - 1].file.read_into(view, at)
                assert got == length, "the records say how long a sealed layer is"
            elif source == 0:
                self._base.read_into(view, at)
            else:
                view[:] = bytes(length)

    def allocated(self, offset: int, length: int) -> Step[Allocation]:
        """As BlockIO.allocated."""
        return Step(lambda: self.allocated_blocking(offset, length), final=True)

    def allocated_blocking(self, offset: int, length: int) -> Allocation:
        """(offset, length, has data) over the range; blocking."""
        found: Allocation = []
        for source, at, start, count in self._pieces(offset, length):
            if source != 0:
                _extend(found, offset + start, count, source > 0)
                continue
            for part, size, is_data in self._base.data_ranges(at, count):
                _extend(found, part, size, is_data)
            end = found[-1][0] + found[-1][1] if found else offset
            _extend(found, end, offset + start + count - end, False)  # past the end of a shorter base
        return found

    def _is_mapped(self, offset: int, length: int) -> bool:
        """True if reading needs no head of a layer."""
        regions = range(offset // REGION, (offset + length - 1) // REGION + 1)
        return all(region in self._maps or not self._has_layer(region) for region in regions)

    def _has_layer(self, region: int) -> bool:
        return any(layer.has_region(region) for layer in self.layers)

    def _map(self, region: int) -> NDArray[np.uint64] | None:
        """The merged map of a region; None: all of it is in the base. Blocking when it is made."""
        found = self._maps.get(region)
        if found is not None or not self._has_layer(region):
            return found
        merged = np.zeros(BLOCKS_PER_REGION, np.uint64)
        for index, layer in enumerate(self.layers):
            if layer.has_region(region):
                slots = layer.slots(region)
                has = slots != SLOT_ABSENT
                tagged = np.where(slots == SLOT_ZERO, slots, slots | np.uint64((index + 1) * MAX_SLOT))
                merged[has] = tagged[has]
        if len(self._maps) >= MOST_MAPS:
            self._maps = {}  # one assignment: other threads go on with the old ones
        self._maps[region] = merged
        return merged

    def _pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """The range as reads of one source each, in order."""
        end, at = offset + length, offset
        while at < end:
            region = at // REGION
            stop = min(end, (region + 1) * REGION)
            merged = self._map(region)
            if merged is None:
                yield 0, at, at - offset, stop - at
            else:
                yield from _split(merged, region, at, stop, offset)
            at = stop

    def _read_cached(self, piece: Piece, buffer: memoryview) -> bool:
        source, at, start, length = piece
        view = buffer[start : start + length]
        if source > 0:
            return self.layers[source - 1].file.read_cached(view, at)
        if source == 0:
            return self._base.read_cached(view, at)
        view[:] = bytes(length)
        return True


def _split(merged: NDArray[np.uint64], region: int, at: int, stop: int, origin: int) -> Iterator[Piece]:
    """The bytes at .. stop of one region, cut where the source changes or slots stop being neighbours."""
    first, count = cover(at, stop - at)
    low = first - region * BLOCKS_PER_REGION
    tags = merged[low : low + count]
    step = np.diff(tags)
    is_slot = (tags[:-1] != 0) & (tags[:-1] != SLOT_ZERO)  # all ones and one more is the base's 0: no neighbours
    joins = np.where(is_slot, step == 1, step == 0)
    starts = [0, *(np.flatnonzero(~joins) + 1).tolist(), count]
    for begin, over in pairwise(starts):
        tag = int(tags[begin])
        from_byte = max(at, (first + begin) * BLOCK)
        to_byte = min(stop, (first + over) * BLOCK)
        inside = from_byte - (first + begin) * BLOCK
        if tag == SLOT_ZERO:
            yield -1, 0, from_byte - origin, to_byte - from_byte
        elif tag == 0:
            yield 0, from_byte, from_byte - origin, to_byte - from_byte
        else:
            source, slot = divmod(tag, MAX_SLOT)
            yield source, slot * BLOCK + inside, from_byte - origin, to_byte - from_byte


def _extend(found: list[tuple[int, int, bool]], offset: int, length: int, is_data: bool) -> None:
    """Append a range, joined to the one before where both say the same."""
    if length <= 0:
        return
    if found and found[-1][2] == is_data and found[-1][0] + found[-1][1] == offset:
        found[-1] = (found[-1][0], found[-1][1] + length, is_data)
    else:
        found.append((offset, length, is_data))
