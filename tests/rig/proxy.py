"""A TCP proxy on loopback that understands the frames of a plain link just enough to cut at a message.

with Proxy(west.listen) as proxy:
    proxy.mute_after(SEAL)          # answers are swallowed once this message of the dialler went through
    ... proxy.has_muted ...
    proxy.alter_next(SEAL, change)  # the next such message goes on as `change` returns it
    proxy.cut()                     # all connections end; later ones pass unharmed
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

SEAL = 40
_PREFIX_BYTES = 32


class Proxy:
    """Forwards every connection to `target` ("HOST:PORT")."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._mute_at = 0
        self._alter: tuple[int, Callable[[bytes], bytes]] | None = None
        self._muted = threading.Event()
        self._open: list[socket.socket] = []
        self.is_down = False
        """True: new connections are closed at once, as if the path were gone."""
        threading.Thread(target=self._accept, daemon=True).start()

    def mute_after(self, kind: int) -> None:
        """Swallow what the target says as soon as a message of type `kind` was forwarded to it."""
        self._mute_at = kind

    def alter_next(self, kind: int, change: Callable[[bytes], bytes]) -> None:
        """Forward `change(frame)` in place of the next message of type `kind`: prefix, header and payload."""
        self._alter = kind, change

    @property
    def has_muted(self) -> bool:
        """True once that message went through."""
        return self._muted.is_set()

    def cut(self) -> None:
        """End all connections; later ones are forwarded whole."""
        self._mute_at = 0
        self._muted.clear()
        open_now, self._open = self._open, []
        for connection in open_now:
            with contextlib.suppress(OSError):  # ended by itself meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                if self.is_down:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
            except ConnectionRefusedError:
                near.close()
                continue
            except OSError:
                return  # the listener was closed: the end
            self._open += [near, far]
            threading.Thread(target=self._towards_target, args=(near, far), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()

    def _towards_target(self, source: socket.socket, target: socket.socket) -> None:
        """Frame by frame, for the kind of a message stands in its prefix."""
        with contextlib.suppress(OSError), source, target:  # either end may go at any time
            while prefix := _exactly(source, _PREFIX_BYTES):
                kind = prefix[4]
                header, _, payload = struct.unpack_from("<IIQ", prefix, 8)
                body = _exactly(source, header + payload)
                if kind == self._mute_at:
                    self._muted.set()
                frame = prefix + body
                if self._alter is not None and self._alter[0] == kind:
                    (_, change), self._alter = self._alter, None
                    frame = change(frame)
                target.sendall(frame)

    def _back(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:  # likewise
            while data := source.recv(65536):
                if not self._muted.is_set():
                    target.sendall(data)

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _exactly(source: socket.socket, count: int) -> bytes:
    """`count` bytes; empty at the end of the stream."""
    data = bytearray()
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)
