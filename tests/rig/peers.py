"""Other people's NBD servers, as second opinions and as contenders: nbdkit and qemu-nbd on loopback or a socket."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from rig.ports import free_port, wait_for_port


@contextlib.contextmanager
def nbdkit(*arguments: str | Path, socket: Path | None = None) -> Iterator[str]:
    """nbdkit with these arguments (`"file", path` or `"memory", "64M"`); the URI of its export.

    On a free TCP port of loopback, or on the unix socket `socket`.
    """
    port = free_port()
    where = ["-U", str(socket)] if socket else ["-i", "127.0.0.1", "-p", str(port)]
    with _running(["nbdkit", "-f", *where, *map(str, arguments)], port, socket):
        yield f"nbd+unix:///?socket={socket}" if socket else f"nbd://127.0.0.1:{port}/"


@contextlib.contextmanager
def qemu_nbd(path: Path, *arguments: str, socket: Path | None = None) -> Iterator[str]:
    """qemu-nbd serving the raw file `path`, for several clients; the URI of its export."""
    port = free_port()
    where = ["-k", str(socket)] if socket else ["-b", "127.0.0.1", "-p", str(port)]
    command = ["qemu-nbd", "-f", "raw", "--persistent", "--shared=16", *where, *arguments, str(path)]
    with _running(command, port, socket):
        yield f"nbd+unix:///?socket={socket}" if socket else f"nbd://127.0.0.1:{port}/"


@contextlib.contextmanager
def _running(command: list[str], port: int, socket: Path | None) -> Iterator[None]:
    """The server as a process of ours, from the moment it answers until the block ends."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        if socket is None:
            wait_for_port(port)
        else:
            _wait_for_socket(socket, server)
        yield
    finally:
        server.kill()  # nbdkit waits for its clients when it is asked politely
        server.wait(timeout=10)


def _wait_for_socket(path: Path, server: subprocess.Popen[bytes], timeout_s: float = 10) -> None:
    """Until `path` takes a connection: the file is there from the bind, before the server listens."""
    deadline = time.monotonic() + timeout_s
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        assert server.poll() is None, f"the server for {path} ended with {server.returncode}"
        assert time.monotonic() < deadline, f"no server at {path} after {timeout_s} s"
        time.sleep(0.01)  # between two looks at a condition
