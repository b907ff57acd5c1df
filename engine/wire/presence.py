"""Lists of regions as they travel: packed integers, and a long list as a row of RESUMEs.

A region is four bytes (u32 LE), its digest eight; both stand in ascending order of regions. One RESUME stays below
the limit of a header however large the volume is: the rest comes in further ones, and `Joiner` makes one of them.
This module must never keep a list longer than `limits.PRESENCE_REGIONS_JOINED`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec

from engine.errors import WireDamaged, WireLimit
from engine.wire import limits
from engine.wire.messages import Resume, VolumePresence

DIGEST_BYTES = 8
_REGION_BYTES = 4
_SWAPPED = sys.byteorder != "little"

assert array("I").itemsize == _REGION_BYTES


def pack_regions(regions: Iterable[int]) -> bytes:
    """Region numbers, ascending, as u32 LE each."""
    packed = array("I", regions)
    if _SWAPPED:
        packed.byteswap()
    return packed.tobytes()


def unpack_regions(packed: bytes) -> array[int]:
    """The region numbers in `packed`. Raises WireDamaged unless they ascend."""
    if len(packed) % _REGION_BYTES:
        raise WireDamaged(reason="a list of regions has an odd length")
    regions = array("I")
    regions.frombytes(packed)
    if _SWAPPED:
        regions.byteswap()
    if any(a >= b for a, b in pairwise(regions)):
        raise WireDamaged(reason="a list of regions does not ascend")
    return regions


def pack_presence(volume: bytes, digests: dict[int, bytes]) -> VolumePresence:
    """Regions and their digests (8 bytes each) of one volume, as they travel."""
    regions = sorted(digests)
    return VolumePresence(volume, pack_regions(regions), b"".join(digests[region] for region in regions))


def unpack_presence(presence: VolumePresence) -> dict[int, bytes]:
    """Digest by region; b"" for all where none were sent. Raises WireDamaged."""
    regions = unpack_regions(presence.regions)
    digests = presence.digests
    if not digests:
        return dict.fromkeys(regions, b"")
    if len(digests) != DIGEST_BYTES * len(regions):
        raise WireDamaged(reason="a list of regions has another number of digests")
    return {region: digests[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i, region in enumerate(regions)}


def split(resume: Resume) -> Iterator[Resume]:
    """`resume` as a row of RESUMEs within the limits, all but the last with `more`. Of the whole, usually."""
    tasks = [(True, entry) for entry in resume.volumes] + [(False, entry) for entry in resume.reusable]
    room = limits.PRESENCE_REGIONS
    page: dict[bool, list[VolumePresence]] = {True: [], False: []}
    for is_present, entry in tasks:
        at, end = 0, len(entry.regions) // _REGION_BYTES
        while True:
            count = min(room, end - at)
            page[is_present].append(_cut(entry, at, at + count))
            at, room = at + count, room - count
            if at == end:
                break
            yield msgspec.structs.replace(resume, volumes=tuple(page[True]), reusable=tuple(page[False]), more=True)
            page, room = {True: [], False: []}, limits.PRESENCE_REGIONS
    yield msgspec.structs.replace(resume, volumes=tuple(page[True]), reusable=tuple(page[False]), more=False)


def _cut(entry: VolumePresence, start: int, end: int) -> VolumePresence:
    regions = entry.regions[_REGION_BYTES * start : _REGION_BYTES * end]
    return VolumePresence(entry.volume, regions, entry.digests[DIGEST_BYTES * start : DIGEST_BYTES * end])


class Joiner:
    """Makes one RESUME of a row of them; one per link, since a row is never interrupted by another."""

    __slots__ = ("_parts", "_regions")

    def __init__(self) -> None:
        self._parts: list[Resume] = []
        self._regions = 0

    def add(self, part: Resume) -> Resume | None:
        """The whole, when `part` was the last of its row. Raises WireDamaged, WireLimit."""
        if self._parts and (part.group, part.sync) != (self._parts[0].group, self._parts[0].sync):
            raise WireDamaged(reason="a row of RESUMEs changed its sync")
        self._regions += sum(len(entry.regions) for entry in (*part.volumes, *part.reusable)) // _REGION_BYTES
        if self._regions > limits.PRESENCE_REGIONS_JOINED or len(self._parts) > limits.CONTAINER_ITEMS:
            raise WireLimit(what="a list of regions", size=self._regions, limit=limits.PRESENCE_REGIONS_JOINED)
        self._parts.append(part)
        if part.more:
            return None
        parts, self._parts, self._regions = self._parts, [], 0
        if len(parts) == 1:
            return part
        volumes = _merge(entry for one in parts for entry in one.volumes)
        return msgspec.structs.replace(part, volumes=volumes, reusable=_merge(e for one in parts for e in one.reusable))


def _merge(entries: Iterable[VolumePresence]) -> tuple[VolumePresence, ...]:
    """Entries of one volume joined, in the order in which the volumes first stood."""
    found: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for entry in entries:
        regions, digests = found.setdefault(entry.volume, ([], []))
        regions.append(entry.regions)
        digests.append(entry.digests)
    return tuple(VolumePresence(volume, b"".join(r), b"".join(d)) for volume, (r, d) in found.items())
