"""One connection: bytes between a socket and the codec, without a copy on the way and without ever falling behind.

Incoming bytes go straight into the memory that the decoder names. An outgoing payload is handed to the kernel (or to
TLS) from the caller's own memory, and `send` returns when that memory may be used again. Whoever owns the connection
is its `Sink`; it changes once, when a stranger becomes a link. This module must never know what a message means.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from socket import IPPROTO_TCP
from typing import Final, Protocol, cast

from engine.errors import LeewardError, LinkStuck, PeerRefused, WireDamaged
from engine.link.tls import peer_fingerprint
from engine.wire.codec import Buffer, Decoder, encode
from engine.wire.hello import refused_by
from engine.wire.messages import Data, Message

BACKLOG_BYTES: Final = 16 * 1024 * 1024
"""What may wait in this process for a peer that reads: two frames of blocks and a thousand small messages."""

TLS_CHUNK_BYTES: Final = 1024 * 1024
"""So much is encrypted in one go (0.4 ms); in between the loop serves others. 256 KiB cost a third of the speed, whole
frames gain a tenth at most (benchmarks/parts/link.py)."""

_TLS_READ_BYTES: Final = 256 * 1024 + 32 * 1024
"""More than TLS ever holds. asyncio's TLS fills one buffer of ours a turn of the loop and, when the connection ends,
drops what did not fit: a buffer that takes all loses nothing. Memory of a payload is filled directly while so much of
it is left; the rest of a frame is copied once more, 7 % of it, which TLS does not notice."""

_DISCARD_BYTES: Final = 64 * 1024
_TCP_INFO: Final = 11
_TCP_INFO_RECEIVED: Final = struct.Struct("=Q")
_TCP_INFO_SENT: Final = struct.Struct("=QQ")
_RECEIVED_AT: Final = 128
_SENT_AT: Final = 200
"""Where `tcpi_bytes_received`, and `tcpi_bytes_sent` with `tcpi_bytes_retrans`, stand in tcp_info (linux/tcp.h)."""


class Sink(Protocol):
    """Who a connection belongs to. Called on the loop, in order; nothing more after `ended`."""

    def place(self, data: Data, payload_bytes: int) -> Sequence[memoryview]:
        """Memory for the payload of `data`. What it raises ends the connection."""

    def received(self, message: Message) -> None:
        """A message is whole; the payload of a DATA is in its place. A LeewardError raised here ends the connection."""

    def ended(self, error: Exception | None) -> None:
        """The connection is over, orderly if `error` is None. Memory that was placed is not written any more."""


class Transport(asyncio.BufferedProtocol):
    """Made by a loop's `create_connection` or `connect_accepted_socket`."""

    def __init__(self, sink: Sink, *, linger_s: float = 1.0) -> None:
        self.sink = sink
        self.gone = asyncio.Event()
        """Set when the socket is closed."""
        self.fingerprint: str | None = None
        """Of the other end's certificate, known before its first byte; None without TLS."""
        self._decoder = Decoder(self._place)
        self._loop = asyncio.get_running_loop()
        self._linger_s = linger_s
        self._transport: asyncio.Transport | None = None
        self._is_over = False
        self._is_full = False
        self._drained: list[asyncio.Future[None]] = []
        self._turn = asyncio.Lock()
        self._held: list[bytes] | None = None
        self._discard: memoryview | None = None
        self._scratch: memoryview | None = None
        self._is_scratch_lent = False
        self._written = self._read = 0
        self._tcp_sent = self._tcp_received = 0

    # --- what an owner uses

    @property
    def asyncio_transport(self) -> asyncio.Transport:
        assert self._transport is not None, "connected"
        return self._transport

    @property
    def is_connected(self) -> bool:
        """Whether there ever was a connection."""
        return self._transport is not None

    @property
    def read_bytes(self) -> int:
        """Bytes of frames that came in; moves with every read."""
        return self._read

    @property
    def bytes_sent(self) -> int:
        """Bytes that went out on the connection, TLS included where the kernel tells (Linux does), once each."""
        self._ask_kernel()
        return max(self._written, self._tcp_sent)

    @property
    def bytes_received(self) -> int:
        """Bytes that came in on the connection, TLS included where the kernel tells."""
        self._ask_kernel()
        return max(self._read, self._tcp_received)

    def greeted(self) -> None:
        """The peer is known: from here on every message is read."""
        self._decoder.greeted = True
        if self.fingerprint is not None:
            self._scratch = memoryview(bytearray(_TLS_READ_BYTES))

    def post(self, message: Message) -> None:
        """Send a message without payload and do not wait. A peer that does not read loses its link. Never raises."""
        if self._is_over:
            return
        self._write_small(encode(message))
        backlog = self.asyncio_transport.get_write_buffer_size() + sum(map(len, self._held or ()))
        if backlog > BACKLOG_BYTES:
            self.abort(LinkStuck(peer=str(self.asyncio_transport.get_extra_info("peername")), backlog_bytes=backlog))

    async def send(self, message: Message, payload: Sequence[Buffer] = ()) -> None:
        """Send a message; returns when `payload` may be used again. Raises ConnectionError when the connection is over.

        A cancelled call returns only once the frame is out: half a frame cannot be taken back.
        """
        views = [memoryview(piece).cast("B") for piece in payload]
        frame = encode(message, sum(map(len, views)))
        if not views:
            self._check_open()
            self._write_small(frame)
            await self._drain()
            return
        async with self._turn:
            self._check_open()
            task = self._send_frame(frame, views)
            await _unbroken(task)

    def refuse(self, error: LeewardError) -> None:
        """Tell the peer why, then close: what it still sends is thrown away until it has read that. Ends the sink."""
        if self._is_over:
            return
        if isinstance(error, PeerRefused):
            self.abort(error)  # it told us
            return
        with suppress(LeewardError):
            self._write_small(encode(refused_by(error)))
        self._end(error)
        self._discard = memoryview(bytearray(_DISCARD_BYTES))
        self._loop.call_later(self._linger_s, self.abandon)

    def close(self) -> None:
        """Deliver what was written, then close. Ends the sink at once. A peer that does not read is cut off."""
        if self._transport is None or self.gone.is_set():
            return
        self._ask_kernel()
        self._end(None)
        self._discard = memoryview(bytearray(_DISCARD_BYTES))
        self._transport.close()
        self._loop.call_later(self._linger_s, self.abandon)

    def abort(self, error: Exception | None = None) -> None:
        """Close at once. Ends the sink with `error`."""
        self._ask_kernel()
        self._end(error)
        self.abandon()

    def abandon(self) -> None:
        """Let the socket go, whatever is in it."""
        if self._transport is not None and not self.gone.is_set():
            self._transport.abort()

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if transport.get_extra_info("ssl_object") is not None:
            self.fingerprint = peer_fingerprint(transport)
        # `pause_writing` as soon as anything waits in this process, `resume_writing` when nothing does: that is when
        # the memory of a payload is free. (Both at 0 confuses the TLS transport, which compares with >=.)
        self._transport.set_write_buffer_limits(high=1, low=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._discard is not None:
            return self._discard
        target = self._decoder.target()
        self._is_scratch_lent = self._scratch is not None and len(target) < _TLS_READ_BYTES
        return target if self._scratch is None or not self._is_scratch_lent else self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        self._read += nbytes
        if self._discard is not None:
            return
        try:
            if self._is_scratch_lent:
                assert self._scratch is not None
                self._deliver(self._decoder.feed(self._scratch[:nbytes]))
            elif (message := self._decoder.advance(nbytes)) is not None:
                self.sink.received(message)
        except LeewardError as error:
            self.refuse(error)
        except Exception as error:
            self.abort(error)
            raise

    def eof_received(self) -> bool:
        if not self._is_over:
            self._end(None if self._decoder.is_between_frames else WireDamaged(reason="it ends in mid-frame"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self.gone.set()
        self._wake()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    # --- inside

    def _deliver(self, messages: Iterator[Message]) -> None:
        for message in messages:
            self.sink.received(message)
            if self._is_over:
                return

    def _place(self, data: Data, payload_bytes: int) -> Sequence[memoryview]:
        return self.sink.place(data, payload_bytes)

    def _write_small(self, frame: bytes) -> None:
        if self._held is not None:
            self._held.append(frame)
        else:
            self._written += len(frame)
            self.asyncio_transport.write(frame)

    async def _send_frame(self, frame: bytes, views: list[memoryview]) -> None:
        if self.fingerprint is None:
            self._written += len(frame) + sum(map(len, views))
            self.asyncio_transport.writelines([frame, *views])
            await self._drain()
            return
        self._held = []
        try:
            self._written += len(frame)
            self.asyncio_transport.write(frame)
            for view in views:
                for at in range(0, len(view), TLS_CHUNK_BYTES):
                    chunk = view[at : at + TLS_CHUNK_BYTES]
                    self._written += len(chunk)
                    self.asyncio_transport.write(chunk)
                    await self._drain()
        finally:
            held, self._held = self._held, None
            if not self._is_over:
                for small in held:
                    self._write_small(small)

    async def _drain(self) -> None:
        """Wait until nothing that was written waits in this process. Raises ConnectionError."""
        while self._is_full and not self.gone.is_set():
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            await waiter
        self._check_open()

    def _check_open(self) -> None:
        if self._is_over or self._transport is None:
            raise ConnectionResetError("the connection is over")

    def _wake(self) -> None:
        waiters, self._drained = self._drained, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _end(self, error: Exception | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._decoder.drop()
        self.sink.ended(error)

    def _ask_kernel(self) -> None:
        """Take the kernel's count of bytes while there is a socket."""
        if self._transport is None or self.gone.is_set():
            return
        connection = self._transport.get_extra_info("socket")
        try:
            info = connection.getsockopt(IPPROTO_TCP, _TCP_INFO, _SENT_AT + _TCP_INFO_SENT.size)
            (received,) = _TCP_INFO_RECEIVED.unpack_from(info, _RECEIVED_AT)
            sent, again = _TCP_INFO_SENT.unpack_from(info, _SENT_AT)
        except (OSError, AttributeError, struct.error):
            return  # another kernel, or the socket has just gone
        self._tcp_received = max(self._tcp_received, received)
        self._tcp_sent = max(self._tcp_sent, sent - again)


async def _unbroken(work: object) -> None:
    """Run `work` to its end even if the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:
            break
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    task.result()
