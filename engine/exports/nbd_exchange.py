"""What is common to all requests of one NBD connection: tasks in flight, waits seen through, failures answered.

The buffers of a request stay held until its task ends, whatever becomes of the connection, for a thread may be
reading or filling them. So a task is never cancelled, only awaited. This module must never judge a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from blockstore.errors import WriteRefused
from blockstore.steps import Wait
from engine.exports.buffers import Lease
from engine.exports.nbd_outbox import Outbox
from engine.exports.nbd_protocol import EPERM, FLUSH, Transmission, error_number, failure_text

if TYPE_CHECKING:
    from blockstore.layer import BlockIO
    from engine.pool import DiskPool


class Exchange:
    """The transmission phase of one connection. Everything happens on the loop.

    `failed(error, what)` is told of every failure of the block store; `progress()` is called when a task ended.
    """

    def __init__(
        self,
        transmission: Transmission,
        io: BlockIO,
        pool: DiskPool,
        outbox: Outbox,
        lease: Lease,
        failed: Callable[[Exception, str], None],
        progress: Callable[[], None],
    ) -> None:
        self.transmission = transmission
        self.io = io
        self.pool = pool
        self.outbox = outbox
        self.lease = lease
        self.stopped = False
        """True: the connection ends; nobody may wait for the client any more."""
        self._failed = failed
        self._progress = progress
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Requests, and pieces of large writes, that are not complete."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """See a request through in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def see_through(self, wait: Wait | None, again: Callable[[], Wait | None]) -> None:
        """Let `wait` be over and make the call again, until it is complete (`blockstore/steps.py`)."""
        while wait is not None:
            await self.pool.over(wait)
            if wait.final:
                return
            wait = again()

    async def room(self) -> None:
        """Return when another buffer may be taken and the client takes its replies, or when `stopped`."""
        while (self.lease.full or self.outbox.blocked) and not self.stopped:
            self._room.clear()
            await self._room.wait()

    def made_room(self) -> None:
        """Something was sent or let go of."""
        self._room.set()

    def stop(self) -> None:
        """The connection ends: what waits for room goes on, to its end."""
        self.stopped = True
        self._room.set()

    async def drained(self) -> None:
        """Return when no request is in flight. Nobody may start one meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def done(self, cookie: int, error: int = 0) -> None:
        """Answer a request that has no data in its reply."""
        if not self.outbox.closed:
            self.outbox.simple(cookie, error)

    def fail(self, error: Exception, what: str, cookie: int, kind: int = FLUSH) -> None:
        """Answer with what the block store failed with. `kind` matters for READ and BLOCK_STATUS only."""
        number = self.number(error, what)
        if not self.outbox.closed:
            self.outbox.add(self.transmission.error_reply(kind, cookie, number, failure_text(error)))

    def number(self, error: Exception, what: str) -> int:
        """Report what the block store failed with; returns the NBD error to answer."""
        self._failed(error, what)
        return error_number(error)

    def refuse(self, kind: int, cookie: int, error: int) -> None:
        """Answer a request that `nbd_protocol` refused with the NBD `error`."""
        self.outbox.add(self.transmission.error_reply(kind, cookie, error))
        if error == EPERM:
            refusal = WriteRefused(volume=self.transmission.export.name, reason="the export is read-only")
            self._failed(refusal, "write")

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):  # only a bug of ours gets here: what block stores raise was answered
            self._failed(error, "answer")
        self._progress()
