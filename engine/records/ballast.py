"""Ballast: space kept back beside the records, given up so that a change can still be recorded on a full disk.

This module must never give it up by itself, and never take it back while the disk is nearly full.
"""

from __future__ import annotations

import os
from contextlib import suppress

from blockstore.disk import Disk

BALLAST_BYTES = 16 << 20


class Ballast:
    """The file `ballast` in the data directory, really allocated."""

    def __init__(self, disk: Disk, data: str, size_bytes: int = BALLAST_BYTES) -> None:
        self._disk = disk
        self._folder = data
        self._path = os.path.join(data, "ballast")
        self._size_bytes = size_bytes
        self.is_there = False

    def take(self) -> bool:
        """Make it, or complete it, if as much again stays free. Returns whether it is there. Blocking."""
        if not self.is_there:
            if self._disk.free_bytes(self._folder) < 2 * self._size_bytes:
                return False
            try:
                self._fill()
            except OSError:
                # No space after all: half a ballast is worth nothing, and would only make things worse.
                with suppress(OSError):
                    self._disk.unlink(self._path)
                return False
            self.is_there = True
        return True

    def give_up(self) -> bool:
        """Free its space. Returns whether there was any to free. Blocking."""
        had = self._disk.exists(self._path)
        self._disk.unlink(self._path)
        # Some file systems hand freed blocks out again only once the removal is on the disk.
        self._disk.sync_dir(self._folder)
        self.is_there = False
        return had

    def _fill(self) -> None:
        create = not self._disk.exists(self._path)
        file = self._disk.open(self._path, create=create)
        try:
            file.allocate(0, self._size_bytes)
            file.sync()
        finally:
            file.close()
        if create:
            self._disk.sync_dir(self._folder)
