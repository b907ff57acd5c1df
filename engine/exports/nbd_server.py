"""The NBD server: which exports there are, who uses them, and what an operator hears of it.

An export is presented and withdrawn at run time; its name stays its URI. Withdrawing ends when the last
request in flight is done and the last client is disconnected, so that whoever asked for it may change or close
what lay behind the export. This module must never look into a request.

Plain TCP without authentication, as NBD is: who may reach the port may use the exports. Keep it on loopback
or a storage network.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import quote

from blockstore.errors import LeewardError, WriteRefused
from engine.errors import (
    BadValue,
    ExportFailed,
    NameTaken,
    NbdClientRefused,
    NbdClientsTooMany,
    PortTaken,
    UnknownName,
)
from engine.exports.buffers import Buffers
from engine.exports.nbd_connection import Export, NbdConnection
from engine.exports.nbd_protocol import ExportInfo
from engine.exports.reports import RateLimited, Report

if TYPE_CHECKING:
    from blockstore.layer import BlockIO
    from engine.pool import DiskPool

MAX_CONNECTIONS = 1024
"""Clients at one time. An idle one costs a few KiB and a descriptor."""

BUSY_S = 1.0
"""An export is busy while its last request came in less than this long ago."""

_BACKLOG = 128
_KEEPALIVE_IDLE_S, _KEEPALIVE_EVERY_S, _KEEPALIVE_TRIES = 60, 15, 4
"""A host that vanished is noticed after two minutes; a silent one is left alone for ever."""


class _Exports:
    """The exports by name, in the order in which they were presented. What a handshake sees of them."""

    def __init__(self) -> None:
        self.by_name: dict[str, Export] = {}

    def names(self) -> list[str]:
        return list(self.by_name)

    def find(self, name: str) -> ExportInfo | None:
        export = self.by_name.get(name)
        return export.info if export is not None else None


class NbdServer:
    """Serves `BlockIO` objects to NBD clients. Everything happens on the loop that called `start`.

    `report(level, code, message, details)` is called for what an operator should see; the same thing at most
    once in ten seconds.
    """

    def __init__(self, pool: DiskPool, *, report: Report, handshake_s: float = 30.0) -> None:
        self.pool = pool
        self.handshake_s = handshake_s
        self.buffers = Buffers()
        self.table = _Exports()
        self._report = report
        self._server: asyncio.Server | None = None
        self._connections: dict[NbdConnection, Export | None] = {}
        """Who is connected, and to what; None while an export is being chosen."""
        self._host = ""
        self._port = 0

    async def start(self, host: str, port: int) -> int:
        """Listen on `host`, an address or a name; port 0 takes any. Returns the port.

        Raises PortTaken, or BadValue for an address that is not this host's.
        """
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._limited = RateLimited(self._report, loop.time)
        try:
            server = await loop.create_server(lambda: NbdConnection(self), host, port, backlog=_BACKLOG)
        except OSError as error:
            address = f"{host}:{port}"
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(address=address, what="NBD export") from error
            raise BadValue(what="NBD address", value=address, reason=error.strerror or str(error)) from error
        self._server = server
        self._host = host
        self._port = int(server.sockets[0].getsockname()[1])
        return self._port

    async def close(self) -> None:
        """Stop listening, withdraw everything, disconnect everybody. Once more: does nothing."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for name in self.exports():
            await self.withdraw(name)
        for connection in tuple(self._connections):  # still choosing an export
            await connection.end()
        await server.wait_closed()

    def present(self, name: str, io: BlockIO, *, read_only: bool, description: str = "") -> None:
        """Let clients use `io` under `name`. Raises NameTaken, or BadValue for a name that NBD cannot carry."""
        if not 0 < len(name.encode()) <= 255:
            raise BadValue(what="export name", value=name, reason="it must have 1 to 255 bytes")
        exports = self.table.by_name
        if name in exports:
            raise NameTaken(what="export", name=name)
        exports[name] = Export(ExportInfo(name, io.size_bytes, read_only, description), io)

    async def withdraw(self, name: str) -> None:
        """Take the export back: no new requests, those in flight seen through, its clients disconnected.

        Its name is free at once. Raises UnknownName.
        """
        export = self.table.by_name.pop(name, None)
        if export is None:
            raise UnknownName(what="export", name=name)
        await asyncio.gather(*(connection.end() for connection in export.connections))

    def exports(self) -> list[str]:
        """Names, in the order in which they were presented."""
        return self.table.names()

    def uri(self, name: str) -> str:
        """The NBD URI of an export, presented or not. A wildcard address is shown as loopback."""
        host = self._host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            pass  # a host name stays as it was given
        else:
            if address.is_unspecified:
                host = "127.0.0.1" if address.version == 4 else "::1"
            if address.version == 6:
                host = f"[{host}]"
        return f"nbd://{host}:{self._port}/{quote(name, safe='')}"

    def is_busy(self, name: str) -> bool:
        """True if a request for the export came in within the last second."""
        export = self.table.by_name.get(name)
        return export is not None and self._now() - export.touched_at_s < BUSY_S

    # What follows is asked by connections (nbd_connection.Host).

    def connected(self, connection: NbdConnection) -> bool:
        if self._server is None:
            return False
        if len(self._connections) >= MAX_CONNECTIONS:
            self._limited("warning", NbdClientsTooMany(client=connection.client, limit=MAX_CONNECTIONS), "")
            return False
        self._connections[connection] = None
        sock = connection.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_TRIES)
        return True

    def joined(self, connection: NbdConnection, name: str) -> Export:
        export = self.table.by_name[name]
        export.connections.add(connection)
        self._connections[connection] = export
        return export

    def gone(self, connection: NbdConnection) -> None:
        export = self._connections.pop(connection, None)
        if export is not None:
            export.connections.discard(connection)

    def failed(self, export: str, error: Exception, what: str) -> None:
        if isinstance(error, WriteRefused):
            self._limited("warning", error, export)  # the host is wrong, nothing here is broken
        elif isinstance(error, LeewardError):
            self._limited("error", error, export)
        else:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            self._limited("error", ExportFailed(export=export, request=what, reason=reason), export)

    def violated(self, connection: NbdConnection, reason: str) -> None:
        host = connection.client.rpartition(":")[0]  # one that knocks again and again has another port each time
        self._limited("warning", NbdClientRefused(client=connection.client, reason=reason), host)
