"""The options of a link's sockets.

This module must never read or write one.
"""

from __future__ import annotations

import socket
from contextlib import suppress


def tune(connection: socket.socket, user_timeout_s: float) -> None:
    """Small messages leave at once; a peer whose kernel does not acknowledge is noticed. Raises OSError."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_s * 1000))


def discard(connection: socket.socket) -> None:
    """Close a connection that may or may not belong to a transport already.

    A loop that is stopped before its TLS has begun keeps the socket until its handshake times out, unless the stream
    ends.
    """
    with suppress(OSError):  # it may have ended, or never begun
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
