"""Writes, trims, zeroes and flushes of one NBD connection: at once where the block store can, else as tasks.

A small write is served from the slab that it was received in. A large one is received into buffers of its own,
in pieces that are written as they come, so its size does not decide how much memory it takes; it is answered
when all are written. As on any disk, one that was never answered may be there in part. This module must never
let go of data that a wait still needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from blockstore.steps import Wait
from blockstore.units import BLOCK
from engine.exports.buffers import PIECE_BYTES, Slab
from engine.exports.nbd_exchange import Exchange
from engine.exports.nbd_protocol import FLUSH, FUA, NO_HOLE, TRIM, WRITE_ZEROES


class LargeWrite:
    """A write received into buffers of its own, one or several pieces."""

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


class Writes:
    """Everything that changes the volume, and the flush. Everything happens on the loop."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._io = exchange.io
        self._outbox = exchange.outbox

    def small(self, cookie: int, flags: int, offset: int, data: memoryview, slab: Slab) -> None:
        """A write whose `data` lie in `slab`, which is held for as long as the write needs them."""
        durable = bool(flags & FUA)
        try:
            wait = self._io.write(offset, data, durable)
        except Exception as error:
            self._exchange.fail(error, "write", cookie)
            return
        if wait is None:
            self._outbox.simple(cookie)
            return
        slab.refs += 1
        again = partial(self._io.write, offset, data, durable)
        self._exchange.start(self._finish(cookie, "write", wait, again, slab))

    def piece(self, write: LargeWrite, slab: Slab, data: memoryview) -> None:
        """The next piece of `write` was received into `slab`, whose reference passes to here."""
        offset = write.offset
        write.offset += len(data)
        write.to_receive -= len(data)
        wait: Wait | None = None
        if not write.error:
            try:
                wait = self._io.write(offset, data, write.durable)
            except Exception as error:
                write.error = self._exchange.number(error, "write")
        if wait is None:
            slab.release()
            self._answer(write)
            return
        write.writing += 1
        again = partial(self._io.write, offset, data, write.durable)
        self._exchange.start(self._finish_piece(write, wait, again, slab))

    def other(self, cookie: int, kind: int, flags: int, offset: int, length: int) -> None:
        """A flush, a trim or a write of zeroes."""
        call, what = self._call(kind, flags, offset, length)
        try:
            wait = call()
        except Exception as error:
            self._exchange.fail(error, what, cookie)
            return
        if wait is None:
            self._outbox.simple(cookie)
        else:
            self._exchange.start(self._finish(cookie, what, wait, call, None))

    def _call(self, kind: int, flags: int, offset: int, length: int) -> tuple[Callable[[], Wait | None], str]:
        durable = bool(flags & FUA)
        if kind == FLUSH:
            return self._io.flush, "flush"
        if kind == TRIM:
            return partial(self._io.discard, offset, length, durable), "trim"
        assert kind == WRITE_ZEROES, f"request {kind} got past nbd_protocol"
        return partial(self._io.zero, offset, length, durable, not flags & NO_HOLE), "write of zeroes"

    async def _finish(
        self, cookie: int, what: str, wait: Wait, again: Callable[[], Wait | None], slab: Slab | None
    ) -> None:
        try:
            await self._exchange.see_through(wait, again)
        except Exception as error:
            self._exchange.fail(error, what, cookie)
        else:
            self._exchange.done(cookie)
        finally:
            if slab is not None:
                slab.release()

    async def _finish_piece(self, write: LargeWrite, wait: Wait, again: Callable[[], Wait | None], slab: Slab) -> None:
        try:
            await self._exchange.see_through(wait, again)
        except Exception as error:
            write.error = write.error or self._exchange.number(error, "write")
        finally:
            slab.release()
        write.writing -= 1
        self._answer(write)

    def _answer(self, write: LargeWrite) -> None:
        if not write.to_receive and not write.writing:
            self._exchange.done(write.cookie, write.error)
