"""One NBD client: its connection from greeting to farewell, and how fast it may go.

A client whose requests or buffers in flight are too many is not read from until some are done. What it sends
is cut up by `nbd_inbox`, served by `nbd_reads` and `nbd_writes` and answered by `nbd_outbox`. This module must
never judge a request (`nbd_protocol` does) nor know which exports there are (`nbd_server` does).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from engine.exports.buffers import Buffers, Lease
from engine.exports.nbd_exchange import Exchange
from engine.exports.nbd_handshake import ExportTable, Handshake
from engine.exports.nbd_inbox import Inbox, Served
from engine.exports.nbd_outbox import Outbox
from engine.exports.nbd_protocol import ExportInfo, Transmission, Violation

if TYPE_CHECKING:
    from blockstore.layer import BlockIO
    from engine.pool import DiskPool

FAREWELL_S = 1.0
"""Seconds that a client which is sent off has to take the last replies."""

MAX_REQUESTS = 128
"""Requests in flight above which no more are begun. One pass may add up to 256."""


@dataclass(eq=False, slots=True)
class Export:
    """What is presented under a name, and who uses it now."""

    info: ExportInfo
    io: BlockIO
    connections: set[NbdConnection] = field(default_factory=set)
    touched_at_s: float = float("-inf")
    """When a request last came in, by the loop's clock."""


class Host(Protocol):
    """What a connection asks of its server."""

    buffers: Buffers
    pool: DiskPool
    handshake_s: float
    """Seconds that a client may take to choose an export."""

    @property
    def table(self) -> ExportTable:
        """The exports that there are."""

    def connected(self, connection: NbdConnection) -> bool:
        """A client has connected. False: there is no place for it."""

    def joined(self, connection: NbdConnection, name: str) -> Export:
        """The client chose that export, which is presented now."""

    def failed(self, export: str, error: Exception, what: str) -> None:
        """A request failed with `error`; `what` is the request in words."""

    def violated(self, connection: NbdConnection, reason: str) -> None:
        """The client does not keep to the protocol, and is being disconnected."""

    def gone(self, connection: NbdConnection) -> None:
        """The socket is closed and no request is in flight any more. Called once."""


class NbdConnection(asyncio.BufferedProtocol):
    """Everything happens on the loop. `client` is the address in words."""

    def __init__(self, host: Host) -> None:
        self.client = "unknown"
        self._host = host
        self._lease = Lease(host.buffers)
        self._inbox = Inbox(self._lease)
        self._handshake: Handshake | None = Handshake(host.table)
        self._exchange: Exchange | None = None
        self._served: Served | None = None
        self._export: Export | None = None
        self._ending = False
        self._farewell: asyncio.Task[None] | None = None
        self._working = False
        self._reading = True
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from it
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        address = transport.get_extra_info("peername")
        self.client = f"{address[0]}:{address[1]}" if address else "unknown"
        self._outbox = Outbox(transport, self._lease)
        self._deadline = self._loop.call_later(self._host.handshake_s, self._too_slow)
        self.socket = transport.get_extra_info("socket")
        if self._host.connected(self):
            self._work()
        else:
            self.send_off()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._inbox.next_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._inbox.received(nbytes):
            self._work()

    def eof_received(self) -> bool:
        """The client sends no more. What it asked for is still answered; then the transport is closed."""
        if self._exchange is None or not self._exchange.in_flight:
            return False
        self._say_farewell()
        return True

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        self._outbox.resume()
        self._made_progress()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._ending = True
        self._outbox.close()
        self._inbox.close()
        if self._exchange is not None:
            self._exchange.stop()
        self._lost.set()
        self._gone_if_done()

    def _work(self) -> None:
        """Eat what was received as far as the limits allow, answer, then read on or wait for progress."""
        self._working = False
        if self._ending:
            self._outbox.flush()
            return
        try:
            more = self._shake(self._handshake) if self._handshake is not None else self._serve()
        except Violation as problem:
            self.send_off()
            self._host.violated(self, problem.reason)
            return
        self._outbox.flush()
        self._inbox.tidy(more=more)
        self._pace(more)

    def _shake(self, handshake: Handshake) -> bool:
        """Go on with the handshake. True: there is more to eat once the answers are sent."""
        self._inbox.shake(handshake)
        crowded = handshake.crowded
        self._outbox.send(memoryview(handshake.take()), None)
        if handshake.left:
            self._say_farewell()
        elif handshake.transmission is not None:
            self._deadline.cancel()
            self._handshake = None
            self._begin(handshake.transmission)
            return self._serve()
        return crowded

    def _begin(self, transmission: Transmission) -> None:
        self._export = self._host.joined(self, transmission.export.name)
        self._exchange = Exchange(
            transmission,
            self._export.io,
            self._host.pool,
            self._outbox,
            self._lease,
            self._request_failed,
            self._made_progress,
        )
        self._served = Served(self._exchange)

    def _serve(self) -> bool:
        """One pass over the requests. True: there are more to serve."""
        served, export = self._served, self._export
        assert served is not None, "the handshake is over"
        assert export is not None, "the handshake is over"
        export.touched_at_s = self._loop.time()
        if self._full:
            return True
        more = self._inbox.serve(served)
        if self._inbox.left:
            self._say_farewell()
        return more

    @property
    def _full(self) -> bool:
        """True: begin no request until something is done."""
        if self._outbox.blocked or self._lease.full:
            return True
        return self._exchange is not None and self._exchange.in_flight >= MAX_REQUESTS

    def _pace(self, more: bool) -> None:
        """Read on, or, with `more` to do first, go on with that: now if nothing is full, else at progress."""
        if more or self._ending:
            if self._reading:
                self._reading = False
                self._transport.pause_reading()
            if more and not self._full:
                self._work_soon()
        elif not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _work_soon(self) -> None:
        if not self._working:
            self._working = True
            self._loop.call_soon(self._work)

    def _made_progress(self) -> None:
        """A request in flight ended, or the client took its replies."""
        if self._exchange is not None:
            self._exchange.made_room()
        if self._lost.is_set():
            self._gone_if_done()
        else:
            # Once per tick, however many requests ended in it: `_work` sends their replies in one call.
            self._work_soon()

    def _request_failed(self, error: Exception, what: str) -> None:
        assert self._export is not None, "the handshake is over"
        self._host.failed(self._export.info.name, error, what)

    def _say_farewell(self) -> None:
        """The client wants no more: answer what is in flight and close."""
        if not self._ending:
            self._ending = True
            self._farewell = self._loop.create_task(self._end())

    def _too_slow(self) -> None:
        self.send_off()
        self._host.violated(self, f"no export was chosen within {self._host.handshake_s:g} s")

    def send_off(self) -> None:
        """Disconnect at once; what is in flight is seen through without an answer."""
        self._ending = True
        self._transport.abort()

    async def end(self) -> None:
        """Begin no request any more, answer those in flight, disconnect. Returns when all that is done.

        A long read that waits for its client is not waited for.
        """
        if self._exchange is not None:
            self._exchange.stop()
        await self._end()

    async def _end(self) -> None:
        self._ending = True
        self._transport.pause_reading()
        if self._exchange is not None:
            await self._exchange.drained()
        if not self._lost.is_set():
            self._outbox.finish()
            self._transport.close()
            try:
                await asyncio.wait_for(self._lost.wait(), FAREWELL_S)
            except TimeoutError:
                self._transport.abort()
                await self._lost.wait()

    def _gone_if_done(self) -> None:
        if self._lost.is_set() and (self._exchange is None or not self._exchange.in_flight):
            self._host.gone(self)
