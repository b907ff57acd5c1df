"""Being dialled: listen, let few strangers in at a time, and give each a short while to say who it is.

A connection that opens with TLS gets TLS; one that opens with the protocol itself is a plain one and must come from
this host. Why somebody was refused is reported here, for in TLS 1.3 the other end may see no more than an end of
file. This module must never spend more on a stranger than a socket, one TLS handshake and one small message.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from functools import partial
from typing import Final, Protocol

from engine.errors import (
    HandshakeFailed,
    LeewardError,
    LinkCrossed,
    ListenFailed,
    PortTaken,
    TooManyStrangers,
)
from engine.link.address import join_address, require_loopback
from engine.link.candidate import Candidate
from engine.link.sockets import discard, tune
from engine.link.timing import Timing
from engine.wire.frames import MAGIC
from engine.wire.messages import Message

_TLS_HANDSHAKE: Final = b"\x16"
"""The first byte of every TLS client (RFC 8446, content type handshake)."""

_BACKLOG: Final = 128
_AT_ONCE: Final = 16
_NO_DESCRIPTORS_PAUSE_S: Final = 1.0


class Home(Protocol):
    """What a listener needs of the links of its site."""

    def accepted(self, candidate: Candidate, message: Message) -> None: ...
    def complain(self, key: str, error: LeewardError, level: str = "warning") -> None: ...


class Listener:
    """Listens on every address that `listen` (host, port) stands for."""

    def __init__(self, home: Home, listen: tuple[str, int], tls: ssl.SSLContext, timing: Timing) -> None:
        self._home = home
        self._host, self._port = listen
        self._tls = tls
        self._timing = timing
        self._sockets: list[socket.socket] = []
        self._strangers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        return bool(self._sockets)

    @property
    def port(self) -> int:
        """The port in use; after `start`."""
        return int(self._sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises PortTaken, ListenFailed."""
        loop = asyncio.get_running_loop()
        where = join_address(self._host, self._port)
        try:
            found = await loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
            )
            for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
                self._sockets.append(_listening(family, address))
        except OSError as error:
            for listening in self._sockets:
                listening.close()
            self._sockets = []
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(address=where, what="link") from error
            raise ListenFailed(address=where, what="link", reason=error.strerror or str(error)) from error
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)

    async def close(self) -> None:
        """Stop listening and send strangers away."""
        loop = asyncio.get_running_loop()
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            loop.remove_reader(listening)
            listening.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_AT_ONCE):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the connection stays in the queue, so asking again at once would spin.
                self._home.complain("listener", ListenFailed("the link port", "link", error.strerror or str(error)))
                loop.remove_reader(listening)
                loop.call_later(_NO_DESCRIPTORS_PAUSE_S, self._listen_again, listening)
                return
            host = str(address[0])
            if not self._admit(host):
                connection.close()
                continue
            connection.setblocking(False)
            where = join_address(host, int(address[1]))
            candidate = Candidate(where, self._home.accepted, linger_s=self._timing.linger_s)
            task = loop.create_task(self._welcome(candidate, connection, host))
            self._tasks.add(task)
            task.add_done_callback(partial(self._leave, candidate, connection, host))

    def _listen_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _admit(self, host: str) -> bool:
        for found, limit in (
            (self._strangers.total(), self._timing.strangers),
            (self._strangers[host], self._timing.strangers_per_address),
        ):
            if found >= limit:
                self._home.complain(host, TooManyStrangers(address=host, limit=limit))
                if not self._strangers[host]:
                    del self._strangers[host]
                return False
        self._strangers[host] += 1
        return True

    async def _welcome(self, candidate: Candidate, connection: socket.socket, host: str) -> None:
        """From a fresh connection to a link, or to a refusal and a closed socket."""
        address = candidate.address
        try:
            await self._meet(candidate, connection)
        except LinkCrossed:
            pass  # the other of two crossing connections stands: nothing is wrong
        except LeewardError as error:
            self._home.complain(host, error)
        except TimeoutError:
            reason = f"it did not say who it is within {self._timing.stranger_s:g} s"
            self._home.complain(host, HandshakeFailed(address=address, reason=reason))
        except ssl.SSLError as error:
            self._home.complain(host, HandshakeFailed(address=address, reason=error.reason or str(error)))
        except OSError as error:
            self._home.complain(host, HandshakeFailed(address=address, reason=error.strerror or str(error)))
        finally:
            await candidate.let_go()

    async def _meet(self, candidate: Candidate, connection: socket.socket) -> None:
        """Find out who it is. Returns when a link stands, or when nothing was said at all."""
        async with asyncio.timeout(self._timing.stranger_s):
            first = await _first_byte(connection)
            if first != b"":  # else a port that was probed and left alone
                await self._wrap(candidate, connection, first)
                await asyncio.shield(candidate.done)

    def _leave(self, candidate: Candidate, connection: socket.socket, host: str, task: asyncio.Task[None]) -> None:
        """A welcome is over, also one that was called off before it began."""
        self._tasks.discard(task)
        if not candidate.transport.is_connected:
            discard(connection)
        self._strangers[host] -= 1
        if not self._strangers[host]:
            del self._strangers[host]

    async def _wrap(self, candidate: Candidate, connection: socket.socket, first: bytes) -> None:
        """Give the connection to the candidate, with TLS if it opens so.

        Raises OSError, HandshakeFailed, PlainBeyondLoopback.
        """
        loop = asyncio.get_running_loop()
        tune(connection, self._timing.user_timeout_s)
        if first == MAGIC[:1]:
            require_loopback(connection.getpeername()[0], connection.getsockname()[0])
            await loop.connect_accepted_socket(lambda: candidate.transport, connection)
        elif first == _TLS_HANDSHAKE:
            await loop.connect_accepted_socket(
                lambda: candidate.transport,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._timing.stranger_s,
                ssl_shutdown_timeout=self._timing.linger_s,
            )
        else:
            raise HandshakeFailed(address=candidate.address, reason=f"it begins with {first!r}, which is no greeting")


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


async def _first_byte(connection: socket.socket) -> bytes:
    """The first byte of the connection, left where it is; empty at its end. Raises OSError."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, arrived)
    try:
        await ready
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)
