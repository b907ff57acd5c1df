"""rsync to an rsync daemon on loopback: whole, and in place with its delta algorithm. Both flush what they wrote."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from rig.loop import run
from rig.ports import free_port, wait_for_port

IN_PLACE = ("--inplace", "--no-whole-file")


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[str]:
    """An rsync daemon whose one module is `folder`; the address of that module."""
    port = free_port()
    config = folder.parent / "rsyncd.conf"
    config.write_text(
        f"use chroot = no\nuid = 0\ngid = 0\nlog file = /dev/null\n[module]\npath = {folder}\nread only = no\n",
        encoding="utf-8",
    )
    server = subprocess.Popen(
        ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={port}", "--address=127.0.0.1"]
    )
    try:
        wait_for_port(port)
        yield f"rsync://127.0.0.1:{port}/module/"
    finally:
        server.terminate()
        server.wait(timeout=10)


@contextlib.contextmanager
def copy(source: Path, folder: Path, *options: str) -> Iterator[Callable[[], object]]:
    """Start the receiving side over `folder / "rsync"`; yields the copy of `source` into it, ready to run."""
    target = folder / "rsync"
    target.mkdir(exist_ok=True)
    with daemon(target) as address:
        # --ignore-times: the second file of a size may be written within the clock's tick of the first.
        command: list[str | Path] = ["rsync", "--fsync", "--ignore-times", *options, source, address]
        yield lambda: run(*command)
