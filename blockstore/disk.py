"""Disk: the one place that opens, reads, writes, syncs and maps files of blocks, and so knows disk order.

A file that failed one sync has failed for good (`docs/formats.md`, "Order"): the kernel reports the error
once and marks the pages clean, so a second sync would lie. Tests put a recording or a failing Disk in
this place; the product has no other switch for faults. This module must never decide what is written.

Formats of the calls: fallocate(2), ioctl_ficlonerange(2), fcntl(2) on open file description locks,
open(2) on O_DIRECT and O_EXCL, preadv2(2) on RWF_NOWAIT and RWF_DSYNC.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from blockstore.errors import StoreFlushFailed
from blockstore.units import BLOCK

Buffer = bytes | bytearray | memoryview | mmap.mmap

TMPFS_MAGIC = 0x01021994
_FICLONERANGE = 0x4020940D
_BLKFLSBUF = 0x1261
_BLKROGET = 0x125E
_BLKGETSIZE64 = 0x80081272
_F_OFD_SETLK = 37
_FALLOC_KEEP_SIZE = 0x01
_FALLOC_PUNCH_HOLE = 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]


def _raise_errno(path: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


class DiskFile:
    """One open file or device. Offsets and lengths are bytes. I/O errors come as OSError."""

    def __init__(self, fd: int, path: str, *, direct: bool = False) -> None:
        self.fd = fd
        self.path = path
        self.direct = direct
        self.sync_failed = False
        """True once a sync failed; every later sync fails as well."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def read_into(self, buffer: Any, offset: int) -> int:
        """Fill `buffer` from `offset`; returns the bytes read, fewer only at the end of the file."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            got = os.preadv(self.fd, [view[done:]], offset + done)
            if got == 0:
                break
            done += got
        return done

    def read_many(self, buffers: Sequence[Any], offset: int) -> int:
        """One preadv of neighbouring buffers; returns the bytes read, which may be short."""
        return os.preadv(self.fd, buffers, offset)

    def read_cached(self, buffer: Any, offset: int) -> bool:
        """Fill `buffer` if that needs no disk. False: it would block (or was short); use `read_into` in the pool."""
        try:
            return os.preadv(self.fd, [buffer], offset, os.RWF_NOWAIT) == len(buffer)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return False
            raise

    def read(self, length: int, offset: int) -> bytes:
        """`length` bytes at `offset`, fewer at the end of the file. For small metadata only."""
        return os.pread(self.fd, length, offset)

    def write(self, data: Any, offset: int, *, durable: bool = False) -> None:
        """Write all of `data` at `offset`; `durable`: on the disk when it returns (RWF_DSYNC)."""
        flags = os.RWF_DSYNC if durable else 0
        view = memoryview(data).cast("B")
        done = os.pwritev(self.fd, [view], offset, flags) if durable else os.pwrite(self.fd, view, offset)
        while done < len(view):
            more = os.pwritev(self.fd, [view[done:]], offset + done, flags)
            if more == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
            done += more

    def punch(self, offset: int, length: int) -> None:
        """Make the range read as zeros and give its space back, the size kept. OSError EOPNOTSUPP where it cannot."""
        if _libc.fallocate(self.fd, _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, length) != 0:
            _raise_errno(self.path)

    def allocate(self, offset: int, length: int) -> None:
        """Reserve space for the range, the size grown to hold it."""
        if _libc.fallocate(self.fd, 0, offset, length) != 0:
            _raise_errno(self.path)

    def clone_range(self, source: DiskFile, source_offset: int, length: int, offset: int) -> None:
        """Share the extents of `source` (FICLONERANGE). OSError where the file system cannot."""
        fcntl.ioctl(self.fd, _FICLONERANGE, struct.pack("qQQQ", source.fd, source_offset, length, offset))

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)

    def size(self) -> int:
        """Bytes in the file or device."""
        status = os.fstat(self.fd)
        if stat.S_ISBLK(status.st_mode):
            raw = fcntl.ioctl(self.fd, _BLKGETSIZE64, b"\0" * 8)
            return int(struct.unpack("Q", raw)[0])
        return status.st_size

    def allocated_bytes(self) -> int:
        """Bytes of the disk that the file takes; a sparse one takes less than its size."""
        return self.status().st_blocks * 512

    def is_read_only(self) -> bool:
        """True for a device that is set read-only: it can be opened for writing all the same (BLKROGET)."""
        raw = fcntl.ioctl(self.fd, _BLKROGET, b"\0" * 4) if stat.S_ISBLK(os.fstat(self.fd).st_mode) else b"\0"
        return any(raw)

    def status(self) -> os.stat_result:
        return os.fstat(self.fd)

    def datasync(self) -> None:
        """All written before this call is on the disk when it returns. Raises StoreFlushFailed, then for ever."""
        self._sync(os.fdatasync)

    def sync(self) -> None:
        """As `datasync`, with the size and the times."""
        self._sync(os.fsync)

    def _sync(self, call: Any) -> None:
        if self.sync_failed:
            raise StoreFlushFailed(path=self.path, reason="an earlier flush failed")
        try:
            call(self.fd)
        except OSError as error:
            self.sync_failed = True
            raise StoreFlushFailed(path=self.path, reason=error.strerror or str(error)) from error

    def data_ranges(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """(offset, length, is data) over the range, a hint: holes may be reported as data, never the reverse."""
        end = offset + length
        while offset < end:
            try:
                data = os.lseek(self.fd, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    yield offset, end - offset, False
                    return
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                yield offset, end - offset, True
                return
            if data >= end:
                yield offset, end - offset, False
                return
            if data > offset:
                yield offset, data - offset, False
            hole = min(end, os.lseek(self.fd, data, os.SEEK_HOLE))
            yield data, hole - data, True
            offset = hole

    def lock(self) -> bool:
        """Take both kinds of exclusive lock, flock and OFD; False if another holds either."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.fcntl(self.fd, _F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def lock_shared(self) -> bool:
        """Take a shared flock; False if another holds it alone."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def drop_cache(self) -> None:
        """Ask the kernel to forget clean cached pages of this file or device."""
        if stat.S_ISBLK(os.fstat(self.fd).st_mode):
            fcntl.ioctl(self.fd, _BLKFLSBUF, 0)
        else:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close once; later calls do nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class LiveFile:
    """A mapping of a tmpfs file (or anonymous memory): survives SIGKILL when `is_kept`, never a reboot."""

    def __init__(self, path: str | None, mapping: mmap.mmap, file: DiskFile | None) -> None:
        self.path = path
        self.buffer = memoryview(mapping)
        self._mapping = mapping
        self._file = file
        self._backed: set[int] = set()

    @property
    def is_kept(self) -> bool:
        """True: another process can open it after this one was killed."""
        return self._file is not None

    def back(self, offset: int, length: int = 1) -> None:
        """Make sure that memory stands behind the range before it is stored to.

        Raises OSError ENOSPC: a store into a hole of a full tmpfs would be SIGBUS otherwise.
        """
        if self._file is None:
            return
        for page in range(offset // BLOCK, (offset + length + BLOCK - 1) // BLOCK):
            if page not in self._backed:
                at = page * BLOCK
                os.pwrite(self._file.fd, self.buffer[at : at + 1], at)
                self._backed.add(page)

    def kept_ranges(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what memory stands behind: reading anything else would make memory of a hole."""
        if self._file is None:
            return
        for offset, length, is_data in self._file.data_ranges(0, len(self.buffer)):
            if is_data:
                yield offset, length

    def close(self) -> None:
        self.buffer.release()
        self._mapping.close()
        if self._file is not None:
            self._file.close()


class Disk:
    """The host's file systems."""

    def open(
        self, path: str, *, write: bool = True, create: bool = False, direct: bool = False, exclusive: bool = False
    ) -> DiskFile:
        """Open `path`. `create`: it must not exist, and is made with mode 0600. `exclusive`: O_EXCL on a device.

        The name of a created file is durable only after `sync` of the file and `sync_dir` of its folder.
        """
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        if exclusive:
            flags |= os.O_EXCL
        if direct:
            flags |= os.O_DIRECT
        return DiskFile(os.open(path, flags, 0o600), path, direct=direct)

    def open_live(self, path: str | None, length: int, *, create: bool) -> LiveFile:
        """Map `length` bytes of the tmpfs file `path`; anonymous memory if it is None or no tmpfs.

        `create`: it must not exist, and reads as zeros. Otherwise FileNotFoundError when it is missing and
        ValueError when its size is another.
        """
        if path is None or not self.is_tmpfs(os.path.dirname(path)):
            if not create:
                raise FileNotFoundError(path)
            return LiveFile(None, mmap.mmap(-1, max(length, BLOCK)), None)
        file = self.open(path, create=create)
        try:
            if create:
                file.truncate(length)
            elif file.size() != length:
                raise ValueError(f"{path} has {file.size()} bytes, not {length}")
            return LiveFile(path, mmap.mmap(file.fd, length), file)
        except BaseException:
            file.close()
            raise

    def is_tmpfs(self, folder: str) -> bool:
        """True if `folder` lies on tmpfs (fstatfs type 0x01021994)."""
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            raw = ctypes.create_string_buffer(256)
            if _libc.fstatfs(fd, raw) != 0:
                _raise_errno(folder)
            return int(struct.unpack_from("q", raw)[0]) == TMPFS_MAGIC
        finally:
            os.close(fd)

    def file_system_type(self, folder: str) -> int:
        """The magic number of the file system that `folder` lies on, as statfs(2) lists them."""
        raw = ctypes.create_string_buffer(256)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _libc.fstatfs(fd, raw) != 0:
                _raise_errno(folder)
        finally:
            os.close(fd)
        return int(struct.unpack_from("q", raw)[0]) & 0xFFFFFFFF

    def sync_dir(self, path: str) -> None:
        """Make the names in the folder `path` durable. Raises StoreFlushFailed."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            raise StoreFlushFailed(path=path, reason=error.strerror or str(error)) from error
        finally:
            os.close(fd)

    def unlink(self, path: str) -> None:
        """Remove the name; durable after `sync_dir`. A missing file is no error: removal is repeated after a crash."""
        with contextlib.suppress(FileNotFoundError):  # an earlier run of the same removal got this far
            os.unlink(path)

    def status(self, path: str) -> os.stat_result:
        """What stat(2) says of `path`, links followed. Raises OSError."""
        return os.stat(path)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def list(self, folder: str) -> list[str]:
        """Names in `folder`, sorted; empty if it does not exist."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def make_dir(self, path: str, mode: int = 0o700) -> None:
        """Make the folder and its parents; existing ones are fine. Names durable after `sync_dir` of the parents."""
        os.makedirs(path, mode=mode, exist_ok=True)

    def remove_dir(self, path: str) -> None:
        """Remove an empty folder. A missing one is no error, nor is one that another thing still lives in."""
        with contextlib.suppress(OSError):  # gone already, or something lives in it
            os.rmdir(path)

    def free_bytes(self, path: str) -> int:
        """Bytes that this user can still write on the file system of `path`."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize


def aligned_buffer(length: int) -> memoryview:
    """`length` bytes of zeroed, page-aligned memory, as O_DIRECT needs it; lives as long as a view of it does."""
    return memoryview(mmap.mmap(-1, length))
