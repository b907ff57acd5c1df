"""DeviceStore: a loop or other block device as a store, opened with O_EXCL.

O_EXCL stops mounts, device mapper and md, not a plain open: bytes written behind our back are found by a
scan only. It must never use BLKDISCARD: after that two reads of a block may differ (`docs/formats.md`).
"""

from __future__ import annotations

from typing import ClassVar

from blockstore.stores.base import DiskStore
from blockstore.units import StoreIdentity


class DeviceStore(DiskStore):
    """A block device in exclusive use."""

    KIND: ClassVar[str] = "device"

    def identity(self) -> StoreIdentity:
        """Size and device number: the times of a node in /dev say nothing about what is on the device."""
        return StoreIdentity(self.file.size(), self.file.status().st_rdev, 0, 0)
