"""Where a store holds nothing, so that what was never written need not be read.

Asked anew at the moment that the answer is used, for a hole is as true as a read at the same moment and no longer. Only
where the file system is known to count a write as data from the moment that it returns, in the page cache or not:
elsewhere (ZFS before 2.2.2 called freshly written blocks holes) and on devices everything counts as data. This
module must never remember a hole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from blockstore.blockset import RegionBits
from blockstore.disk import TMPFS_MAGIC, Disk
from blockstore.stores.base import BlockStore
from blockstore.units import REGION

_EXT4, _XFS, _BTRFS = 0xEF53, 0x58465342, 0x9123683E
_TRUSTED = (_EXT4, _XFS, _BTRFS, TMPFS_MAGIC)
_NEAR_BYTES = 64 * 1024
"""Shorter holes between data are read with it: a read of its own costs more."""


def knows_holes(disk: Disk, store: BlockStore) -> bool:
    """True if the holes that `store` tells of can be believed. Blocking. Raises OSError."""
    if store.kind != "file":
        return False
    return disk.file_system_type(os.path.dirname(os.path.realpath(store.path))) in _TRUSTED


def blank_regions(store: BlockStore, regions: Sequence[RegionBits]) -> list[RegionBits]:
    """Those of ascending `regions` in which the store has no data at this moment. Blocking. Raises OSError.

    At most two seeks a region, however the data lies in it.
    """
    if not regions:
        return []
    busy: set[int] = set()
    at, end = regions[0][0] * REGION, (regions[-1][0] + 1) * REGION
    while (found := next(store.data_ranges(at, end - at), None)) is not None:
        offset, length, is_data = found
        at = offset + length
        if is_data:
            last = (at - 1) // REGION
            busy.update(range(offset // REGION, last + 1))
            at = (last + 1) * REGION
    if store.file.size() < store.size_bytes:
        return []  # what lies behind the end of a file that became shorter is no hole: the read says so
    return [(region, bits) for region, bits in regions if region not in busy]


def read_data(store: BlockStore, buffer: memoryview, offset: int) -> None:
    """As `store.read_into`, but long holes are not read. Blocking. Raises OSError."""
    done = offset
    for begin, end in _islands(store, offset, len(buffer)):
        buffer[done - offset : begin - offset] = bytes(begin - done)
        store.read_into(buffer[begin - offset : end - offset], begin)
        done = end
    buffer[done - offset :] = bytes(len(buffer) - (done - offset))
    if store.file.size() < store.size_bytes:
        store.read_into(buffer, offset)  # it became shorter, which is for the read to say


def _islands(store: BlockStore, offset: int, length: int) -> list[tuple[int, int]]:
    """(begin, end) of what has data, ascending, with the short holes between."""
    found: list[tuple[int, int]] = []
    for begin, size, is_data in store.data_ranges(offset, length):
        if is_data and found and begin - found[-1][1] < _NEAR_BYTES:
            found[-1] = (found[-1][0], begin + size)
        elif is_data:
            found.append((begin, begin + size))
    return found
