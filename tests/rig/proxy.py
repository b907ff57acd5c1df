"""A TCP proxy on loopback that understands the frames of a plain link just enough to cut at a message.

with Proxy(west.listen) as proxy:
    proxy.mute_after(SEAL)          # answers are swallowed once this message of the dialler went through
    ... proxy.has_muted ...
    proxy.alter_next(SEAL, change)  # the next such message goes on as `change` returns it
    proxy.cut()                     # all connections end; later ones pass unharmed
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

from rig.forwarder import Forwarder, exactly

SEAL = 40
_PREFIX_BYTES = 32


class Proxy(Forwarder):
    """Between two sites that talk plainly; for one of them to dial."""

    def __init__(self, target: str) -> None:
        self._mute_at = 0
        self._alter: tuple[int, Callable[[bytes], bytes]] | None = None
        self._muted = threading.Event()
        super().__init__(target)

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
        super().cut()

    def towards_target(self, source: socket.socket, target: socket.socket, spoke: threading.Event) -> None:
        """Frame by frame, for the kind of a message stands in its prefix."""
        while prefix := exactly(source, _PREFIX_BYTES):
            kind = prefix[4]
            header, _, payload = struct.unpack_from("<IIQ", prefix, 8)
            frame = prefix + exactly(source, header + payload)
            if kind == self._mute_at:
                self._muted.set()
            if self._alter is not None and self._alter[0] == kind:
                (_, change), self._alter = self._alter, None
                frame = change(frame)
            target.sendall(frame)

    def keeps_back(self, data: bytes, spoke: threading.Event) -> bool:
        """See Forwarder.keeps_back."""
        return self._muted.is_set()
