"""A TCP proxy on loopback that sees no more of TLS than anybody on the path: records, and who sent them.

with TlsProxy(west.listen) as proxy:
    proxy.is_mute = True        # what the target says after its handshake is swallowed
    proxy.is_down = True        # new connections end at once
    proxy.cut()                 # all connections end

The first record of application data that a client of TLS 1.3 sends is the end of its handshake. Whatever a server that
gives no tickets says after that is the answer to what the client said.
"""

from __future__ import annotations

import socket
import threading

from rig.forwarder import Forwarder, exactly

_APPLICATION_DATA = 23
_RECORD_HEAD = 5


class TlsProxy(Forwarder):
    """Between two sites that talk by TLS; for one of them to dial."""

    def __init__(self, target: str) -> None:
        self.is_mute = False
        self.swallowed = 0
        """Bytes of answers that were swallowed."""
        super().__init__(target)

    def towards_target(self, source: socket.socket, target: socket.socket, spoke: threading.Event) -> None:
        """Record by record: its kind is its first byte."""
        while head := exactly(source, _RECORD_HEAD):
            if head[0] == _APPLICATION_DATA:
                spoke.set()
            target.sendall(head + exactly(source, int.from_bytes(head[3:], "big")))

    def keeps_back(self, data: bytes, spoke: threading.Event) -> bool:
        """See Forwarder.keeps_back."""
        if not (self.is_mute and spoke.is_set()):
            return False
        self.swallowed += len(data)
        return True
