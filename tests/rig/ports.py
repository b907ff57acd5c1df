"""Free TCP ports on loopback, never the same one twice in a run.

The kernel picks a port that nobody listens on. It stays ours until the daemon takes it only by good manners, so
every port comes from below the range that outgoing connections are given, and every process of an xdist run
walks its own part of it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

FIRST, END = 16000, 32000  # Linux gives outgoing connections 32768 and up
WORKERS = 8


def _candidates() -> Iterator[int]:
    """Every port of this process's part, from a place that differs from run to run, round and round."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    part = (END - FIRST) // WORKERS
    at = (os.getpid() * 37) % part
    while True:
        yield FIRST + worker * part + at
        at = (at + 1) % part


_ports = _candidates()


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on `host` that nobody listens on."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable: the candidates never end")


def can_connect(port: int, host: str = "127.0.0.1") -> bool:
    """True if somebody listens on the port now."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def wait_for_port(port: int, host: str = "127.0.0.1", timeout_s: float = 10) -> None:
    """Return when somebody listens on the port. TimeoutError if nobody does in time."""
    deadline = time.monotonic() + timeout_s
    while not can_connect(port, host):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on {host}:{port} after {timeout_s} s")
        time.sleep(0.01)  # between two looks at a condition
