"""What is to be sent on one NBD connection: replies gathered in order and handed to the kernel in one call.

Small replies and small reads lie one behind another in a slab, so the answers to a whole batch of requests
are one contiguous send; large data are sent from the buffer that they were read into. The transport's limit is
0: it either takes everything at once or says `pause_writing`, and then the buffers stay held until
`resume_writing`. This module must never copy block data and never touch a buffer that is still being sent.
"""

from __future__ import annotations

import asyncio

from engine.exports.buffers import SLAB_BYTES, Lease, Slab
from engine.exports.nbd_protocol import SIMPLE, SIMPLE_BYTES, SIMPLE_MAGIC


class Outbox:
    """The sending half of a connection. Everything happens on the loop."""

    def __init__(self, transport: asyncio.Transport, lease: Lease) -> None:
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._lease = lease
        self._slab: Slab | None = None
        self._begin = self._end = 0
        self._queue: list[memoryview] = []
        self._owners: list[Slab] = []
        self._sending: list[Slab] = []
        self.queued_bytes = 0
        """Bytes that wait in the queue for a transport that is not ready; not those in the open slab."""
        self.blocked = False
        """True while the kernel has not taken what it was last given."""
        self.closed = False
        """True: the connection is gone, nothing more is sent."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that `flush` would hand over now."""
        return self.queued_bytes + self._end - self._begin

    def simple(self, cookie: int, error: int = 0) -> None:
        """Add the 16 bytes that answer a request without data."""
        slab = self._slab
        if slab is None or self._end + SIMPLE_BYTES > SLAB_BYTES:
            slab = self._next_slab()
        SIMPLE.pack_into(slab.view, self._end, SIMPLE_MAGIC, error, cookie)
        self._end += SIMPLE_BYTES

    def add(self, data: bytes) -> None:
        """Add a few bytes, copied."""
        if len(data) > SLAB_BYTES:  # a long block status: sent from where it is
            self.send(memoryview(data), None)
            return
        self.reserve(len(data))[:] = data
        self.commit(len(data))

    def reserve(self, length: int) -> memoryview:
        """The next `length` bytes to be sent, at most a slab; they count from `commit` or `detach` on."""
        slab = self._slab
        if slab is None or self._end + length > SLAB_BYTES:
            slab = self._next_slab()
        return slab.view[self._end : self._end + length]

    def commit(self, length: int) -> None:
        """The reserved bytes are filled: send them behind everything added before."""
        self._end += length

    def detach(self, length: int) -> Slab:
        """The reserved bytes will be filled later: the slab they lie in, referred to once more, for `send`."""
        self._seal()
        slab = self._slab
        assert slab is not None, "nothing was reserved"
        slab.refs += 1
        self._end += length
        self._begin = self._end
        return slab

    def send(self, view: memoryview, owner: Slab | None) -> None:
        """Add `view` as it is; the reference to `owner` passes to the outbox."""
        self._seal()
        if self.closed or not view:
            if owner is not None:
                owner.release()
            return
        self._queue.append(view)
        self.queued_bytes += len(view)
        if owner is not None:
            self._owners.append(owner)

    def flush(self) -> None:
        """Hand everything to the kernel in one call. Does nothing while `blocked`."""
        if self.blocked or self.closed:
            return
        slab = self._slab
        if self._queue:
            self._seal()
            queue, self._queue = self._queue, []
            self._sending += self._owners
            self._owners = []
            self.queued_bytes = 0
            self._transport.writelines(queue)
            if not self._transport.get_write_buffer_size():
                self._sent()
        elif slab is not None and self._end > self._begin:
            # The common case: one run of small replies and nothing else. No lists.
            self._transport.write(slab.view[self._begin : self._end])
            self._begin = self._end
            if self._transport.get_write_buffer_size():
                slab.refs += 1
                self._sending.append(slab)
        if slab is not None and slab.refs == 1 and slab is self._slab:
            # All in it is sent and nobody fills a part of it: another connection may use it next.
            self._slab = None
            slab.release()

    def finish(self) -> None:
        """Hand over everything, also to a transport that is not ready: it is going to be closed."""
        self.blocked = False
        self.flush()

    def pause(self) -> None:
        """The transport took only a part (`pause_writing`)."""
        self.blocked = True

    def resume(self) -> None:
        """The transport sent all it had (`resume_writing`)."""
        self.blocked = False
        self._sent()
        self.flush()

    def close(self) -> None:
        """The connection is gone: let go of everything, send nothing any more."""
        self.closed = True
        self.blocked = False
        self._sent()
        owners, self._owners = self._owners, []
        self._queue.clear()
        self.queued_bytes = 0
        for owner in owners:
            owner.release()
        slab, self._slab = self._slab, None
        self._begin = self._end = 0
        if slab is not None:
            slab.release()

    def _sent(self) -> None:
        sending, self._sending = self._sending, []
        for slab in sending:
            slab.release()

    def _seal(self) -> None:
        """Make what lies in the open slab an entry of the queue."""
        slab = self._slab
        if slab is None or self._begin == self._end:
            return
        slab.refs += 1
        self._owners.append(slab)
        self._queue.append(slab.view[self._begin : self._end])
        self.queued_bytes += self._end - self._begin
        self._begin = self._end

    def _next_slab(self) -> Slab:
        self._seal()
        if self._slab is not None:
            self._slab.release()
        self._slab = self._lease.take()
        self._begin = self._end = 0
        return self._slab
