"""What a capture needs before its switch, which must not wait for anything: maps, bitmaps, a file for kept blocks.

The file has no name once it is made: it goes with its last descriptor, whatever ends the process. This module
must never look at a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blockstore.disk import Disk, DiskFile
from blockstore.tracking.bitmap import Bitmap, LiveMap, memory_bitmap
from blockstore.tracking.tracker import ChangeTracker
from blockstore.units import align_up, regions_in


@dataclass(slots=True, eq=False)
class Prepared:
    """What a capture needs before the switch: the next epoch's map, the capture file, three bitmaps in memory.

    `theirs`: blocks that the receiver changed since the common point. They are shipped with what is dirty here and
    never become dirty themselves: nobody wrote them at this side.
    """

    fresh: LiveMap
    file: DiskFile
    done: Bitmap
    kept: Bitmap
    theirs: Bitmap

    @classmethod
    def make(cls, disk: Disk, path: str, fresh: LiveMap, size_bytes: int) -> Prepared:
        """Blocking. Raises OSError."""
        regions = regions_in(size_bytes)
        file = disk.open(path, create=True)
        disk.unlink(path)
        try:
            file.truncate(align_up(size_bytes))
            return cls(fresh, file, *(memory_bitmap(disk, regions) for _ in range(3)))
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        """Blocking: the file may be large, and goes with its last descriptor."""
        self.file.close()
        self.done.close()
        self.kept.close()
        self.theirs.close()


def prepare(
    disk: Disk, folder: str, sync_id: bytes, tracker: ChangeTracker, live: LiveMap, size_bytes: int
) -> Prepared:
    """Everything that the switch must not wait for. Blocking. Raises OSError; then `live` is removed."""
    try:
        live.oldest = tracker.current.name.epoch
        live.set_ready()
        return Prepared.make(disk, f"{folder}/{sync_id.hex()}.capture", live, size_bytes)
    except BaseException:
        live.remove(disk)
        raise


def drop_prepared(disk: Disk, prepared: Iterable[Prepared]) -> None:
    """Give up what was prepared and not used. Blocking."""
    for parts in prepared:
        parts.close()
        parts.fresh.remove(disk)
