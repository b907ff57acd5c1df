"""The options of a link's sockets.

This module must never read or write one.
"""

from __future__ import annotations

import socket


def tune(connection: socket.socket, user_timeout_s: float) -> None:
    """Small messages leave at once; a peer whose kernel does not acknowledge is noticed. Raises OSError."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_s * 1000))
