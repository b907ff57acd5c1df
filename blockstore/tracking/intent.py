"""IntentLog: the file that says which regions are hot, that is, may hold bytes newer than the bits on disk.

A record is the whole hot set; nothing is ever replayed. Two slots, far apart, take turns, so a torn record
leaves the one before it, and no write has gone to the regions that only the torn one names. This module must
never write a record that leaves out a region whose bits are not durable: the caller says what is hot.

Format (`docs/formats.md`, intent log): 128 KiB, slots at 0 and 65536, magic "LWINTNT1".
"""

from __future__ import annotations

import os.path
import struct
from collections.abc import Collection
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from blockstore.disk import Disk, DiskFile
from blockstore.errors import TrackingLost
from blockstore.units import BLOCK, align_up

MAX_REGIONS = 4080
"""Regions that one record can name: 16 GiB of a volume."""

CLEAN_STOP = 1
"""Flag of a record: nothing was in flight, every bit is in the pages, and the store was flushed."""

_MAGIC = b"LWINTNT1"
_VERSION = 1
_HEAD = struct.Struct("<8sHHI16s16sQQ")
_CHECK_AT = 56
_SLOT_BYTES = 65536
_LENGTH = 2 * _SLOT_BYTES


@dataclass(frozen=True, slots=True)
class IntentRecord:
    """One valid record."""

    seq: int
    flags: int
    regions: tuple[int, ...]

    @property
    def is_clean(self) -> bool:
        return bool(self.flags & CLEAN_STOP)


class IntentLog:
    """The open file. `stage` on the owner's loop; `write` in the pool, one at a time."""

    def __init__(self, file: DiskFile, volume_id: bytes, owner: bytes, newest: IntentRecord) -> None:
        self.file = file
        self.newest = newest
        """What the file held when it was opened."""
        self._volume_id = volume_id
        self._owner = owner
        self._seq = newest.seq

    @classmethod
    def create(cls, disk: Disk, path: str, *, volume_id: bytes, owner: bytes) -> IntentLog:
        """Make the file with an empty record, durable (the name after `sync_dir`). Raises FileExistsError, OSError."""
        file = disk.open(path, create=True)
        try:
            file.write(bytes(_LENGTH), 0)  # written, not reserved: later records then never need space
            log = cls(file, volume_id, owner, IntentRecord(0, 0, ()))
            offset, image = log.stage(())
            file.write(image, offset)
            file.sync()
            return log
        except BaseException:
            file.close()
            disk.unlink(path)
            raise

    @classmethod
    def open(cls, disk: Disk, path: str, *, volume_id: bytes, owner: bytes) -> IntentLog:
        """Open it, what is in the page cache synced first, and find the newest valid record. Raises TrackingLost."""
        try:
            file = disk.open(path)
        except FileNotFoundError as error:
            raise TrackingLost(path=os.path.basename(path), reason="it is missing") from error
        try:
            file.datasync()
            slots = [_parse(file.read(_SLOT_BYTES, at), volume_id, owner) for at in (0, _SLOT_BYTES)]
            records = [record for slot, record in enumerate(slots) if record and record.seq & 1 == slot]
            if not records:
                raise TrackingLost(path=os.path.basename(path), reason="it has no valid record of this volume")
            return cls(file, volume_id, owner, max(records, key=lambda record: record.seq))
        except BaseException:
            file.close()
            raise

    def stage(self, regions: Collection[int], flags: int = 0) -> tuple[int, bytes]:
        """(offset, bytes) of the next record, which names `regions`, to be written by `write`."""
        assert len(regions) <= MAX_REGIONS, "a record has room for 4,080 regions"
        self._seq += 1
        image = bytearray(align_up(_HEAD.size + 4 * len(regions)))
        _HEAD.pack_into(image, 0, _MAGIC, _VERSION, flags, len(regions), self._volume_id, self._owner, self._seq, 0)
        struct.pack_into(f"<{len(regions)}I", image, _HEAD.size, *sorted(regions))
        struct.pack_into("<Q", image, _CHECK_AT, xxh3_64_intdigest(image))
        return (self._seq & 1) * _SLOT_BYTES, bytes(image)

    def write(self, staged: tuple[int, bytes]) -> None:
        """Write a staged record and sync. Blocking. OSError, StoreFlushFailed."""
        self.file.write(staged[1], staged[0])
        self.file.datasync()

    def close(self) -> None:
        self.file.close()


def _parse(raw: bytes, volume_id: bytes, owner: bytes) -> IntentRecord | None:
    if len(raw) < BLOCK:
        return None
    magic, version, flags, count, volume, whose, seq, check = _HEAD.unpack_from(raw)
    if (magic, version, volume, whose) != (_MAGIC, _VERSION, volume_id, owner) or count > MAX_REGIONS:
        return None
    image = bytearray(raw[: align_up(_HEAD.size + 4 * count)])
    struct.pack_into("<Q", image, _CHECK_AT, 0)
    if check != xxh3_64_intdigest(image):
        return None
    return IntentRecord(seq, flags, struct.unpack_from(f"<{count}I", image, _HEAD.size))
