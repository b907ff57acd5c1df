"""Serving the requests of one NBD connection from its `BlockIO`: at once where it can, else as a task.

What the block store does inline is answered in the same tick. When it hands back a `Wait`, a task sees it
through; the buffers of the request stay held until then, whatever becomes of the connection, for a thread may
be reading or filling them. So a task is never cancelled, only awaited. This module must never judge a request
(`nbd_protocol` did) and never reorder the pieces of one answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from blockstore.errors import WriteRefused
from blockstore.steps import Wait
from blockstore.units import BLOCK
from engine.exports.buffers import DATA_AT, PIECE_BYTES, Lease, Slab
from engine.exports.nbd_outbox import Outbox
from engine.exports.nbd_protocol import (
    BLOCK_STATUS,
    DONT_FRAGMENT,
    EPERM,
    FLUSH,
    FUA,
    NO_HOLE,
    ONE_EXTENT,
    READ,
    TRIM,
    WRITE_ZEROES,
    Transmission,
    error_number,
    failure_text,
    status_length,
)

if TYPE_CHECKING:
    from blockstore.layer import BlockIO
    from engine.pool import DiskPool

SMALL_BYTES = 64 * 1024
"""Up to here a request's data share a slab with others; above, they have a buffer of their own."""


class LargeWrite:
    """A write received into buffers of its own, one or several pieces, answered when all are written."""

    __slots__ = ("cookie", "durable", "error", "offset", "to_receive", "writing")

    def __init__(self, cookie: int, flags: int, offset: int, length: int) -> None:
        self.cookie = cookie
        self.offset = offset
        """Where the next piece goes."""
        self.to_receive = length
        self.durable = bool(flags & FUA)
        self.writing = 0
        """Pieces in flight."""
        self.error = 0

    def next_piece(self) -> int:
        """Bytes of the next piece: the pieces of a long write meet at block boundaries of the volume."""
        if self.to_receive <= PIECE_BYTES:
            return self.to_receive
        return PIECE_BYTES - self.offset % BLOCK


class Requests:
    """The requests of one connection in the transmission phase. Everything happens on the loop.

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
        """What was agreed with the client: it judges every request."""
        self._io = io
        self._pool = pool
        self._outbox = outbox
        self._lease = lease
        self._failed = failed
        self._progress = progress
        self._tasks: set[asyncio.Task[None]] = set()
        self._head_bytes = transmission.read_head_bytes()
        self._room = asyncio.Event()
        self._stopped = False

    @property
    def in_flight(self) -> int:
        """Requests that have no answer yet."""
        return len(self._tasks)

    def stop(self) -> None:
        """The connection ends: long reads need not wait for a client that may never take them."""
        self._stopped = True
        self._room.set()

    async def drained(self) -> None:
        """Return when no request is in flight. Nobody may start one meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # --- writes -------------------------------------------------------------------------------------------

    def write(self, cookie: int, flags: int, offset: int, data: memoryview, slab: Slab) -> None:
        """A small write whose `data` lie in `slab`; the slab is held for as long as the write needs them."""
        try:
            wait = self._io.write(offset, data, bool(flags & FUA))
        except Exception as error:
            self._fail(error, "write", cookie)
            return
        if wait is None:
            self._outbox.simple(cookie)
            return
        slab.refs += 1
        again = partial(self._io.write, offset, data, bool(flags & FUA))
        self._start(self._simple(cookie, "write", wait, again, slab))

    def write_piece(self, write: LargeWrite, slab: Slab, data: memoryview) -> None:
        """The next piece of `write` was received into `slab`, whose reference passes to here."""
        offset = write.offset
        write.offset += len(data)
        write.to_receive -= len(data)
        wait: Wait | None = None
        if not write.error:
            try:
                wait = self._io.write(offset, data, write.durable)
            except Exception as error:
                write.error = self._number(error, "write")
        if wait is None:
            slab.release()
            self._answer_large(write)
            return
        write.writing += 1
        again = partial(self._io.write, offset, data, write.durable)
        self._start(self._piece(write, wait, again, slab))

    async def _piece(self, write: LargeWrite, wait: Wait, again: Callable[[], Wait | None], slab: Slab) -> None:
        try:
            await self._see_through(wait, again)
        except Exception as error:
            write.error = write.error or self._number(error, "write")
        finally:
            slab.release()
        write.writing -= 1
        self._answer_large(write)

    def _answer_large(self, write: LargeWrite) -> None:
        if not write.to_receive and not write.writing and not self._outbox.closed:
            self._outbox.simple(write.cookie, write.error)

    # --- reads --------------------------------------------------------------------------------------------

    def read(self, cookie: int, flags: int, offset: int, length: int) -> None:
        if length <= SMALL_BYTES:
            self._read_small(cookie, offset, length)
        elif length <= PIECE_BYTES:
            self._read_whole(cookie, offset, length)
        elif self.transmission.structured and not flags & DONT_FRAGMENT:
            self._start(self._read_in_pieces(cookie, offset, length))
        else:
            self._read_whole(cookie, offset, length)

    def _read_small(self, cookie: int, offset: int, length: int) -> None:
        head = self._head_bytes
        region = self._outbox.reserve(head + length)
        data = region[head:]
        try:
            wait = self._io.read_into(offset, data)
        except Exception as error:
            self._fail(error, "read", cookie, READ)
            return
        if wait is None:
            self.transmission.put_read_head(region, cookie, offset, length)
            self._outbox.commit(head + length)
            return
        slab = self._outbox.detach(head + length)
        self._start(self._read_later(cookie, offset, region, data, wait, slab))

    def _read_whole(self, cookie: int, offset: int, length: int) -> None:
        slab = self._lease.take(DATA_AT + length)
        region = slab.view[DATA_AT - self._head_bytes : DATA_AT + length]
        data = slab.view[DATA_AT : DATA_AT + length]
        try:
            wait = self._io.read_into(offset, data)
        except Exception as error:
            slab.release()
            self._fail(error, "read", cookie, READ)
            return
        if wait is None:
            self.transmission.put_read_head(region, cookie, offset, length)
            self._outbox.send(region, slab)
            return
        self._start(self._read_later(cookie, offset, region, data, wait, slab))

    async def _read_later(
        self, cookie: int, offset: int, region: memoryview, data: memoryview, wait: Wait, slab: Slab
    ) -> None:
        try:
            await self._see_through(wait, partial(self._io.read_into, offset, data))
        except Exception as error:
            slab.release()
            self._fail(error, "read", cookie, READ)
            return
        self.transmission.put_read_head(region, cookie, offset, len(data))
        self._outbox.send(region, slab)

    async def _read_in_pieces(self, cookie: int, offset: int, length: int) -> None:
        """A long read as several chunks, each read when there is room for it: memory stays what it is."""
        end = offset + length
        while offset < end:
            while (self._lease.full or self._outbox.blocked) and not self._stopped:
                self._room.clear()
                await self._room.wait()
            if self._stopped:
                return  # the answer stays half: the connection ends, and with it every request without answer
            size = min(end - offset, PIECE_BYTES - offset % BLOCK)
            slab = self._lease.take(DATA_AT + size)
            data = slab.view[DATA_AT : DATA_AT + size]
            again = partial(self._io.read_into, offset, data)
            try:
                await self._see_through(again(), again)
            except Exception as error:
                slab.release()
                self._fail(error, "read", cookie, READ)
                return
            region = slab.view[DATA_AT - self._head_bytes : DATA_AT + size]
            self.transmission.put_read_head(region, cookie, offset, size, last=offset + size == end)
            offset += size
            self._outbox.send(region, slab)
            self._outbox.flush()

    def made_room(self) -> None:
        """Something was sent or let go of: long reads may go on."""
        self._room.set()

    # --- everything else ----------------------------------------------------------------------------------

    def other(self, cookie: int, kind: int, flags: int, offset: int, length: int) -> None:
        """A request without data: flush, trim, write zeroes or block status."""
        if kind == BLOCK_STATUS:
            self._start(self._status(cookie, flags, offset, length))
            return
        call, what = self._change(kind, flags, offset, length)
        try:
            wait = call()
        except Exception as error:
            self._fail(error, what, cookie)
            return
        if wait is None:
            self._outbox.simple(cookie)
        else:
            self._start(self._simple(cookie, what, wait, call, None))

    def _change(self, kind: int, flags: int, offset: int, length: int) -> tuple[Callable[[], Wait | None], str]:
        durable = bool(flags & FUA)
        if kind == FLUSH:
            return self._io.flush, "flush"
        if kind == TRIM:
            return partial(self._io.discard, offset, length, durable), "trim"
        assert kind == WRITE_ZEROES, f"request {kind} got past nbd_protocol"
        return partial(self._io.zero, offset, length, durable, not flags & NO_HOLE), "write zeroes"

    async def _status(self, cookie: int, flags: int, offset: int, length: int) -> None:
        try:
            step = self._io.allocated(offset, status_length(length, flags))
            await self._pool.over(step)
            extents = step.result or []
            reply = self.transmission.status_reply(cookie, extents, one=bool(flags & ONE_EXTENT))
        except Exception as error:
            self._fail(error, "block status", cookie, BLOCK_STATUS)
        else:
            if not self._outbox.closed:
                self._outbox.add(reply)

    async def _simple(
        self, cookie: int, what: str, wait: Wait, again: Callable[[], Wait | None], slab: Slab | None
    ) -> None:
        """See a request through that is answered by a simple reply; `slab` holds its data, if it has any."""
        try:
            await self._see_through(wait, again)
        except Exception as error:
            self._fail(error, what, cookie)
        else:
            if not self._outbox.closed:
                self._outbox.simple(cookie)
        finally:
            if slab is not None:
                slab.release()

    async def _see_through(self, wait: Wait | None, again: Callable[[], Wait | None]) -> None:
        """Let `wait` be over and make the call again, until it is complete (`blockstore/steps.py`)."""
        while wait is not None:
            await self._pool.over(wait)
            if wait.final:
                return
            wait = again()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._progress()
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):  # only a bug of ours gets here; the client has no answer
                self._failed(error, "answer")

    def refuse(self, kind: int, cookie: int, error: int) -> None:
        """Answer a request that `nbd_protocol` refused with the NBD `error`."""
        self._outbox.add(self.transmission.error_reply(kind, cookie, error))
        if error == EPERM:
            refusal = WriteRefused(volume=self.transmission.export.name, reason="the export is read-only")
            self._failed(refusal, "write")

    def _number(self, error: Exception, what: str) -> int:
        self._failed(error, what)
        return error_number(error)

    def _fail(self, error: Exception, what: str, cookie: int, kind: int = FLUSH) -> None:
        """Answer with what the block store failed with. `kind` matters for READ and BLOCK_STATUS only."""
        number = self._number(error, what)
        if not self._outbox.closed:
            self._outbox.add(self.transmission.error_reply(kind, cookie, number, failure_text(error)))
