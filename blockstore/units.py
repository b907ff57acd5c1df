"""Units and the only rounding: blocks of 4 KiB, regions of 4 MiB, extents of blocks.

Bytes become blocks here and nowhere else. This module must never do I/O and never import anything of
this project.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 4096
"""Bytes in a block: the unit of dirty tracking, hashing and shipping."""

BLOCKS_PER_REGION = 1024
REGION = BLOCK * BLOCKS_PER_REGION
"""Bytes in a region (4 MiB): the unit of the write-intent log and of receiving."""

REGION_BITS_BYTES = BLOCKS_PER_REGION // 8
"""Bytes that hold one bit per block of a region (128)."""

WHOLE_REGION = (1 << BLOCKS_PER_REGION) - 1
"""The bits of a region with every block set, as an integer; block b of the region is bit b."""


class Extent(NamedTuple):
    """A run of blocks: `first` is a block number, `count` a number of blocks."""

    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


class StoreIdentity(NamedTuple):
    """What a store looked like at a clean stop: another look means that it was written behind our back."""

    size_bytes: int
    inode: int
    mtime_ns: int
    ctime_ns: int


def blocks_in(size_bytes: int) -> int:
    """The number of blocks that hold `size_bytes`, the short last one included."""
    return -(-size_bytes // BLOCK)


def regions_in(size_bytes: int) -> int:
    """The number of regions that hold `size_bytes`, the short last one included."""
    return -(-size_bytes // REGION)


def cover(offset: int, length: int) -> Extent:
    """The smallest run of blocks that holds the bytes `offset .. offset + length`."""
    first = offset // BLOCK
    return Extent(first, (offset + length + BLOCK - 1) // BLOCK - first if length else 0)


def within(offset: int, length: int) -> Extent:
    """The largest run of whole blocks inside the bytes `offset .. offset + length`; may be empty."""
    first = -(-offset // BLOCK)
    return Extent(first, max(0, (offset + length) // BLOCK - first))


def run_bits(first: int, count: int) -> int:
    """`count` one-bits starting at bit `first`, as an integer."""
    return ((1 << count) - 1) << first


def align_up(value: int, unit: int = BLOCK) -> int:
    """The smallest multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit
