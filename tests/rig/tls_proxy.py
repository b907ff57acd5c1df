"""A TCP proxy on loopback that sees no more of TLS than anybody on the path: records, and who sent them.

with TlsProxy(west.listen) as proxy:
    proxy.is_mute = True        # what the target says after its handshake is swallowed
    proxy.is_down = True        # new connections end at once
    proxy.cut()                 # all connections end

The first record of application data that a client of TLS 1.3 sends is the end of its handshake. Whatever a server that
gives no tickets says after that is the answer to what the client said.
"""

from __future__ import annotations

import contextlib
import socket
import threading

_APPLICATION_DATA = 23
_RECORD_HEAD = 5


class TlsProxy:
    """Forwards every connection to `target` ("HOST:PORT"), which may come and go."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_mute = False
        self.is_down = False
        self.swallowed = 0
        """Bytes of answers that were swallowed."""
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections."""
        open_now, self._open = self._open, []
        for connection in open_now:
            with contextlib.suppress(OSError):  # ended by itself meanwhile
                connection.shutdown(socket.SHUT_RDWR)

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
                near.close()
                continue
            self._open += [near, far]
            spoke = threading.Event()
            threading.Thread(target=self._towards_target, args=(near, far, spoke), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near, spoke), daemon=True).start()

    @staticmethod
    def _towards_target(source: socket.socket, target: socket.socket, spoke: threading.Event) -> None:
        """Record by record: its kind is its first byte."""
        with contextlib.suppress(OSError), source, target:  # either end may go at any time
            while head := _exactly(source, _RECORD_HEAD):
                if head[0] == _APPLICATION_DATA:
                    spoke.set()
                target.sendall(head + _exactly(source, int.from_bytes(head[3:], "big")))

    def _back(self, source: socket.socket, target: socket.socket, spoke: threading.Event) -> None:
        with contextlib.suppress(OSError), source, target:  # likewise
            while data := source.recv(65536):
                if self.is_mute and spoke.is_set():
                    self.swallowed += len(data)
                else:
                    target.sendall(data)

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        self.cut()

    def __enter__(self) -> TlsProxy:
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
