"""The buffers that host requests are received into and answered from: two sizes, reused, counted.

All connections of a server share one `Buffers`; each holds what it uses through its own `Lease`, which knows
how much that is. A buffer is counted while somebody refers to it and goes back when the last one lets go, so
an idle connection holds none, and the buffer that is used next is the one that is still in the CPU's cache.
This module must never free or move memory that a request in flight still uses, and never wait.
"""

from __future__ import annotations

from blockstore.disk import aligned_buffer

DATA_AT = 4096
"""Where the data of one large answer begin: before them is room for its head, and they stay page aligned."""

SLAB_BYTES = DATA_AT + 256 * 1024
"""A buffer for many small requests or replies, or one of 256 KiB, which is what nbdcopy asks for."""

PIECE_BYTES = 1024 * 1024
"""What a large request is cut into, so that its size does not decide how much memory it takes."""

_PIECE = DATA_AT + PIECE_BYTES

CONNECTION_BYTES = 16 * 1024 * 1024
"""What one connection may hold before its next requests wait. One answer that must be whole may go above it."""

SERVER_BYTES = 96 * 1024 * 1024
"""What all connections hold together before each is kept to `FLOOR_BYTES`."""

FLOOR_BYTES = 2 * _PIECE + SLAB_BYTES
"""What a connection may hold however full the server is: nobody is starved by others who do not move on."""

_IDLE_SLABS, _IDLE_PIECES = 64, 16


class Slab:
    """One buffer. `refs` counts who refers to it; `release` by the last one gives it back."""

    __slots__ = ("_lease", "refs", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.refs = 0
        self._lease: Lease | None = None

    def hold(self, lease: Lease) -> None:
        """Begin a new use by `lease`, with one reference."""
        self._lease = lease
        self.refs = 1

    def release(self) -> None:
        self.refs -= 1
        if self.refs <= 0:
            lease, self._lease = self._lease, None
            assert lease is not None, "a buffer is given back once"
            lease.give_back(self)


class Buffers:
    """What all connections of a server hold together, and the buffers that nobody uses now."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self._slabs: list[Slab] = []
        self._pieces: list[Slab] = []

    def take(self, at_least: int) -> Slab:
        """A buffer of a slab, a piece, or, above that, exactly the size."""
        if at_least <= SLAB_BYTES:
            return self._slabs.pop() if self._slabs else Slab(aligned_buffer(SLAB_BYTES))
        if at_least <= _PIECE:
            return self._pieces.pop() if self._pieces else Slab(aligned_buffer(_PIECE))
        return Slab(aligned_buffer(at_least))

    def put(self, slab: Slab) -> None:
        """Keep it for the next one, unless there are enough: then its memory is freed with its last view."""
        size = len(slab.view)
        if size == SLAB_BYTES and len(self._slabs) < _IDLE_SLABS:
            self._slabs.append(slab)
        elif size == _PIECE and len(self._pieces) < _IDLE_PIECES:
            self._pieces.append(slab)


class Lease:
    """What one connection holds."""

    __slots__ = ("_buffers", "held_bytes")

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self.held_bytes = 0

    @property
    def full(self) -> bool:
        """True: this connection must let go of something before it takes more."""
        if self.held_bytes < FLOOR_BYTES:
            return False
        return self.held_bytes >= CONNECTION_BYTES or self._buffers.held_bytes >= SERVER_BYTES

    def take(self, at_least: int = SLAB_BYTES) -> Slab:
        """A buffer of at least that many bytes, referred to once. Its content is whatever was there before."""
        slab = self._buffers.take(at_least)
        slab.hold(self)
        size = len(slab.view)
        self.held_bytes += size
        self._buffers.held_bytes += size
        return slab

    def give_back(self, slab: Slab) -> None:
        """Called by the slab itself when nobody refers to it any more."""
        size = len(slab.view)
        self.held_bytes -= size
        self._buffers.held_bytes -= size
        self._buffers.put(slab)
