"""Reads and block status of one NBD connection: data go from the block store to the kernel without a copy.

A small read is filled in right behind the replies before it, so that a batch is one send. A large one has a
buffer of its own. A long one, where the client takes answers in chunks, is read piece by piece as there is room;
where it does not, it is read whole, for an error must still be told after all of it was read. This module must
never send a byte that was not read in full.
"""

from __future__ import annotations

from functools import partial

from blockstore.steps import Wait
from blockstore.units import BLOCK
from engine.exports.buffers import DATA_AT, PIECE_BYTES, Slab
from engine.exports.nbd_exchange import Exchange
from engine.exports.nbd_protocol import BLOCK_STATUS, DONT_FRAGMENT, ONE_EXTENT, READ, status_lengths

SMALL_BYTES = 64 * 1024
"""Up to here a request's data share a slab with others; above, they have a buffer of their own."""


class Reads:
    """Everything that does not change the volume. Everything happens on the loop."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._io = exchange.io
        self._outbox = exchange.outbox
        self._transmission = exchange.transmission
        self._head_bytes = exchange.transmission.read_head_bytes()

    def read(self, cookie: int, flags: int, offset: int, length: int) -> None:
        if length <= SMALL_BYTES:
            self._small(cookie, offset, length)
        elif length > PIECE_BYTES and self._transmission.structured and not flags & DONT_FRAGMENT:
            self._exchange.start(self._in_pieces(cookie, offset, length))
        else:
            self._whole(cookie, offset, length)

    def status(self, cookie: int, flags: int, offset: int, length: int) -> None:
        """Where data may be, from `offset` on."""
        self._exchange.start(self._status(cookie, flags, offset, length))

    def _small(self, cookie: int, offset: int, length: int) -> None:
        head = self._head_bytes
        region = self._outbox.reserve(head + length)
        data = region[head:]
        try:
            wait = self._io.read_into(offset, data)
        except Exception as error:
            self._exchange.fail(error, "read", cookie, READ)
            return
        if wait is None:
            self._transmission.put_read_head(region, cookie, offset, length)
            self._outbox.commit(head + length)
            return
        slab = self._outbox.detach(head + length)
        self._exchange.start(self._finish(cookie, offset, region, data, wait, slab))

    def _whole(self, cookie: int, offset: int, length: int) -> None:
        slab = self._exchange.lease.take(DATA_AT + length)
        region = slab.view[DATA_AT - self._head_bytes : DATA_AT + length]
        data = slab.view[DATA_AT : DATA_AT + length]
        try:
            wait = self._io.read_into(offset, data)
        except Exception as error:
            slab.release()
            self._exchange.fail(error, "read", cookie, READ)
            return
        if wait is None:
            self._transmission.put_read_head(region, cookie, offset, length)
            self._outbox.send(region, slab)
            return
        self._exchange.start(self._finish(cookie, offset, region, data, wait, slab))

    async def _finish(
        self, cookie: int, offset: int, region: memoryview, data: memoryview, wait: Wait, slab: Slab
    ) -> None:
        try:
            await self._exchange.see_through(wait, partial(self._io.read_into, offset, data))
        except Exception as error:
            slab.release()
            self._exchange.fail(error, "read", cookie, READ)
            return
        self._transmission.put_read_head(region, cookie, offset, len(data))
        self._outbox.send(region, slab)

    async def _in_pieces(self, cookie: int, offset: int, length: int) -> None:
        """A long read as several chunks. If one fails, an error chunk ends the answer and voids what was sent."""
        end = offset + length
        while offset < end:
            await self._exchange.room()
            if self._exchange.stopped:
                return  # the answer stays half: the connection ends, and every request without answer with it
            size = min(end - offset, PIECE_BYTES - offset % BLOCK)
            slab = self._exchange.lease.take(DATA_AT + size)
            again = partial(self._io.read_into, offset, slab.view[DATA_AT : DATA_AT + size])
            try:
                await self._exchange.see_through(again(), again)
            except Exception as error:
                slab.release()
                self._exchange.fail(error, "read", cookie, READ)
                return
            region = slab.view[DATA_AT - self._head_bytes : DATA_AT + size]
            self._transmission.put_read_head(region, cookie, offset, size, last=offset + size == end)
            offset += size
            self._outbox.send(region, slab)
            self._outbox.flush()

    async def _status(self, cookie: int, flags: int, offset: int, length: int) -> None:
        try:
            for look in status_lengths(length, flags):
                step = self._io.allocated(offset, look)
                await self._exchange.pool.over(step)
                if len({has_data for _, _, has_data in step.result or ()}) > 1:
                    break
            one = bool(flags & ONE_EXTENT)
            reply = self._transmission.status_reply(cookie, step.result or (), one=one)
        except Exception as error:
            self._exchange.fail(error, "block status", cookie, BLOCK_STATUS)
        else:
            if not self._outbox.closed:
                self._outbox.add(reply)
