"""A Disk of real files that remembers what was synced, so that a test can cut the power.

Model (`docs/formats.md`, "Order"): a sector of 512 bytes is atomic; what was written since the last sync of its
file may or may not be there, each sector for itself; a name is there for certain only after its folder was synced.
A kill leaves everything that was written. Faults and interruptions enter through `hooks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from blockstore.disk import Disk, DiskFile

SECTOR = 512
_ZERO = bytes(SECTOR)


class Killed(BaseException):
    """The process ends here."""


class FileState:
    """What the disk has of one file, and what it may have."""

    def __init__(self) -> None:
        self.durable: dict[int, bytes] = {}
        self.size = 0
        self.pending: list[tuple[int, int, bytes | None]] = []
        self.sizes: list[int] = []
        self.is_named = False

    def write(self, offset: int, data: bytes | None, length: int) -> None:
        self.pending.append((offset, length, data))
        if data is not None and offset + length > (self.sizes or [self.size])[-1]:
            self.sizes.append(offset + length)

    def sync(self) -> None:
        for offset, length, data in self.pending:
            if data is None:
                for sector in [s for s in self.durable if offset <= s * SECTOR < offset + length]:
                    del self.durable[sector]
                continue
            for sector, part in _sectors(offset, data, self.durable):
                self.durable[sector] = part
        if self.sizes:
            self.size = self.sizes[-1]
        self.pending.clear()
        self.sizes.clear()

    def after_power(self, random: Random) -> tuple[dict[int, bytes], int]:
        """One legal content after a power cut: sectors, and the size."""
        candidates: dict[int, list[bytes]] = {sector: [part] for sector, part in self.durable.items()}
        latest = dict(self.durable)
        for offset, length, data in self.pending:
            if data is None:
                for sector in [s for s in latest if offset <= s * SECTOR < offset + length]:
                    candidates.setdefault(sector, [_ZERO]).append(_ZERO)
                    latest[sector] = _ZERO
                continue
            for sector, part in _sectors(offset, data, latest):
                candidates.setdefault(sector, [_ZERO]).append(part)
                latest[sector] = part
        whole = random.random()
        found = {
            sector: parts[-1] if whole < 0.2 else parts[0] if whole > 0.8 else random.choice(parts)
            for sector, parts in candidates.items()
        }
        return found, random.choice([self.size, *self.sizes])


def _sectors(offset: int, data: bytes, before: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
    """The sectors that a write changes, whole; what it leaves of the outer ones comes from `before`."""
    at = offset
    end = offset + len(data)
    while at < end:
        sector, inside = divmod(at, SECTOR)
        part = data[at - offset : at - offset + SECTOR - inside]
        if len(part) < SECTOR:
            old = before.get(sector, _ZERO)
            part = old[:inside] + part + old[inside + len(part) :]
        yield sector, part
        at = (sector + 1) * SECTOR


def _outside(op: tuple[int, int, bytes | None], start: int, end: int) -> Iterator[tuple[int, int, bytes | None]]:
    """What is left of a write outside a range that a later one made durable."""
    offset, length, data = op
    if offset < start:
        keep = min(length, start - offset)
        yield offset, keep, None if data is None else data[:keep]
    if offset + length > end:
        skip = max(0, end - offset)
        yield offset + skip, length - skip, None if data is None else data[skip:]


class PowerFile(DiskFile):
    """A file whose writes and syncs are noted."""

    def __init__(self, inner: DiskFile, disk: PowerDisk, state: FileState) -> None:
        super().__init__(inner.fd, inner.path, direct=inner.direct)
        self._disk = disk
        self._state = state

    def write(self, data: Any, offset: int, *, durable: bool = False) -> None:
        raw = bytes(data)
        self._disk.hook("write", self.path)
        super().write(raw, offset)
        self._state.write(offset, raw, len(raw))
        if durable:
            earlier, self._state.pending[:] = self._state.pending[:-1], self._state.pending[-1:]
            self._state.sync()
            self._state.pending[:] = [part for op in earlier for part in _outside(op, offset, offset + len(raw))]
        self._disk.hook("written", self.path)

    def read_into(self, buffer: Any, offset: int) -> int:
        view = memoryview(buffer)
        half = len(view) // 2
        got = super().read_into(view[:half], offset)
        self._disk.hook("read", self.path)
        return got + super().read_into(view[half:], offset + half) if got == half else got

    def read_cached(self, buffer: Any, offset: int) -> bool:
        # RWF_NOWAIT is refused by tmpfs, where such a test is quick
        return not self._disk.is_cold() and super().read_into(buffer, offset) == len(memoryview(buffer))

    def punch(self, offset: int, length: int) -> None:
        self._disk.hook("punch", self.path)
        super().punch(offset, length)
        self._state.write(offset, None, length)

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self._state.sizes.append(size)

    def allocate(self, offset: int, length: int) -> None:
        super().allocate(offset, length)
        self._state.sizes.append(max(offset + length, self.size()))

    def _sync(self, call: Any) -> None:
        self._disk.hook("sync", self.path)
        super()._sync(_nothing)
        if not self._disk.is_deaf:
            self._disk.syncs.append(os.path.basename(self.path))
            self._state.sync()


def _nothing(_: int) -> None:
    """The files lie in a temporary folder: the noting is the sync."""


class PowerDisk(Disk):
    """`syncs` lists the names of files and folders in the order in which they were synced."""

    def __init__(self) -> None:
        self.files: dict[str, FileState] = {}
        self.gone: dict[str, FileState] = {}
        self.syncs: list[str] = []
        self.hooks: dict[str, Callable[[str], None]] = {}
        self.is_deaf = False
        """Syncs do nothing: for a mutation that leaves them out."""
        self.is_cold: Callable[[], bool] = lambda: False
        """Whether the page cache has lost what is looked for now."""
        self._open: list[DiskFile] = []

    def hook(self, what: str, path: str) -> None:
        if what in self.hooks:
            self.hooks[what](path)

    def open(
        self, path: str, *, write: bool = True, create: bool = False, direct: bool = False, exclusive: bool = False
    ) -> DiskFile:
        inner = super().open(path, write=write, create=create, direct=direct, exclusive=exclusive)
        if path.startswith("/sys/"):
            return inner
        if create:
            self.files[path] = FileState()
        elif path not in self.files:  # it was there before this disk: all of it durable
            state = self.files[path] = FileState()
            state.is_named = True
            content = Path(path).read_bytes()
            state.write(0, content, len(content))
            state.sync()
        file = PowerFile(inner, self, self.files[path])
        self._open.append(file)
        return file

    def sync_dir(self, path: str) -> None:
        self.syncs.append(os.path.basename(path))
        for name, state in self.files.items():
            if os.path.dirname(name) == path:
                state.is_named = True
        for name in [name for name in self.gone if os.path.dirname(name) == path]:
            del self.gone[name]

    def unlink(self, path: str) -> None:
        super().unlink(path)
        state = self.files.pop(path, None)
        if state is not None and state.is_named:
            self.gone[path] = state

    def kill(self) -> None:
        """The process is gone: its descriptors close, and so its locks go. Everything written stays."""
        for file in self._open:
            file.close()
        self._open.clear()

    def cut_power(self, random: Random, old_root: str, new_root: str) -> PowerDisk:
        """Build one legal state of all files under `old_root` in `new_root`; the disk of the next boot."""
        self.kill()
        after = PowerDisk()
        found = {**self.gone, **self.files}
        for path, state in found.items():
            if not state.is_named and random.random() < 0.5:
                continue
            if path in self.gone and path not in self.files and random.random() < 0.5:
                continue
            sectors, size = state.after_power(random)
            target = new_root + path.removeprefix(old_root)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                for sector, part in sectors.items():
                    if sector * SECTOR < size:
                        file.seek(sector * SECTOR)
                        file.write(part[: size - sector * SECTOR])
                file.truncate(size)
            fresh = after.files[target] = FileState()
            fresh.durable = {s: p for s, p in sectors.items() if s * SECTOR < size and any(p)}
            fresh.size, fresh.is_named = size, True
        return after
