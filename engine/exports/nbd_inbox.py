"""What one NBD client sends: where its bytes are received, and the requests cut out of them.

Small requests are received many at a time into a slab and served where they lie. The payload of a large write
is received straight into buffers of its own, a piece at a time. One pass over what came in is bounded, so that
no client keeps the loop to itself. This module must never judge a request (`nbd_protocol` does), and never
overwrite bytes that a write in flight still needs.
"""

from __future__ import annotations

from engine.exports.buffers import SLAB_BYTES, Lease, Slab
from engine.exports.nbd_exchange import Exchange
from engine.exports.nbd_handshake import Handshake
from engine.exports.nbd_protocol import BLOCK_STATUS, DISCONNECT, READ, REQUEST_BYTES, WRITE
from engine.exports.nbd_reads import SMALL_BYTES, Reads
from engine.exports.nbd_writes import LargeWrite, Writes

PASS_COST = 1024 * 1024
REQUEST_COST = 4096
"""A pass ends when its requests, each counted as its data and `REQUEST_COST`, add up to `PASS_COST` (256 at most)."""


class Served:
    """Who serves the requests that the inbox cuts out."""

    __slots__ = ("exchange", "judge", "reads", "writes")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.judge = exchange.transmission.request
        self.reads = Reads(exchange)
        self.writes = Writes(exchange)


class Inbox:
    """The receiving half of a connection. Everything happens on the loop."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._slab: Slab | None = None
        self._start = self._end = 0
        """What is received and not yet eaten lies between them in the slab."""
        self._skip = 0
        """Bytes of a refused payload that are still to come."""
        self._refused = (0, 0)
        """Cookie and error of that write: libnbd takes a reply before the whole request for a server's bug."""
        self._large: LargeWrite | None = None
        self._piece: Slab | None = None
        self._piece_bytes = self._filled = 0
        self._bulk = False
        """The last request was a large write: receive the next head alone, so that its payload needs no copy."""
        self.left = False
        """True: the client said DISCONNECT."""

    def next_buffer(self) -> memoryview:
        """Where the next bytes from the socket go; never empty."""
        piece = self._piece
        if piece is not None:
            return piece.view[self._filled : self._piece_bytes]
        slab = self._slab
        if slab is None:
            slab = self._slab = self._lease.take()
            self._start = self._end = 0
        if self._bulk and self._start == self._end and not self._skip:
            return slab.view[self._end : self._end + REQUEST_BYTES]
        return slab.view[self._end :]

    def received(self, count: int) -> bool:
        """`count` bytes are in the buffer last given. True: there may be something to eat."""
        if self._piece is None:
            self._end += count
            return True
        self._filled += count
        return self._filled == self._piece_bytes

    def shake(self, handshake: Handshake) -> None:
        """Give the handshake what it can eat."""
        if self._slab is not None:
            self._start += handshake.receive(self._slab.view[self._start : self._end])

    def serve(self, served: Served) -> bool:
        """One pass: serve the requests that lie here. True: there are more to serve without receiving anything.

        Raises Violation for a client that does not speak NBD.
        """
        if self._large is not None:
            self._receive_large(self._large, served)
        cost = 0
        while self._large is None and cost < PASS_COST:
            if self._skip:
                self._skip_refused(served)
            if self._end - self._start < REQUEST_BYTES or self._slab is None:
                return False
            one = self._serve_one(self._slab, served)
            if not one:
                return False
            cost += one
        if self._large is not None:
            return self._piece is None
        return self._end - self._start >= REQUEST_BYTES

    def _serve_one(self, slab: Slab, served: Served) -> int:
        """Serve the request at the start; its cost, or 0 when its payload is not here yet or it was the last."""
        view, start = slab.view, self._start
        kind, flags, cookie, offset, length, error = served.judge(view, start)
        data_at = start + REQUEST_BYTES
        if error:
            self._start = data_at
            if kind == WRITE and length:
                self._skip = length
                self._refused = cookie, error
            else:
                served.exchange.refuse(kind, cookie, error)
            return REQUEST_COST
        if kind == WRITE:
            if length > SMALL_BYTES:
                self._start = data_at
                self._bulk = True
                self._large = LargeWrite(cookie, flags, offset, length)
                self._receive_large(self._large, served)
                return REQUEST_COST + length
            after = data_at + length
            if after > self._end:
                return 0
            served.writes.small(cookie, flags, offset, view[data_at:after], slab)
            self._start = after
        elif kind == READ:
            served.reads.read(cookie, flags, offset, length)
            self._start = data_at
        elif kind == DISCONNECT:
            self._start = self._end
            self.left = True
            return 0
        else:
            if kind == BLOCK_STATUS:
                served.reads.status(cookie, flags, offset, length)
            else:
                served.writes.other(cookie, kind, flags, offset, length)
            self._start = data_at
            length = 0  # of a range, not of data that anybody moves
        self._bulk = False
        return REQUEST_COST + length

    def _skip_refused(self, served: Served) -> None:
        """Throw away what has come of a refused payload; refuse the write when that was all."""
        eaten = min(self._skip, self._end - self._start)
        self._start += eaten
        self._skip -= eaten
        if not self._skip:
            cookie, error = self._refused
            served.exchange.refuse(WRITE, cookie, error)

    def _receive_large(self, large: LargeWrite, served: Served) -> None:
        """Move on with the large write: take a buffer for its next piece, pass on a piece that is whole.

        Returns when it is complete, when more must come from the socket, or when no buffer may be taken now.
        """
        while large.to_receive:
            if self._piece is None:
                if self._lease.full:
                    return
                self._piece_bytes = large.next_piece()
                self._piece = self._lease.take(self._piece_bytes)
                self._filled = 0
            piece = self._piece
            size = min(self._piece_bytes - self._filled, self._end - self._start)
            if size and self._slab is not None:
                piece.view[self._filled : self._filled + size] = self._slab.view[self._start : self._start + size]
                self._start += size
                self._filled += size
            if self._filled < self._piece_bytes:
                return
            self._piece = None
            served.writes.piece(large, piece, piece.view[: self._piece_bytes])
        self._large = None

    def tidy(self, *, more: bool) -> None:
        """After a pass: give the slab back if all of it is eaten, else see that the next message fits."""
        slab = self._slab
        if slab is None:
            return
        left = self._end - self._start
        if not left:
            self._slab = None
            slab.release()
        elif not more and SLAB_BYTES - self._start < 2 * SMALL_BYTES:
            # A write that waits may still need what lies before: then go on in another slab.
            target = self._lease.take() if slab.refs > 1 else slab
            target.view[:left] = slab.view[self._start : self._end]
            self._start, self._end = 0, left
            if target is not slab:
                self._slab = target
                slab.release()

    def close(self) -> None:
        """The connection is gone: let go of everything."""
        for slab in (self._slab, self._piece):
            if slab is not None:
                slab.release()
        self._slab = self._piece = self._large = None
