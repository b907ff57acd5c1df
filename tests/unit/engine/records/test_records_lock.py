"""The lock of a data directory: one daemon, on a file system that keeps its word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockstore.disk import Disk
from engine.errors import EXIT_REFUSED, DataInUse, DataRefused, NotInitialised
from engine.records.lock import DataLock

HOLD = """
import sys
from engine.records.lock import DataLock
with DataLock.take(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


class ElsewhereDisk(Disk):
    """Says that every folder lies on the file system with this magic."""

    def __init__(self, magic: int) -> None:
        self.magic = magic

    def file_system_type(self, folder: str) -> int:
        return self.magic


def test_a_second_lock_is_refused_with_the_holder(tmp_path: Path) -> None:
    with DataLock.take(str(tmp_path)), pytest.raises(DataInUse) as caught:
        DataLock.take(str(tmp_path))
    assert caught.value.holder == f"process {os.getpid()}"
    assert caught.value.exit_status == EXIT_REFUSED


def test_another_process_is_refused_until_the_holder_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataInUse, match=f"process {holder.pid}"):
            DataLock.take(str(tmp_path))
        holder.kill()
        holder.wait()
        DataLock.take(str(tmp_path)).release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    lock = DataLock.take(str(tmp_path))
    lock.release()
    lock.release()
    with DataLock.take(str(tmp_path)):
        pass


def test_rubbish_in_the_lock_file_is_no_holder(tmp_path: Path) -> None:
    with DataLock.take(str(tmp_path)):
        (tmp_path / "lock").write_bytes(b"\xff\x00rubbish")
        with pytest.raises(DataInUse, match="another process"):
            DataLock.take(str(tmp_path))


def test_a_missing_directory_holds_no_site(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised):
        DataLock.take(str(tmp_path / "missing"))


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataRefused):
        DataLock.take(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("magic", "name"), [(0x6969, "NFS"), (0xFF534D42, "CIFS"), (0x01021997, "9p"), (0x65735546, "FUSE")]
)
def test_a_remote_file_system_is_refused(tmp_path: Path, magic: int, name: str) -> None:
    with pytest.raises(DataRefused, match=f"it lies on {name}"):
        DataLock.take(str(tmp_path), ElsewhereDisk(magic))
    assert list(tmp_path.iterdir()) == []


def test_the_real_type_of_a_file_system_is_read() -> None:
    assert Disk().file_system_type("/proc") == 0x9FA0
