"""DataLock: one daemon to a data directory, on a file system where its promises hold.

This module must never wait for the lock: a second daemon is told at once who holds it.
"""

from __future__ import annotations

import os

from blockstore.disk import Disk, DiskFile
from engine.errors import DataInUse, DataRefused, NotInitialised

_REMOTE = {
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x0000517B: "SMB",
    0x01021997: "9p",
    0x65735546: "FUSE",
}
"""File systems whose locks, syncs or sparse files are not what durability.md builds on, by statfs magic."""


class DataLock:
    """Both kinds of exclusive lock on DATA/lock, until `release` or the end of the process."""

    def __init__(self, file: DiskFile) -> None:
        self._file = file

    @classmethod
    def take(cls, data: str, disk: Disk | None = None) -> DataLock:
        """Lock the data directory `data`, which exists. Raises DataInUse, DataRefused, NotInitialised."""
        disk = disk or Disk()
        try:
            kind = _REMOTE.get(disk.file_system_type(data))
            if kind is not None:
                raise DataRefused(data=data, reason=f"it lies on {kind}")
            file = _open(disk, os.path.join(data, "lock"))
        except FileNotFoundError:
            raise NotInitialised(data=data) from None
        except OSError as error:
            raise DataRefused(data=data, reason=error.strerror or str(error)) from error
        if not file.lock():
            holder = file.read(32, 0).decode("ascii", "replace").strip()
            file.close()
            raise DataInUse(data=data, holder=f"process {holder}" if holder.isdigit() else "another process")
        # For the message to others only; nothing is decided by it.
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode(), 0)
        return cls(file)

    def release(self) -> None:
        """Again: nothing."""
        self._file.close()

    def __enter__(self) -> DataLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _open(disk: Disk, path: str) -> DiskFile:
    try:
        return disk.open(path, create=True)
    except FileExistsError:
        return disk.open(path)
