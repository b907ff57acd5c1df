"""Loop devices and the file systems on them, small disks to be filled, released however a test ends. Needs root.

with loop_device(image) as device, mounted(device, folder, read_only=True):
    ...
with small_disk(folder, 64 << 20) as disk:
    disk.leave(3 * 4096)    # so many bytes are free now
    disk.make_room()
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


def run(*command: str | Path, status: int = 0) -> str:
    """Run a program; what it printed. AssertionError with its words when it ends with another status."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def loop_device(image: Path, *, sector_bytes: int = 512, read_only: bool = False) -> Iterator[Path]:
    """A loop device over the file `image` with sectors of 512 or 4096 bytes."""
    flags = ["--read-only"] if read_only else []
    device = Path(run("losetup", "--find", "--show", f"--sector-size={sector_bytes}", *flags, image).strip())
    try:
        yield device
    finally:
        _detach(device)


def _detach(device: Path, timeout_s: float = 10) -> None:
    """Detach and wait until the device is free: a detach lasts as long as somebody has it open."""
    run("losetup", "--detach", device)
    deadline = time.monotonic() + timeout_s
    while device in loops():
        assert time.monotonic() < deadline, f"{device} is still in use {timeout_s} s after its detach"
        time.sleep(0.01)  # between two looks at a condition


def loops() -> dict[Path, Path]:
    """The loop devices in use, and the file behind each."""
    listed = run("losetup", "--list", "--json")
    devices = json.loads(listed)["loopdevices"] if listed.strip() else []
    return {Path(device["name"]): Path(device["back-file"].removesuffix(" (deleted)")) for device in devices}


@contextlib.contextmanager
def mounted(device: Path, folder: Path, *, read_only: bool = False) -> Iterator[Path]:
    """The file system on `device`, mounted at `folder`, which is made if it is missing.

    `read_only` leaves the device as it is: no journal is replayed (ext4 `noload`, XFS `norecovery`).
    """
    folder.mkdir(exist_ok=True)
    options = []
    if read_only:
        kind = run("blkid", "--probe", "--output", "value", "--match-tag", "TYPE", device).strip()
        options = ["--options", {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"}[kind]]
    run("mount", *options, device, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


class SmallDisk:
    """A tmpfs that a test fills to the page: what is free is what the next writers find."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fillers: list[Path] = []

    @property
    def free_bytes(self) -> int:
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize

    def leave(self, free_bytes: int) -> None:
        """Fill it until only `free_bytes`, a multiple of 4096, are left; it may have fewer already."""
        filler = self._folder / f"filler{len(self._fillers)}"
        self._fillers.append(filler)
        with filler.open("wb") as file:
            if self.free_bytes > free_bytes:
                os.posix_fallocate(file.fileno(), 0, self.free_bytes - free_bytes)

    def make_room(self) -> None:
        """Remove what `leave` filled it with."""
        while self._fillers:
            self._fillers.pop().unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A tmpfs of `size_bytes` at `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", folder)
    try:
        yield SmallDisk(folder)
    finally:
        run("umount", folder)
