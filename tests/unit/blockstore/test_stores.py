"""The suite that every kind of store passes, on a real file and on a real loop device, and who is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from power_disk import PowerDisk

from blockstore.disk import Disk, DiskFile
from blockstore.errors import (
    StoreExists,
    StoreFlushFailed,
    StoreInUse,
    StoreKindRefused,
    StoreMissing,
    StoreNotAllowed,
)
from blockstore.stores.base import BlockStore
from blockstore.stores.kinds import make_store, open_store

FILE_SIZE = (1 << 20) + 1000
LOOP_SIZE = (1 << 20) + 3 * 512

Losetup = Callable[..., str]


@pytest.fixture
def losetup() -> Iterator[Losetup]:
    """Put a file behind a loop device; all are detached at the end."""
    devices: list[str] = []

    def attach(path: Path, *options: str) -> str:
        command = ["losetup", "--find", "--show", *options, str(path)]
        devices.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        return devices[-1]

    yield attach
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture(params=["file", "device"])
def path(request: pytest.FixtureRequest, tmp_path: Path, losetup: Losetup) -> str:
    plain = tmp_path / "store"
    make_store(Disk(), str(plain), FILE_SIZE if request.param == "file" else LOOP_SIZE)
    return str(plain) if request.param == "file" else losetup(plain)


@pytest.fixture
def store(path: str) -> Iterator[BlockStore]:
    opened = open_store(Disk(), path)
    yield opened
    opened.close()


def content(store: BlockStore) -> bytes:
    buffer = memoryview(bytearray(store.size_bytes))
    store.read_into(buffer, 0)
    return bytes(buffer)


def test_what_is_written_is_read(store: BlockStore) -> None:
    store.write(b"abc" * 1000, 4095)
    buffer = memoryview(bytearray(3000))
    store.read_into(buffer, 4095)
    assert bytes(buffer) == b"abc" * 1000
    assert store.read_cached(buffer, 4095)
    assert store.size_bytes in (FILE_SIZE, LOOP_SIZE)


def test_the_short_last_block_reads_padded_with_zeros(store: BlockStore) -> None:
    last = store.size_bytes // 4096 * 4096
    inside = store.size_bytes - last
    store.write(b"x" * inside, last)
    for read in (store.read_into, store.read_cached):
        buffer = memoryview(bytearray(b"?" * 4096))
        read(buffer, last)
        assert bytes(buffer) == b"x" * inside + bytes(4096 - inside)


def test_reading_only_behind_the_end_gives_zeros(store: BlockStore) -> None:
    for read in (store.read_into, store.read_cached):
        buffer = memoryview(bytearray(b"?" * 4096))
        read(buffer, store.size_bytes + 4096)
        assert not any(buffer)


def test_what_would_be_written_behind_the_end_is_left_out(store: BlockStore) -> None:
    last = store.size_bytes // 4096 * 4096
    store.write(b"y" * 4096, last)
    store.write(b"z" * 4096, store.size_bytes + 4096)
    assert content(store)[last:] == b"y" * (store.size_bytes - last)
    assert store.file.size() == store.size_bytes


@pytest.mark.parametrize("how", ["punch", "write", "discard"])
def test_zeroing_changes_exactly_its_range(store: BlockStore, how: str, seed: int) -> None:
    random = Random(seed)
    expected = bytearray(random.randbytes(store.size_bytes))
    store.write(bytes(expected), 0)
    for _ in range(60):
        offset = random.randrange(store.size_bytes)
        length = min(random.choice([1, 511, 512, 4096, 9000, 70000]), store.size_bytes - offset)
        if how == "discard":
            store.discard(offset, length)
        else:
            store.zero(offset, length, how == "punch")
        expected[offset : offset + length] = bytes(length)
        assert content(store) == expected
    store.discard(0, store.size_bytes)
    assert not any(content(store))


def test_a_store_that_cannot_punch_writes_zeros(path: str) -> None:
    class NoPunch(Disk):
        def open(self, *args: object, **kwargs: object) -> DiskFile:
            file = super().open(*args, **kwargs)  # type: ignore[arg-type]

            def punch(offset: int, length: int) -> None:
                raise OSError(errno.EOPNOTSUPP, "not here")

            file.punch = punch  # type: ignore[method-assign]
            return file

    store = open_store(NoPunch(), path)
    expected = bytearray(b"q" * store.size_bytes)
    store.write(bytes(expected), 0)
    for offset, length in ((100, 20000), (8192, 8192), (0, 5000)):
        store.discard(offset, length)
        expected[offset : offset + length] = bytes(length)
        assert content(store) == expected
    store.close()


def test_other_errors_of_a_punch_are_not_papered_over(path: str) -> None:
    store = open_store(Disk(), path)

    def punch(offset: int, length: int) -> None:
        raise OSError(errno.EIO, "bad")

    store.file.punch = punch  # type: ignore[method-assign]
    with pytest.raises(OSError, match="bad"):
        store.zero(0, 8192)
    store.close()


def test_data_ranges_end_with_the_store(store: BlockStore) -> None:
    ranges = list(store.data_ranges(0, store.size_bytes + (1 << 20)))
    assert ranges[0][0] == 0
    assert ranges[-1][0] + ranges[-1][1] == store.size_bytes
    assert not list(store.data_ranges(store.size_bytes, 4096))


@pytest.mark.parametrize("cut", [1000, 512, 4096, 5000, 1])
def test_a_store_narrowed_to_its_volume_reads_and_changes_nothing_behind_it(store: BlockStore, cut: int) -> None:
    whole, size = store.size_bytes, store.size_bytes - cut
    store.write(b"k" * whole, 0)
    store.narrow(size)
    last = size // 4096 * 4096
    for read in (store.read_into, store.read_cached):
        buffer = memoryview(bytearray(b"?" * 8192))
        read(buffer, last)
        assert bytes(buffer) == b"k" * (size - last) + bytes(8192 - (size - last))
    store.write(b"w" * 8192, last)
    store.write(b"w" * 8192, size)
    store.zero(last, 8192)
    store.zero(last, 8192, may_punch=False)
    store.discard(0, whole)
    assert not any(content(store))
    assert sum(length for _, length, _ in store.data_ranges(0, whole)) == size
    assert store.identity().size_bytes == whole == store.file.size()
    assert store.file.read(cut, size) == b"k" * cut


def test_a_durable_write_that_fails_leaves_no_flush_to_be_believed(store: BlockStore) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write, store.file.write = store.file.write, broken  # type: ignore[assignment]
    with pytest.raises(StoreFlushFailed):
        store.write(b"1", 0, durable=True)
    store.file.write = write  # type: ignore[method-assign]
    with pytest.raises(StoreFlushFailed):
        store.flush()


def test_a_full_disk_is_not_a_failed_flush(store: BlockStore) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store.file.write = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space"):
        store.write(b"1", 0, durable=True)
    store.flush()


def test_a_store_is_opened_once(store: BlockStore, path: str) -> None:
    with pytest.raises(StoreInUse) as refused:
        open_store(Disk(), path)
    assert path in refused.value.message


def test_a_closed_store_can_be_opened_again(path: str) -> None:
    for _ in range(2):
        open_store(Disk(), path).close()


def test_space_of_a_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "store"
    make_store(Disk(), str(path), 1 << 20)
    assert path.stat().st_blocks == 0
    store = open_store(Disk(), str(path))
    store.write(b"1" * (1 << 20), 0)
    store.flush()
    store.discard(0, 1 << 20)
    store.flush()
    assert path.stat().st_blocks == 0
    store.close()


def test_a_new_store_is_durable_with_its_name(tmp_path: Path) -> None:
    disk = PowerDisk()
    make_store(disk, str(tmp_path / "new"), 5000)
    assert disk.syncs == ["new", tmp_path.name]
    assert (tmp_path / "new").read_bytes() == bytes(5000)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_nothing_is_made_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    with pytest.raises(StoreExists):
        make_store(Disk(), str(tmp_path / "there"), 5000)
    assert (tmp_path / "there").read_bytes() == b"mine"


@pytest.mark.parametrize(("name", "size"), [("no/folder", 4096), ("huge", 1 << 62)])
def test_a_store_that_cannot_be_made_is_refused_and_leaves_nothing(tmp_path: Path, name: str, size: int) -> None:
    with pytest.raises(StoreKindRefused):
        make_store(Disk(), str(tmp_path / name), size)
    assert not list(tmp_path.iterdir())


def test_a_missing_store_is_called_missing(tmp_path: Path) -> None:
    for name in ("none", "none/below"):
        with pytest.raises(StoreMissing):
            open_store(Disk(), str(tmp_path / name))


def test_only_files_and_block_devices_are_stores(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path), str(tmp_path / "fifo"), "/dev/null"):
        with pytest.raises(StoreKindRefused):
            open_store(Disk(), path)


def test_a_store_that_may_not_be_written_is_refused(tmp_path: Path, losetup: Losetup) -> None:
    make_store(Disk(), str(tmp_path / "store"), LOOP_SIZE)
    with pytest.raises(StoreNotAllowed):
        open_store(Disk(), losetup(tmp_path / "store", "--read-only"))


def test_a_file_behind_a_loop_device_is_refused(tmp_path: Path, losetup: Losetup) -> None:
    make_store(Disk(), str(tmp_path / "store"), LOOP_SIZE)
    device = losetup(tmp_path / "store")
    os.link(tmp_path / "store", tmp_path / "other name")
    for name in ("store", "other name"):
        with pytest.raises(StoreInUse) as refused:
            open_store(Disk(), str(tmp_path / name))
        assert device in refused.value.message


def test_a_loop_device_on_a_store_is_refused(tmp_path: Path, losetup: Losetup) -> None:
    make_store(Disk(), str(tmp_path / "store"), LOOP_SIZE)
    store = open_store(Disk(), str(tmp_path / "store"))
    device = losetup(tmp_path / "store")
    with pytest.raises(StoreInUse) as refused:
        open_store(Disk(), device)
    assert str(tmp_path / "store") in refused.value.message
    store.close()
    open_store(Disk(), device).close()


def test_a_mounted_device_is_refused(tmp_path: Path, losetup: Losetup) -> None:
    make_store(Disk(), str(tmp_path / "store"), 8 << 20)
    device = losetup(tmp_path / "store")
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    (tmp_path / "mounted").mkdir()
    subprocess.run(["mount", device, str(tmp_path / "mounted")], check=True)
    try:
        with pytest.raises(StoreInUse):
            open_store(Disk(), device)
    finally:
        subprocess.run(["umount", str(tmp_path / "mounted")], check=True)
    open_store(Disk(), device).close()


@pytest.mark.parametrize("lock", ["flock", "ofd"])
def test_a_file_that_another_process_has_locked_is_refused(tmp_path: Path, lock: str) -> None:
    path = tmp_path / "store"
    make_store(Disk(), str(path), 4096)
    record = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    take = "fcntl.flock(f, fcntl.LOCK_EX)" if lock == "flock" else f"fcntl.fcntl(f, 37, {record!r})"
    program = (
        f"import fcntl, sys; f = open({str(path)!r}, 'r+b'); {take}; print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(StoreInUse):
        open_store(Disk(), str(path))
    holder.communicate()
    open_store(Disk(), str(path)).close()


def test_a_file_written_behind_our_back_looks_different(tmp_path: Path) -> None:
    path = tmp_path / "store"
    make_store(Disk(), str(path), 8192)
    store = open_store(Disk(), str(path))
    before = store.identity()
    assert store.identity() == before
    with path.open("r+b") as other:
        other.write(b"!")
    assert store.identity() != before
    store.close()


def test_a_device_is_known_by_its_number(tmp_path: Path, losetup: Losetup) -> None:
    make_store(Disk(), str(tmp_path / "store"), LOOP_SIZE)
    device = losetup(tmp_path / "store")
    store = open_store(Disk(), device)
    assert store.kind == "device"
    assert store.identity() == (LOOP_SIZE, os.stat(device).st_rdev, 0, 0)
    store.drop_cache()
    store.close()
