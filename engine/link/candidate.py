"""A connection before it is a link: it waits for the one message that says who the other end is.

The judgement happens inside the call that delivers the message, so that no later byte can overtake it. This module
must never read a second message: what follows belongs to the link that the judge has made of the connection, or
comes from somebody who still waits for an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from engine.errors import HandshakeFailed, LeewardError, WireDamaged
from engine.link.transport import Transport
from engine.wire.messages import Data, Hello, Message

Judge = Callable[["Candidate", Message], None]
"""Makes a link of the candidate's transport, postpones the answer, or raises the LeewardError that the other end is
told."""


class Candidate:
    """The first owner of a connection. `done` ends with the judgement, or with why there was none."""

    def __init__(self, address: str, judge: Judge, *, linger_s: float) -> None:
        self.address = address
        self.transport = Transport(self, linger_s=linger_s)
        self.hello: Hello | None = None
        """The HELLO that was sent from here, None before that."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._judge = judge
        self._is_postponed = False
        self._is_taken = False

    @property
    def fingerprint(self) -> str | None:
        """Of the other end's certificate; None without TLS."""
        return self.transport.fingerprint

    @property
    def awaits_answer(self) -> bool:
        """Whether a HELLO of ours is out and the peer has not answered."""
        return self.hello is not None and not self.done.done()

    def greet(self, hello: Hello) -> None:
        """Send our HELLO first: this side dialled."""
        self.hello = hello
        self.transport.post(hello)

    def give_up(self, error: LeewardError) -> None:
        """Nobody wants this connection any more."""
        self.transport.abort(error)
        self._finish(error)

    def postpone(self) -> None:
        """For a judge: the answer takes a while, and there will be no link. `answer` or `refuse` ends it."""
        self._is_postponed = True

    def answer(self, message: Message) -> None:
        """The last word on this connection: it is closed when that is delivered."""
        self._finish(None)
        self.transport.post(message)
        self.transport.close()

    def refuse(self, error: LeewardError) -> None:
        """Tell the other end why, and close."""
        self._finish(error)
        self.transport.refuse(error)

    async def let_go(self) -> None:
        """Return when this is a link, or its socket is closed: at once, or after a refusal when that was delivered."""
        if self._is_taken or not self.transport.is_connected:
            return
        if not self.done.done():
            self.transport.abandon()
        try:
            await self.transport.gone.wait()
        except asyncio.CancelledError:
            self.transport.abandon()
            await self.transport.gone.wait()
            raise

    def place(self, data: Data, payload_bytes: int) -> Sequence[memoryview]:
        raise WireDamaged(reason="DATA came before HELLO")

    def received(self, message: Message) -> None:
        try:
            if self._is_postponed:
                raise WireDamaged(reason=f"{type(message).__name__} came before the answer to the first message")
            self._judge(self, message)
        except LeewardError as error:
            self._finish(error)
            raise
        if not self._is_postponed:
            self._is_taken = True
            self._finish(None)

    def ended(self, error: Exception | None) -> None:
        if isinstance(error, LeewardError):
            self._finish(error)
        else:
            self._finish(HandshakeFailed(address=self.address, reason=str(error) if error else "it closed"))

    def _finish(self, error: LeewardError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # whoever dialled or accepted may have been cancelled: nobody asks then
