"""A Disk in memory that records: every change of a file in order, and what live maps held just before and after it.

It behaves like a page cache over a disk: what was written is read back at once, and is on the disk after a sync only.
A sector of 512 bytes is atomic; what a sector gets is the page cache's content of it. What can be left after a crash is
worked out from the record (`disk_states.py`). Live maps are memory that outlives a kill and not a power cut.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from blockstore.disk import Disk, LiveFile
from blockstore.errors import StoreFlushFailed
from blockstore.units import BLOCK

SECTOR = 512
ZERO = bytes(SECTOR)
LIVE = "/run/"
"""The folder that is tmpfs."""

Atoms = list[tuple[int, bytes | None]]
"""(sector, its content after the change; None: zeros)."""
Entry = tuple[Any, ...]
"""("data", inode, Atoms, durable) | ("size", inode, bytes, durable) | ("sync", inode)
| ("create" | "unlink", path, inode) | ("dir", folder: its names are synced) | ("folder", path) | ("commit", records)
| ("live", {path: bytes}) | ("note", name, arguments)."""


@dataclass
class Content:
    """The bytes of a file: sectors that are not zeros, and the size."""

    sectors: dict[int, bytes] = field(default_factory=dict)
    size: int = 0

    def copy(self) -> Content:
        return Content(dict(self.sectors), self.size)

    def apply(self, entry: Entry) -> None:
        """A change of ("data", ...) or ("size", ...)."""
        if entry[0] == "size":
            self.resize(entry[2])
            return
        for sector, part in entry[2]:
            if part is None:
                self.sectors.pop(sector, None)
            else:
                self.sectors[sector] = part

    def resize(self, size: int) -> None:
        if size < self.size:
            last = -(-size // SECTOR)
            for sector in [sector for sector in self.sectors if sector >= last]:
                del self.sectors[sector]
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        if not length:
            return b""
        first = offset // SECTOR
        last = (offset + length - 1) // SECTOR
        get = self.sectors.get
        raw = b"".join([get(sector, ZERO) for sector in range(first, last + 1)])
        inside = offset - first * SECTOR
        return raw[inside : inside + length]

    def atoms(self, offset: int, data: bytes) -> Atoms:
        """What a write of `data` makes of the sectors that it touches."""
        first, end = offset // SECTOR, offset + len(data)
        last = (end + SECTOR - 1) // SECTOR
        if offset % SECTOR or end % SECTOR:
            get = self.sectors.get
            whole = bytearray(b"".join([get(sector, ZERO) for sector in range(first, last)]))
            whole[offset - first * SECTOR : end - first * SECTOR] = data
            data = bytes(whole)
        found: Atoms = []
        for sector in range(first, last):
            part = data[(sector - first) * SECTOR : (sector - first + 1) * SECTOR]
            found.append((sector, None if part == ZERO else part))
        return found


class MemoryFile:
    """An open file; the calls are those of `blockstore.disk.DiskFile`."""

    def __init__(self, disk: MemoryDisk, path: str, inode: int, *, direct: bool) -> None:
        self.fd = inode
        self.path = path
        self.direct = direct
        self.sync_failed = False
        self._disk = disk
        self._inode = inode
        self._content = disk.contents[inode]

    def read_into(self, buffer: Any, offset: int) -> int:
        view = memoryview(buffer).cast("B")
        raw = self.read(len(view), offset)
        view[: len(raw)] = raw
        return len(raw)

    def read_cached(self, buffer: Any, offset: int) -> bool:
        return not self._disk.is_cold and self.read_into(buffer, offset) == len(buffer)

    def read(self, length: int, offset: int) -> bytes:
        return self._content.read(offset, length)

    def write(self, data: Any, offset: int, *, durable: bool = False) -> None:
        raw = bytes(memoryview(data).cast("B"))
        if raw:
            self._disk.change(("data", self._inode, self._content.atoms(offset, raw), durable))
            if offset + len(raw) > self._content.size:
                self._disk.change(("size", self._inode, offset + len(raw), durable))

    def punch(self, offset: int, length: int) -> None:
        first, last = offset // SECTOR, (offset + length) // SECTOR
        here = self._content.sectors
        atoms: Atoms = [(sector, None) for sector in sorted(here) if first <= sector < last]
        if atoms:
            self._disk.change(("data", self._inode, atoms, False))

    def allocate(self, offset: int, length: int) -> None:
        if offset + length > self._content.size:
            self._disk.change(("size", self._inode, offset + length, False))

    def truncate(self, size: int) -> None:
        if size != self._content.size:
            self._disk.change(("size", self._inode, size, False))

    def size(self) -> int:
        return self._content.size

    def allocated_bytes(self) -> int:
        return len(self._content.sectors) * SECTOR

    def status(self) -> Any:
        return self._disk.status_of(self._inode)

    def datasync(self) -> None:
        if self.sync_failed:
            raise StoreFlushFailed(path=self.path, reason="an earlier flush failed")
        try:
            self._disk.change(("sync", self._inode))
        except OSError as error:
            self.sync_failed = True
            raise StoreFlushFailed(path=self.path, reason=error.strerror or str(error)) from error

    sync = datasync

    def data_ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        yield offset, length, True

    def lock(self) -> bool:
        return True

    lock_shared = lock

    def drop_cache(self) -> None:
        pass

    def close(self) -> None:
        self.fd = -1


class MemoryLive(LiveFile):
    """A live map: its bytes stay with the disk when the process that mapped it is gone."""

    def __init__(self, path: str, kept: bytearray) -> None:
        self.path = path
        self.buffer = memoryview(kept)

    @property
    def is_kept(self) -> bool:
        return True

    def back(self, offset: int, length: int = 1) -> None:
        pass

    def kept_ranges(self) -> Iterator[tuple[int, int]]:
        yield 0, len(self.buffer)

    def close(self) -> None:
        self.buffer.release()


class MemoryDisk(Disk):
    """All files of one host. `log` holds every change since this object was made."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.contents: dict[int, Content] = {}
        self.folders: set[str] = set()
        """Folders, which no crash takes away here."""
        self.live: dict[str, bytearray] = {}
        self.log: list[Entry] = []
        self.next_inode = 1
        self.is_cold = False
        """Nothing is in the page cache: reads that must not wait are refused."""
        self.is_deaf = False
        """Syncs are left out: for the mutation that drops those at open."""
        self._shown: dict[str, bytes] = {}

    def change(self, entry: Entry) -> None:
        """One change, live maps noted before and after it."""
        if self.is_deaf and entry[0] == "sync":
            return
        self.look()
        if entry[0] in ("data", "size"):
            self.contents[entry[1]].apply(entry)
        self.log.append(entry)

    def look(self) -> None:
        """Note what live maps hold, if that changed."""
        now = {path: bytes(kept) for path, kept in self.live.items()}
        if now != self._shown:
            self._shown = now
            self.log.append(("live", now))

    def note(self, name: str, *arguments: Any) -> None:
        """Something the model is to be told at this moment."""
        self.look()
        self.log.append(("note", name, arguments))

    def commit(self, records: bytes) -> None:
        """The records change: an atomic durable step that makes nothing else durable."""
        self.look()
        self.log.append(("commit", records))

    def status_of(self, inode: int) -> Any:
        content = self.contents[inode]
        return SimpleNamespace(
            st_mode=stat.S_IFREG | 0o600,
            st_dev=1,
            st_ino=inode,
            st_size=content.size,
            st_mtime_ns=1,  # nobody writes behind the back of a site here
            st_ctime_ns=1,
        )

    # blockstore.disk.Disk

    def open(
        self, path: str, *, write: bool = True, create: bool = False, direct: bool = False, exclusive: bool = False
    ) -> Any:
        inode = self.names.get(path)
        if create:
            if inode is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            inode, self.next_inode = self.next_inode, self.next_inode + 1
            self.names[path], self.contents[inode] = inode, Content()
            self.change(("create", path, inode))
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return MemoryFile(self, path, inode, direct=direct)

    def open_live(self, path: str | None, length: int, *, create: bool) -> LiveFile:
        if path is None:
            return super().open_live(None, length, create=create)
        if create:
            if path in self.live:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            self.live[path] = bytearray(length)
        kept = self.live.get(path)
        if kept is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if len(kept) != length:
            raise ValueError(f"{path} has {len(kept)} bytes, not {length}")
        return MemoryLive(path, kept)

    def is_tmpfs(self, folder: str) -> bool:
        return folder.startswith(LIVE)

    def sync_dir(self, path: str) -> None:
        self.change(("dir", path))

    def unlink(self, path: str) -> None:
        if path in self.live:
            del self.live[path]
            self.look()
        elif path in self.names:
            self.change(("unlink", path, self.names.pop(path)))

    def status(self, path: str) -> Any:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.status_of(self.names[path])

    def exists(self, path: str) -> bool:
        return path in self.names or path in self.live or path in self.folders

    def list(self, folder: str) -> list[str]:
        start = f"{folder}/"
        found = (name.removeprefix(start) for name in (*self.names, *self.live) if name.startswith(start))
        return sorted(name for name in found if "/" not in name)

    def make_dir(self, path: str, mode: int = 0o700) -> None:
        while path not in self.folders and path != "/":
            self.folders.add(path)
            self.log.append(("folder", path))
            path = os.path.dirname(path)

    def remove_dir(self, path: str) -> None:
        pass

    def free_bytes(self, path: str) -> int:
        return 1 << 40

    # For those who look from outside

    def peek(self, path: str, block: int) -> bytes:
        """A block of a file as the page cache has it, padded with zeros."""
        return self.contents[self.names[path]].read(block * BLOCK, BLOCK).ljust(BLOCK, b"\0")
