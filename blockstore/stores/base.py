"""BlockStore: what every kind of store offers, and what the kinds on this host's disks have in common.

A store is bytes of a fixed size; it must never know of tracking, layers or replication. Offsets and lengths
are bytes. A size that is no multiple of a block works everywhere: the short last block reads padded with
zeros, and what would be written behind the end is left out. The same holds behind the volume's end in a store
that is larger than its volume: nothing there is read or changed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import ClassVar, Protocol

from blockstore.disk import DiskFile
from blockstore.errors import StoreFlushFailed
from blockstore.units import BLOCK, StoreIdentity, within

_NOT_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EINVAL)
"""Errors of a durable write that say nothing about what earlier writes left on the disk."""
_ZEROS = memoryview(bytes(1 << 20))


class BlockStore(Protocol):
    """Where the bytes of a volume live. Everything but `read_cached` may block; errors come as OSError."""

    path: str
    size_bytes: int
    file: DiskFile

    @property
    def kind(self) -> str:
        """The name of the kind, for people: "file" or "device"."""

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill all of `buffer`; zeros behind the end."""

    def read_cached(self, buffer: memoryview, offset: int) -> bool:
        """As `read_into` if that needs no disk; False: it would block."""

    def write(self, data: memoryview | bytes, offset: int, durable: bool = False) -> None:
        """Write `data`; `durable`: on the disk when it returns. OSError ENOSPC, EIO; StoreFlushFailed if durable."""

    def zero(self, offset: int, length: int, may_punch: bool = True) -> None:
        """The range reads as zeros afterwards; its space is given back where `may_punch` and the store can."""

    def discard(self, offset: int, length: int) -> None:
        """The same bytes are not needed any more: they read as zeros, exactly this range."""

    def flush(self) -> None:
        """All written before is on the disk. Raises StoreFlushFailed, then for ever."""

    def data_ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, is data) up to the end of the store; a hint, holes may be called data."""

    def identity(self) -> StoreIdentity:
        """What it looks like now: at a clean stop noted, at the next start compared."""

    def drop_cache(self) -> None:
        """Forget clean cached pages, so that the next read shows what the disk has."""

    def narrow(self, size_bytes: int) -> None:
        """Be a store of only the first `size_bytes` from now on; what lies behind them is somebody else's."""

    def close(self) -> None:
        """Close and give up exclusive use."""


class DiskStore:
    """A store behind one descriptor of this host: what files and devices share."""

    KIND: ClassVar[str]

    def __init__(self, file: DiskFile, path: str) -> None:
        self.file = file
        self.path = path
        self.size_bytes = file.size()
        self._can_punch = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.size_bytes})"

    @property
    def kind(self) -> str:
        return self.KIND

    def read_into(self, buffer: memoryview, offset: int) -> None:
        inside = self.size_bytes - offset
        if inside < len(buffer):
            inside = max(0, inside)
            buffer[inside:] = bytes(len(buffer) - inside)
            buffer = buffer[:inside]
        if self.file.read_into(buffer, offset) < len(buffer):
            raise OSError(errno.EIO, "the store became shorter", self.path)

    def read_cached(self, buffer: memoryview, offset: int) -> bool:
        inside = self.size_bytes - offset
        if inside >= len(buffer):
            return self.file.read_cached(buffer, offset)
        inside = max(0, inside)
        if inside and not self.file.read_cached(buffer[:inside], offset):
            return False
        buffer[inside:] = bytes(len(buffer) - inside)
        return True

    def write(self, data: memoryview | bytes, offset: int, durable: bool = False) -> None:
        inside = self.size_bytes - offset
        if len(data) > inside:
            data = memoryview(data)[: max(0, inside)]
        try:
            self.file.write(data, offset, durable=durable)
        except OSError as error:
            if durable and error.errno not in _NOT_THE_DISK:
                self.file.sync_failed = True
                raise StoreFlushFailed(path=self.path, reason=str(error.strerror)) from error
            raise

    def zero(self, offset: int, length: int, may_punch: bool = True) -> None:
        end = min(offset + length, self.size_bytes)
        first, count = within(offset, end - offset)
        if not (may_punch and self._can_punch and count):
            self._write_zeros(offset, end)
            return
        try:
            self.file.punch(first * BLOCK, count * BLOCK)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._can_punch = False
            self._write_zeros(offset, end)
            return
        self._write_zeros(offset, first * BLOCK)
        self._write_zeros((first + count) * BLOCK, end)

    def discard(self, offset: int, length: int) -> None:
        self.zero(offset, length)

    def flush(self) -> None:
        self.file.datasync()

    def data_ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        return self.file.data_ranges(offset, max(0, min(length, self.size_bytes - offset)))

    def drop_cache(self) -> None:
        self.file.drop_cache()

    def narrow(self, size_bytes: int) -> None:
        assert 0 < size_bytes <= self.size_bytes, "a store is at least as large as its volume"
        self.size_bytes = size_bytes

    def close(self) -> None:
        self.file.close()

    def _write_zeros(self, offset: int, end: int) -> None:
        while offset < end:
            piece = _ZEROS[: end - offset]
            self.file.write(piece, offset)
            offset += len(piece)
