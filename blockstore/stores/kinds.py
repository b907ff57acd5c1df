"""The table of store kinds: which kind a path is, exclusive use of it, and making a new one.

This module must never change what is in a store, and never open one without its locks. Locks: flock(2) and
OFD locks of fcntl(2) on files, O_EXCL on devices; loop(4) and its sysfs files tell what a loop device stands on.
"""

from __future__ import annotations

import errno
import os.path
import stat

from blockstore.disk import Disk, DiskFile
from blockstore.errors import StoreExists, StoreInUse, StoreKindRefused, StoreMissing, StoreNotAllowed
from blockstore.stores.base import BlockStore
from blockstore.stores.device import DeviceStore
from blockstore.stores.file import FileStore

_SYSFS = "/sys/block"


def make_store(disk: Disk, path: str, size_bytes: int) -> None:
    """Make a sparse file of `size_bytes` zeros at `path`, its name and size durable.

    Raises StoreExists, StoreNotAllowed, StoreKindRefused; OSError ENOSPC.
    """
    try:
        file = disk.open(path, create=True)
    except FileExistsError as error:
        raise StoreExists(path=path) from error
    except PermissionError as error:
        raise StoreNotAllowed(path=path, reason=str(error.strerror)) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreKindRefused(path=path, reason="its folder does not exist") from error
    try:
        file.truncate(size_bytes)
        file.sync()
        disk.sync_dir(os.path.dirname(path) or ".")
    except OSError as error:
        disk.unlink(path)
        if error.errno in (errno.EFBIG, errno.EINVAL):
            raise StoreKindRefused(path=path, reason=f"a file of {size_bytes} bytes is not possible there") from error
        raise
    finally:
        file.close()


def open_store(disk: Disk, path: str) -> BlockStore:
    """Open the store at `path` for this process alone.

    Raises StoreMissing, StoreKindRefused, StoreNotAllowed, StoreInUse.
    """
    try:
        mode = disk.status(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreMissing(path=path) from error
    except OSError as error:
        raise StoreNotAllowed(path=path, reason=str(error.strerror)) from error
    if stat.S_ISREG(mode):
        return _open_file(disk, path)
    if stat.S_ISBLK(mode):
        return _open_device(disk, path)
    raise StoreKindRefused(path=path, reason="it is neither a regular file nor a block device")


def _open_file(disk: Disk, path: str) -> FileStore:
    file = _open(disk, path, exclusive=False)
    try:
        if not file.lock():
            raise StoreInUse(path=path, holder="another program, or as another store of this daemon")
        status = file.status()
        loop = _loop_on(disk, (status.st_dev, status.st_ino))
        if loop:
            raise StoreInUse(path=path, holder=f"the loop device {loop}, whose cache is not that of the file")
        return FileStore(file, path)
    except BaseException:
        file.close()
        raise


def _open_device(disk: Disk, path: str) -> DeviceStore:
    file = _open(disk, path, exclusive=True)
    try:
        if file.is_read_only():
            raise StoreNotAllowed(path=path, reason="the device is read-only")
        backing = _backing_of(disk, file.status().st_rdev)
        if backing:
            _refuse_if_store(disk, path, backing)
        return DeviceStore(file, path)
    except BaseException:
        file.close()
        raise


def _open(disk: Disk, path: str, *, exclusive: bool) -> DiskFile:
    try:
        return disk.open(path, exclusive=exclusive)
    except FileNotFoundError as error:
        raise StoreMissing(path=path) from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise StoreInUse(path=path, holder="a mount, the device mapper or another program") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY):
            raise StoreNotAllowed(path=path, reason=str(error.strerror)) from error
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM):
            raise StoreKindRefused(path=path, reason=str(error.strerror)) from error
        raise


def _loop_on(disk: Disk, inode: tuple[int, int]) -> str:
    """The loop device that stands on the file `inode` (device, number); empty if none does."""
    for name in disk.list(_SYSFS):
        if not name.startswith("loop"):
            continue
        backing = _text(disk, f"{_SYSFS}/{name}/loop/backing_file")
        if not backing:
            continue
        try:
            status = disk.status(backing)
        except OSError:  # gone, or " (deleted)": not the file that we have open by a name
            continue
        if (status.st_dev, status.st_ino) == inode:
            return f"/dev/{name}"
    return ""


def _backing_of(disk: Disk, rdev: int) -> str:
    """The file that the loop device `rdev` stands on; empty if it is no loop device."""
    return _text(disk, f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}/loop/backing_file")


def _refuse_if_store(disk: Disk, path: str, backing: str) -> None:
    try:
        file = disk.open(backing, write=False)
    except OSError:  # deleted, or in another mount namespace: nobody here can have it as a store
        return
    try:
        # flock alone: an OFD write lock needs a descriptor for writing, and every store file here holds both
        if not file.lock_shared():
            raise StoreInUse(path=path, holder=f"a store on {backing}, the file it stands on")
    finally:
        file.close()


def _text(disk: Disk, path: str) -> str:
    """The line in the small file `path`, empty if there is none."""
    try:
        file = disk.open(path, write=False)
    except OSError:
        return ""
    try:
        return file.read(4096, 0).decode(errors="surrogateescape").rstrip("\n")
    finally:
        file.close()
