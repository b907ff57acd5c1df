"""Where the API of a data directory is: a unix socket, reachable also under a path too long for a socket's name.

This module must never open a socket, and never import anything outside the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET = "api.sock"
"""The name of the socket in the data directory."""

LONGEST_NAME_BYTES = 107
"""`sun_path` has 108 bytes, the closing zero included (unix(7))."""


@contextmanager
def socket_name(path: Path) -> Iterator[str]:
    """The name to bind or connect with: the path, or a short way through /proc to its folder. Raises OSError."""
    if len(os.fsencode(path)) <= LONGEST_NAME_BYTES:
        yield os.fspath(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
