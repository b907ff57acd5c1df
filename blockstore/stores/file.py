"""FileStore: a regular file as a store. Space comes with the first write, and goes with a punch.

It must never be opened twice, nor while a loop device stands on it: the two page caches differ.
"""

from __future__ import annotations

from typing import ClassVar

from blockstore.stores.base import DiskStore
from blockstore.units import StoreIdentity


class FileStore(DiskStore):
    """A regular file, locked against QEMU, other daemons and a second use here."""

    KIND: ClassVar[str] = "file"

    def identity(self) -> StoreIdentity:
        status = self.file.status()
        return StoreIdentity(status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
