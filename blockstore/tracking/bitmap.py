"""Bitmap: one bit per block by region, with a summary of the regions that have any; LiveMap: one that survives SIGKILL.

Two levels: a byte per region says whether the region's 128 bytes were ever stored to, so planning follows the
change and not the size, and memory that nobody touched is never touched by a reader either (reading a hole of a
tmpfs mapping makes a page of it). A live map lies on tmpfs or in anonymous memory, never in a file on a disk:
the kernel writes such pages back in mid-change. This module must never sync anything.

Live map, little-endian: 0 magic "LWLIVE1\\0" | 8 u16 version 1 | 10 u16 0 | 12 u32 regions | 16 volume[16]
| 32 owner[16] | 48 u64 epoch | 56 nonce[16] | 72 u64 xxh3-64 of bytes 0..71 | 80 u64 writes | 88 u64 oldest epoch
still needed | 96 u32 ready | 100 u32 poisoned | 104 u32 frozen; from 4096 on 128 bytes a region, block b of it is
bit (b & 7) of byte b >> 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from blockstore.blockset import RegionBits, split_by_region
from blockstore.disk import Disk, LiveFile
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION_BITS_BYTES, align_up

MAGIC = b"LWLIVE1\0"
VERSION = 1
BODY = BLOCK
"""Offset of the bits in the file of a live map."""

_FIXED = struct.Struct("<8sHHI16s16sQ16s")
_CHECK = struct.Struct("<Q")
_STATE = struct.Struct("<QQIII")
_STATE_AT = 80
_READY_AT, _POISONED_AT, _FROZEN_AT = 96, 100, 104
_ROWS = 8192
"""Regions that one numpy operation takes: 1 MiB of bits."""


class Bitmap:
    """Bits of blocks over a buffer that lies `body` bytes into `live`. All calls on the owner's loop."""

    def __init__(self, live: LiveFile, regions: int, body: int = 0) -> None:
        self._live = live
        self._body = body
        self.bits_of = live.buffer[body : body + regions * REGION_BITS_BYTES]
        """The bytes themselves; only of touched regions."""
        self.touched = bytearray(regions)
        """1 for every region that may have bits; memory stands behind those."""

    def touch(self, region: int) -> None:
        """Make the region's bytes safe to store to. OSError ENOSPC: the tmpfs is full, and nothing was changed."""
        if not self.touched[region]:
            self._live.back(self._body + region * REGION_BITS_BYTES, REGION_BITS_BYTES)
            self.touched[region] = 1

    def bits(self, region: int) -> int:
        """The bits of one region; block b of the region is bit b."""
        if not self.touched[region]:
            return 0
        at = region * REGION_BITS_BYTES
        return int.from_bytes(self.bits_of[at : at + REGION_BITS_BYTES], "little")

    def add(self, region: int, bits: int) -> None:
        """Set `bits` too. OSError ENOSPC as `touch`."""
        self.touch(region)
        self._store(region, self.bits(region) | bits)

    def mark(self, first: int, count: int) -> None:
        """Set the bits of `count` blocks from `first` on. OSError ENOSPC as `touch`."""
        if count == 1:
            self.touch(first // BLOCKS_PER_REGION)
            self.bits_of[first >> 3] |= 1 << (first & 7)
            return
        for region, bits in split_by_region(first, count):
            self.add(region, bits)

    def next_region(self, region: int) -> int:
        """The first touched region from `region` on, -1 if there is none."""
        return self.touched.find(1, region)

    def regions(self) -> Iterator[RegionBits]:
        """Regions with bits, ascending, lazily; bits may be set meanwhile."""
        region = self.next_region(0)
        while region >= 0:
            bits = self.bits(region)
            if bits:
                yield region, bits
            region = self.next_region(region + 1)

    def touched_groups(self, size: int) -> set[int]:
        """Which groups of `size` regions, counted from 0, have a region that was ever stored to."""
        return set((np.flatnonzero(self._summary()) // size).tolist())

    def count(self) -> int:
        """How many bits are set."""
        rows = self._rows()
        return sum(int(np.bitwise_count(rows[some]).sum()) for some in _some(self._summary()))

    def count_common(self, other: Bitmap) -> int:
        """How many bits are set in both."""
        mine, theirs = self._rows(), other._rows()
        both = self._summary() & other._summary()
        return sum(int(np.bitwise_count(mine[some] & theirs[some]).sum()) for some in _some(both))

    def merge(self, other: Bitmap) -> None:
        """Set all bits of `other` too. OSError ENOSPC: some were set, do it again later."""
        mine, theirs = self._rows(), other._rows()
        for some in _some(other._summary()):
            for region in some.tolist():
                self.touch(region)
            mine[some] |= theirs[some]

    def clear(self) -> None:
        """Clear every bit."""
        rows = self._rows()
        for some in _some(self._summary()):
            rows[some] = 0
        self.touched[:] = bytes(len(self.touched))

    def close(self) -> None:
        """Give the memory back."""
        self.bits_of.release()
        self._live.close()

    def _store(self, region: int, bits: int) -> None:
        at = region * REGION_BITS_BYTES
        self.bits_of[at : at + REGION_BITS_BYTES] = bits.to_bytes(REGION_BITS_BYTES, "little")

    def _rows(self) -> NDArray[np.uint64]:
        return np.frombuffer(self.bits_of, np.uint64).reshape(-1, REGION_BITS_BYTES // 8)

    def _summary(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.touched, np.uint8)


def _some(summary: NDArray[np.uint8]) -> Iterator[NDArray[np.intp]]:
    """The touched regions, ascending, a bounded number at a time."""
    for start in range(0, len(summary), 1 << 20):
        found = np.flatnonzero(summary[start : start + (1 << 20)]) + start
        for at in range(0, len(found), _ROWS):
            yield found[at : at + _ROWS]


def memory_bitmap(disk: Disk, regions: int) -> Bitmap:
    """A bitmap in anonymous memory, all clear; pages not touched cost nothing."""
    return Bitmap(disk.open_live(None, max(1, regions) * REGION_BITS_BYTES, create=True), regions)


@dataclass(frozen=True, slots=True)
class LiveName:
    """What binds a live map to what it tracks: 16 bytes each but `epoch`."""

    volume_id: bytes
    owner: bytes
    epoch: int
    nonce: bytes

    @property
    def file_name(self) -> str:
        return f"{self.owner.hex()}.{self.epoch}.live"


class LiveMap(Bitmap):
    """A bitmap of one epoch that another process can take over after this one was killed, if it lies on tmpfs."""

    def __init__(self, live: LiveFile, regions: int, name: LiveName) -> None:
        super().__init__(live, regions, BODY)
        self.name = name
        self.path = live.path
        self.writes = live.buffer[_STATE_AT : _STATE_AT + 8].cast("Q")
        """One number: how many writes were dispatched, ever."""

    @classmethod
    def create(cls, disk: Disk, folder: str | None, name: LiveName, regions: int) -> LiveMap:
        """A new map, all clear, not ready. OSError (EEXIST, ENOSPC)."""
        path = f"{folder}/{name.file_name}" if folder else None
        live = disk.open_live(path, align_up(BODY + regions * REGION_BITS_BYTES), create=True)
        try:
            live.back(0, BODY)
            fixed = _FIXED.pack(MAGIC, VERSION, 0, regions, name.volume_id, name.owner, name.epoch, name.nonce)
            live.buffer[: _FIXED.size + 8] = fixed + _CHECK.pack(xxh3_64_intdigest(fixed))
            live.buffer[_STATE_AT : _STATE_AT + _STATE.size] = _STATE.pack(0, name.epoch, 0, 0, 0)
            return cls(live, regions, name)
        except BaseException:
            live.close()
            if live.path:
                disk.unlink(live.path)
            raise

    @classmethod
    def open(cls, disk: Disk, path: str, regions: int, volume_id: bytes, owner: bytes) -> LiveMap | None:
        """The map that another process left at `path`; None if it is not one of this volume and owner."""
        try:
            live = disk.open_live(path, align_up(BODY + regions * REGION_BITS_BYTES), create=False)
        except (FileNotFoundError, ValueError):
            return None
        kept = list(live.kept_ranges())
        raw = bytes(live.buffer[: _FIXED.size + 8]) if kept and kept[0][0] == 0 else bytes(_FIXED.size + 8)
        magic, version, _, count, volume, whose, epoch, nonce = _FIXED.unpack_from(raw)
        known = (magic, version, count, volume, whose) == (MAGIC, VERSION, regions, volume_id, owner)
        if not known or _CHECK.unpack_from(raw, _FIXED.size)[0] != xxh3_64_intdigest(raw[: _FIXED.size]):
            live.close()
            return None
        found = cls(live, regions, LiveName(volume_id, owner, epoch, nonce))
        found._find_touched(kept)
        return found

    def _find_touched(self, kept: list[tuple[int, int]]) -> None:
        touched = np.frombuffer(self.touched, np.uint8)
        rows = self._rows()
        for offset, length in kept:
            start = max(0, offset - BODY) // REGION_BITS_BYTES
            end = min(len(touched), (offset + length - BODY) // REGION_BITS_BYTES)
            for at in range(start, end, _ROWS):
                stop = min(end, at + _ROWS)
                touched[at:stop] = rows[at:stop].any(axis=1)

    @property
    def is_trusted(self) -> bool:
        """It was filled, and nothing failed while it was in use."""
        return bool(self._flag(_READY_AT)) and not self._flag(_POISONED_AT)

    @property
    def is_frozen(self) -> bool:
        """Its epoch was frozen by a capture."""
        return bool(self._flag(_FROZEN_AT))

    @property
    def oldest(self) -> int:
        """The oldest epoch whose map belongs to this one: without all of them none may be trusted."""
        return int.from_bytes(self._live.buffer[_STATE_AT + 8 : _STATE_AT + 16], "little")

    @oldest.setter
    def oldest(self, epoch: int) -> None:
        self._live.buffer[_STATE_AT + 8 : _STATE_AT + 16] = epoch.to_bytes(8, "little")

    def set_ready(self) -> None:
        """The last thing that is stored when a map is made."""
        self._live.buffer[_READY_AT : _READY_AT + 4] = b"\1\0\0\0"

    def poison(self) -> None:
        """The first thing that is done when a mark or a sync failed."""
        self._live.buffer[_POISONED_AT : _POISONED_AT + 4] = b"\1\0\0\0"

    def freeze(self) -> None:
        """Say that a capture froze this epoch."""
        self._live.buffer[_FROZEN_AT : _FROZEN_AT + 4] = b"\1\0\0\0"

    def close(self) -> None:
        self.writes.release()
        super().close()

    def remove(self, disk: Disk) -> None:
        """Close it and remove its file."""
        self.close()
        if self.path:
            disk.unlink(self.path)

    def _flag(self, at: int) -> int:
        return int.from_bytes(self._live.buffer[at : at + 4], "little")
