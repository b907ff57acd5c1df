"""A link: one connection with a known peer, watched while it stands.

Both sides send PINGs; a peer that was silent for a few intervals is given up, for a hung host is otherwise invisible.
This module must never dial or accept (that is `peer.py`), and never decide what a message means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from engine.errors import LeewardError, LinkSilent, PeerUnreachable, WireDamaged
from engine.link.timing import Timing
from engine.link.transport import Transport
from engine.model import Peer
from engine.wire.codec import Buffer
from engine.wire.hello import Agreed, refusal
from engine.wire.messages import Data, Hello, Message, Ping, Pong, Refused, Resume
from engine.wire.presence import Joiner, split


class LinkHandler(Protocol):
    """What a site does with its links. All calls come on the loop, in order, and must return at once.

    A LeewardError raised by `message`, `place` or `data` ends the link; the peer is told.
    """

    def connected(self, link: PeerLink) -> None:
        """The link stands; any older link of this peer was `disconnected` before."""

    def disconnected(self, link: PeerLink) -> None:
        """The link is over: nothing is sent, delivered or written into placed memory any more."""

    def message(self, link: PeerLink, message: Message) -> None:
        """Any message but DATA, PING and PONG. A long RESUME arrives whole."""

    def place(self, link: PeerLink, data: Data, payload_length: int) -> Sequence[memoryview]:
        """Memory for the payload of `data`: writable views of `payload_length` bytes together, filled in turn."""

    def data(self, link: PeerLink, data: Data) -> None:
        """The payload of `data` is complete in the memory that `place` gave."""


class PeerLink:
    """One link. `hello` is the peer's, `agreed` what both can do, `closed` is set when the link is over."""

    def __init__(
        self, peer: Peer, transport: Transport, hello: Hello, agreed: Agreed, handler: LinkHandler, timing: Timing
    ) -> None:
        self.peer = peer
        self.hello = hello
        self.agreed = agreed
        self.closed = asyncio.Event()
        self.reason = ""
        """Why the link is over; empty while it stands."""
        self.error: Exception | None = None
        self.rtt_s: float | None = None
        """The newest round trip of a PING; None before the first."""
        self.is_plain = transport.asyncio_transport.get_extra_info("ssl_object") is None
        self._transport = transport
        self._handler = handler
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._joiner = Joiner()
        self._ping_number = 0
        self._ping_sent = 0.0
        self._silent = 0
        self._read_then = -1
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Take the connection over and tell the handler. Called once, by who made the link."""
        self._transport.sink = self
        self._transport.greeted()
        self._timer = self._loop.call_later(self._timing.ping_s, self._tick)
        self._handler.connected(self)

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the codecs that both sides have; `plain` is always among them."""
        return self.agreed.codecs

    @property
    def bytes_total(self) -> int:
        """Bytes on the connection in both directions, TLS and handshake included."""
        return self._transport.bytes_sent + self._transport.bytes_received

    @property
    def bytes_sent(self) -> int:
        return self._transport.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._transport.bytes_received

    async def send(self, message: Message, payload: Sequence[Buffer] = ()) -> None:
        """Send a message; returns when `payload` may be used again, cancelled or not. Raises PeerUnreachable."""
        try:
            if isinstance(message, Resume):
                for part in split(message):
                    await self._transport.send(part)
            else:
                await self._transport.send(message, payload)
        except ConnectionError:
            raise PeerUnreachable(peer=self.peer.name) from None

    def post(self, message: Message) -> None:
        """Send a small message from where nothing can be awaited. Dropped when the link is over. Never raises."""
        self._transport.post(message)

    def close(self, reason: str, error: LeewardError | None = None) -> None:
        """End the link orderly: what was sent is delivered. With `error` the peer is told why it was ended."""
        self.reason = self.reason or reason
        if error is not None:
            self._transport.refuse(error)
        else:
            self._transport.close()

    @property
    def is_gone(self) -> bool:
        """Whether the socket is closed."""
        return self._transport.gone.is_set()

    async def gone(self) -> None:
        """Wait until the socket is closed, too."""
        await self._transport.gone.wait()

    # --- the connection's owner

    def place(self, data: Data, payload_bytes: int) -> Sequence[memoryview]:
        return self._handler.place(self, data, payload_bytes)

    def received(self, message: Message) -> None:
        if isinstance(message, Data):
            self._handler.data(self, message)
        elif isinstance(message, Ping):
            self._transport.post(Pong(message.number))
        elif isinstance(message, Pong):
            if message.number == self._ping_number:
                self.rtt_s = self._loop.time() - self._ping_sent
        elif isinstance(message, Resume):
            if (whole := self._joiner.add(message)) is not None:
                self._handler.message(self, whole)
        elif isinstance(message, Hello):
            raise WireDamaged(reason="a second HELLO came")
        elif isinstance(message, Refused) and message.group is None and message.sync is None:
            self._transport.abort(refusal(message, self.peer.name))
        else:
            self._handler.message(self, message)

    def ended(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.error = error
        self.reason = self.reason or (str(error) if error else "the peer closed it")
        self.closed.set()
        self._handler.disconnected(self)

    def _tick(self) -> None:
        """Every ping interval: count the intervals in which nothing came, then ping.

        Intervals and not the clock: after a pause of this host one of them is over, and what waits in the socket is
        read before the next.
        """
        read = self._transport.read_bytes
        self._silent = self._silent + 1 if read == self._read_then else 0
        self._read_then = read
        if self._silent >= self._timing.silent_pings:
            self._transport.abort(
                LinkSilent(peer=self.peer.name, silence_s=self._timing.silent_pings * self._timing.ping_s)
            )
            return
        self._timer = self._loop.call_later(self._timing.ping_s, self._tick)
        self._ping_number += 1
        self._ping_sent = self._loop.time()
        self._transport.post(Ping(self._ping_number))
