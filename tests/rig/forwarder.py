"""Forwarder: connections on loopback passed on to a target that may come and go; what a proxy for tests is built on."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Forwarder:
    """Forwards every connection to `target` ("HOST:PORT"), both ways, by threads. Subclasses look at what goes through.

    Each connection has an event of its own, `spoke`, for what one direction has to tell the other.
    """

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_down = False
        """True: new connections are closed at once, as if the path were gone."""
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections."""
        open_now, self._open = self._open, []
        for connection in open_now:
            with contextlib.suppress(OSError):  # ended by itself meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def towards_target(self, source: socket.socket, target: socket.socket, spoke: threading.Event) -> None:
        """Pass on what the dialler says, to the end."""
        raise NotImplementedError

    def keeps_back(self, data: bytes, spoke: threading.Event) -> bool:
        """True: this that the target says is swallowed."""
        raise NotImplementedError

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # the listener was closed: the end
            try:
                if self.is_down:
                    raise ConnectionRefusedError
                far = socket.create_connection(self._target)
            except OSError:
                near.close()  # as whoever dials would see it without us
                continue
            self._open += [near, far]
            spoke = threading.Event()
            threading.Thread(target=self._towards, args=(near, far, spoke), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near, spoke), daemon=True).start()

    def _towards(self, source: socket.socket, target: socket.socket, spoke: threading.Event) -> None:
        with contextlib.suppress(OSError), source, target:  # either end may go at any time
            self.towards_target(source, target, spoke)

    def _back(self, source: socket.socket, target: socket.socket, spoke: threading.Event) -> None:
        with contextlib.suppress(OSError), source, target:  # likewise
            while data := source.recv(65536):
                if not self.keeps_back(data, spoke):
                    target.sendall(data)

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exactly(source: socket.socket, count: int) -> bytes:
    """`count` bytes; empty at the end of the stream."""
    data = bytearray()
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)
