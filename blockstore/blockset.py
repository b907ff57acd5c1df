"""BlockSet: a set of blocks, held by region, so that its cost follows what is in it and not the volume.

Pure values: this module must never do I/O. A region's blocks are one integer of 1,024 bits (bit b is
block b of the region), which makes union, difference and counting single operations of the interpreter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from blockstore.units import BLOCKS_PER_REGION, WHOLE_REGION, Extent, run_bits

RegionBits = tuple[int, int]
"""A region's number and its bits; the bits are never zero."""


def runs_of(bits: int) -> Iterator[Extent]:
    """The runs of one-bits in `bits`, ascending, as extents that count from bit 0."""
    at = 0
    while bits:
        skip = (bits & -bits).bit_length() - 1
        bits >>= skip
        count = (~bits & (bits + 1)).bit_length() - 1
        at += skip
        yield Extent(at, count)
        bits >>= count
        at += count


class BlockSet:
    """An immutable set of block numbers."""

    __slots__ = ("_regions",)

    def __init__(self, regions: Mapping[int, int] | None = None) -> None:
        self._regions = {region: bits for region, bits in (regions or {}).items() if bits}

    @classmethod
    def of_extents(cls, *extents: tuple[int, int]) -> BlockSet:
        """The blocks of `extents`, each (first, count)."""
        regions: dict[int, int] = {}
        for first, count in extents:
            for region, bits in split_by_region(first, count):
                regions[region] = regions.get(region, 0) | bits
        return cls(regions)

    def bits(self, region: int) -> int:
        """The bits of one region, zero if it has none."""
        return self._regions.get(region, 0)

    def regions(self) -> Iterator[RegionBits]:
        """The regions that have blocks, ascending."""
        for region in sorted(self._regions):
            yield region, self._regions[region]

    def runs(self) -> Iterator[Extent]:
        """Maximal runs of blocks, ascending; a run never crosses a region's border."""
        for region, bits in self.regions():
            base = region * BLOCKS_PER_REGION
            for first, count in runs_of(bits):
                yield Extent(base + first, count)

    def __or__(self, other: BlockSet) -> BlockSet:
        regions = dict(self._regions)
        for region, bits in other._regions.items():
            regions[region] = regions.get(region, 0) | bits
        return BlockSet(regions)

    def __sub__(self, other: BlockSet) -> BlockSet:
        return BlockSet({region: bits & ~other.bits(region) for region, bits in self._regions.items()})

    def __and__(self, other: BlockSet) -> BlockSet:
        return BlockSet({region: bits & other.bits(region) for region, bits in self._regions.items()})

    def __contains__(self, block: int) -> bool:
        return bool(self.bits(block // BLOCKS_PER_REGION) >> (block % BLOCKS_PER_REGION) & 1)

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self._regions.values())

    def __bool__(self) -> bool:
        return bool(self._regions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockSet) and self._regions == other._regions

    def __hash__(self) -> int:
        return hash(frozenset(self._regions.items()))

    def __repr__(self) -> str:
        return f"BlockSet({', '.join(f'{r.first}+{r.count}' for r in self.runs())})"


def split_by_region(first: int, count: int) -> Iterator[RegionBits]:
    """The run `first`, `count` as bits per region, ascending."""
    end = first + count
    while first < end:
        region, inside = divmod(first, BLOCKS_PER_REGION)
        here = min(end - first, BLOCKS_PER_REGION - inside)
        yield region, WHOLE_REGION if here == BLOCKS_PER_REGION else run_bits(inside, here)
        first += here
