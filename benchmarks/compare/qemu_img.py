"""`qemu-img convert` from a file to `nbdkit file` over TCP on loopback, 16 requests in flight, flushed at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rig.loop import run
from rig.peers import nbdkit


@contextlib.contextmanager
def full_copy(source: Path, folder: Path) -> Iterator[Callable[[], object]]:
    """Start the receiving side with an empty sparse file; yields the copy, ready to run."""
    target = folder / "target"
    with target.open("wb") as file:
        file.truncate(source.stat().st_size)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", "-n", "-W", "-m", "16", "-t", "writeback"]
    with nbdkit("file", target) as uri:
        yield lambda: run(*command, "--target-is-zero", source, uri)
