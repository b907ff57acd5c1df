"""Dialling one peer: whenever there is no link, until there is one, for as long as the peer is wanted.

Attempts follow each other with growing waits that stay below `backoff_most_s`; it never gives up. This module must
never dial while a link stands, and never believe an address: who answers is checked by fingerprint.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Protocol

from engine.clock import Clock
from engine.errors import (
    DialFailed,
    HandshakeFailed,
    LeewardError,
    LinkCrossed,
    PeerFingerprintWrong,
    PeerRefused,
    PlainBeyondLoopback,
)
from engine.link.candidate import Candidate
from engine.link.connecting import connect, secure
from engine.link.peer_link import PeerLink
from engine.link.sockets import discard
from engine.link.timing import Timing
from engine.model import Peer
from engine.wire.messages import Hello, Message


class Home(Protocol):
    """What a dialer needs of the links of its site."""

    @property
    def timing(self) -> Timing: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def client_tls(self) -> ssl.SSLContext: ...

    def hello(self) -> Hello: ...
    def answered(self, dialer: Dialer, candidate: Candidate, message: Message) -> None: ...
    def complain(self, key: str, error: LeewardError, level: str = "warning") -> None: ...


class Dialer:
    """Keeps one peer dialled. `peer` may be replaced by a record with the same route."""

    def __init__(self, home: Home, peer: Peer) -> None:
        self.peer = peer
        self._home = home
        self._timing = home.timing
        self._link: PeerLink | None = None
        self._candidate: Candidate | None = None
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._failures = 0

    def start(self) -> None:
        """Begin to dial; no effect when it has begun."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {self.peer.name}")

    def stop(self) -> None:
        """Do not dial any more. The link that there may be is not touched."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Stop, and return when nothing of it is left."""
        self.stop()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    def hurry(self) -> None:
        """Do not wait for the next attempt."""
        self._failures = 0
        self._hurry.set()

    @property
    def is_finished(self) -> bool:
        return self._task is None or self._task.done()

    @property
    def is_dialling(self) -> bool:
        """Whether a HELLO of ours is out to this peer and not answered yet."""
        return self._candidate is not None and self._candidate.awaits_answer

    def linked(self, link: PeerLink, candidate: Candidate) -> None:
        """A link stands, made of `candidate`, whoever dialled: an attempt of ours that is under way is given up."""
        self._link = link
        if self._candidate is not None and self._candidate is not candidate:
            self._candidate.give_up(LinkCrossed(peer=self.peer.name))

    @property
    def _has_link(self) -> bool:
        return self._link is not None and not self._link.closed.is_set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                if not self._has_link:
                    await self._dial()
            except LeewardError as error:
                self._complain(error)
            if self._link is not None and self._has_link:
                began = loop.time()
                await self._link.closed.wait()
                await self._link.gone()  # a new HELLO ends what the peer has not read of the old link
                if loop.time() - began >= self._timing.steady_s:
                    self._failures = 0
                    continue
            await self._pause()

    def _complain(self, error: LeewardError) -> None:
        if isinstance(error, LinkCrossed) or (isinstance(error, PeerRefused) and error.cause == LinkCrossed.code):
            return  # the peer's own connection is here, or on its way
        level = "error" if isinstance(error, PeerFingerprintWrong | PlainBeyondLoopback | PeerRefused) else "warning"
        self._home.complain(self.peer.name, error, level)

    async def _pause(self) -> None:
        """Wait before the next attempt, unless there is hurry or a link."""
        most = min(self._timing.backoff_most_s, self._timing.backoff_first_s * 2 ** min(self._failures, 16))
        self._failures += 1
        wait_s = most * (1 - self._home.clock.token(1)[0] / 1024)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._hurry.wait()
        self._hurry.clear()

    async def _dial(self) -> None:
        """One attempt. Returns when a link stands. Raises LeewardError."""
        peer = self.peer
        candidate = Candidate(
            peer.address,
            lambda candidate, message: self._home.answered(self, candidate, message),
            linger_s=self._timing.linger_s,
        )
        try:
            async with asyncio.timeout(self._timing.attempt_s):
                connection = await connect(peer.address, self._timing, plain=peer.plain)
                try:
                    await self._wrap(candidate, connection)
                finally:
                    if not candidate.transport.is_connected:
                        discard(connection)
                if self._has_link:
                    return  # the peer was quicker
                self._candidate = candidate
                candidate.greet(self._home.hello())
                await asyncio.shield(candidate.done)
        except ssl.SSLError as error:
            raise HandshakeFailed(address=peer.address, reason=error.reason or str(error)) from error
        except TimeoutError as error:
            reason = f"no answer within {self._timing.attempt_s:g} s"
            raise DialFailed(peer=peer.name, address=peer.address, reason=reason) from error
        except OSError as error:  # the look-up of the name, too
            reason = error.strerror or str(error)
            raise DialFailed(peer=peer.name, address=peer.address, reason=reason) from error
        finally:
            self._candidate = None
            await candidate.let_go()

    async def _wrap(self, candidate: Candidate, connection: socket.socket) -> None:
        """Give the connection to the candidate, with TLS unless the peer is a plain one, and see who answers."""
        if self.peer.plain:
            await asyncio.get_running_loop().create_connection(lambda: candidate.transport, sock=connection)
            return
        await secure(candidate, connection, self._home.client_tls, self._timing)
        found = candidate.fingerprint or ""
        if found != self.peer.fingerprint:
            raise PeerFingerprintWrong(
                peer=self.peer.name, address=self.peer.address, expected=self.peer.fingerprint, found=found
            )
