"""A small NBD client of our own: fixed newstyle, structured replies, block status, requests in flight.

Written from the protocol's text (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md) and not from
our server, so that the two can disagree. It checks what the protocol promises to a client: magics, cookies,
lengths, chunks inside the range that was asked for. Blocking sockets, one thread a client.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

NBDMAGIC, IHAVEOPT, OPTION_REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x0003E889045565A9
REQUEST, SIMPLE_REPLY, STRUCTURED_REPLY = 0x25609513, 0x67446698, 0x668E33EF

FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES = 1, 2
OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT = 2, 3, 6, 7, 8, 10
REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT, REP_ERROR = 1, 2, 3, 4, 1 << 31
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

FLAG_READ_ONLY, FLAG_SEND_FLUSH, FLAG_SEND_FUA = 1 << 1, 1 << 2, 1 << 3
FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES, FLAG_CAN_MULTI_CONN = 1 << 5, 1 << 6, 1 << 8

CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = 0, 1, 2, 3, 4, 6, 7
CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_DF, CMD_FLAG_REQ_ONE, CMD_FLAG_FAST_ZERO = 1, 2, 4, 8, 16

CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS, CHUNK_ERROR = 0, 1, 2, 5, 1 << 15
CHUNK_FLAG_DONE = 1

STATE_HOLE, STATE_ZERO = 1, 2
ESHUTDOWN = 108


class NbdError(Exception):
    """The server answered a request with an error; `errno` is the protocol's number (1 EPERM, 5 EIO, 28 ENOSPC...)."""

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(f"NBD error {errno} {message}".rstrip())
        self.errno = errno


class NbdRefused(Exception):
    """The server refused an option of the handshake; `code` is the reply's type without its error bit."""

    def __init__(self, option: int, code: int, message: str) -> None:
        super().__init__(f"option {option} refused with {code}: {message}")
        self.code = code


@dataclass
class _Flight:
    """A request that was sent: what it asks for, and what has come back."""

    command: int
    offset: int
    length: int
    data: bytearray = field(default_factory=bytearray)
    covered: int = 0
    status: list[tuple[int, int]] = field(default_factory=list)
    error: NbdError | None = None
    done: bool = False


class NbdClient:
    """One connection to one export. `size`, `flags` and `block_sizes` are what the server said of it.

    Every call waits for its answer; `start_write` and `finish` keep several requests in flight. A connection
    that breaks, or whose server shuts down, raises ConnectionError, also for everything that was in flight.
    """

    def __init__(self, uri: str, *, structured: bool = True, timeout_s: float = 60) -> None:
        """Connect to `uri`: `nbd://HOST:PORT/NAME` or `nbd+unix:///NAME?socket=PATH`. NbdRefused: no such export."""
        self._socket, self.name = _connect(uri, timeout_s)
        self.size = 0
        self.flags = 0
        self.block_sizes: tuple[int, int, int] | None = None
        self._context: int | None = None
        self._flights: dict[int, _Flight] = {}
        self._cookie = 0
        try:
            self._greet()
            if structured:
                self._option(OPT_STRUCTURED_REPLY, b"")
                self._ask_for_status()
            self._go()
        except BaseException:
            self._socket.close()
            raise

    # The handshake

    def _greet(self) -> None:
        magic, option_magic, flags = struct.unpack(">QQH", self._receive(18))
        assert magic == NBDMAGIC, f"not an NBD server: {magic:x}"
        assert option_magic == IHAVEOPT, "an oldstyle NBD server"
        assert flags & FLAG_FIXED_NEWSTYLE, "the server does not speak fixed newstyle"
        self._socket.sendall(struct.pack(">I", FLAG_FIXED_NEWSTYLE | (flags & FLAG_NO_ZEROES)))

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        """Send an option; its replies (type, data) before the ACK. NbdRefused for an error reply."""
        self._socket.sendall(struct.pack(">QII", IHAVEOPT, option, len(data)) + data)
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, echoed, kind, length = struct.unpack(">QIII", self._receive(20))
            assert magic == OPTION_REPLY, f"bad magic of an option reply: {magic:x}"
            assert echoed == option, f"reply to option {echoed}, sent was {option}"
            body = bytes(self._receive(length))
            if kind & REP_ERROR:
                raise NbdRefused(option, kind & ~REP_ERROR, body.decode(errors="replace"))
            if kind == REP_ACK:
                return replies
            replies.append((kind, body))

    def _ask_for_status(self) -> None:
        wanted = b"base:allocation"
        name = self.name.encode()
        query = struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(wanted)) + wanted
        for kind, body in self._option(OPT_SET_META_CONTEXT, query):
            assert kind == REP_META_CONTEXT, f"unexpected reply {kind}"
            assert body[4:] == wanted, f"a context that was not asked for: {body[4:]!r}"
            (self._context,) = struct.unpack(">I", body[:4])

    def _go(self) -> None:
        name = self.name.encode()
        query = struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, INFO_BLOCK_SIZE)
        for kind, body in self._option(OPT_GO, query):
            assert kind == REP_INFO, f"unexpected reply {kind}"
            (info,) = struct.unpack(">H", body[:2])
            if info == INFO_EXPORT:
                self.size, self.flags = struct.unpack(">QH", body[2:])
            elif info == INFO_BLOCK_SIZE:
                self.block_sizes = struct.unpack(">III", body[2:])
        assert self.flags & 1, "NBD_OPT_GO without NBD_INFO_EXPORT"

    # Requests

    def pread(self, length: int, offset: int) -> bytearray:
        """`length` bytes from `offset`."""
        return self.finish(self._start(CMD_READ, offset, length)).data

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, *, fua: bool = False) -> None:
        """Write `data` at `offset`; `fua`: durable when this returns."""
        self.finish(self.start_write(data, offset, fua=fua))

    def start_write(self, data: bytes | bytearray | memoryview, offset: int, *, fua: bool = False) -> int:
        """Send a write and return its cookie, for `finish`."""
        return self._start(CMD_WRITE, offset, len(data), CMD_FLAG_FUA if fua else 0, data)

    def flush(self) -> None:
        """Everything that was answered before is durable when this returns."""
        self.finish(self._start(CMD_FLUSH, 0, 0))

    def trim(self, length: int, offset: int, *, fua: bool = False) -> None:
        """Give the range up."""
        self.finish(self._start(CMD_TRIM, offset, length, CMD_FLAG_FUA if fua else 0))

    def zero(self, length: int, offset: int, *, fua: bool = False, may_trim: bool = True, fast: bool = False) -> None:
        """Make the range read as zeros. `may_trim` False: it stays allocated. `fast`: fail rather than be slow."""
        flags = (CMD_FLAG_FUA if fua else 0) | (0 if may_trim else CMD_FLAG_NO_HOLE)
        self.finish(self._start(CMD_WRITE_ZEROES, offset, length, flags | (CMD_FLAG_FAST_ZERO if fast else 0)))

    def block_status(self, length: int, offset: int, *, one: bool = False) -> list[tuple[int, int]]:
        """(length, STATE_* bits) from `offset` on; may cover less than was asked for. `one`: exactly one."""
        assert self._context is not None, "the server did not offer base:allocation"
        return self.finish(self._start(CMD_BLOCK_STATUS, offset, length, CMD_FLAG_REQ_ONE if one else 0)).status

    def allocation(self) -> list[tuple[int, int, int]]:
        """The whole export as (offset, length, STATE_* bits), equal neighbours merged."""
        found: list[tuple[int, int, int]] = []
        offset = 0
        while offset < self.size:
            for length, state in self.block_status(min(self.size - offset, 1 << 31), offset):
                if found and found[-1][2] == state:
                    found[-1] = (found[-1][0], found[-1][1] + length, state)
                else:
                    found.append((offset, length, state))
                offset += length
        return found

    def request(self, command: int, offset: int, length: int, flags: int = 0, data: bytes = b"") -> None:
        """Any request, also one that the protocol forbids. NbdError with the server's verdict."""
        self.finish(self._start(command, offset, length, flags, data))

    def _start(
        self, command: int, offset: int, length: int, flags: int = 0, data: bytes | bytearray | memoryview = b""
    ) -> int:
        self._cookie += 1
        flight = _Flight(command, offset, length)
        if command == CMD_READ:
            flight.data = bytearray(length)
        self._flights[self._cookie] = flight
        head = struct.pack(">IHHQQI", REQUEST, flags, command, self._cookie, offset, length)
        self._send((head, data) if len(data) else (head,))
        return self._cookie

    def finish(self, cookie: int) -> _Flight:
        """Wait for the answer to one request. NbdError if it failed."""
        flight = self._flights[cookie]
        while not flight.done:
            self._take_reply()
        del self._flights[cookie]
        if flight.error is not None:
            if flight.error.errno == ESHUTDOWN:
                raise ConnectionAbortedError("the server is shutting down")
            raise flight.error
        if flight.command == CMD_READ:
            assert flight.covered == flight.length, f"{flight.covered} of {flight.length} bytes came back"
        return flight

    def finish_any(self) -> int:
        """Wait until any request is answered; its cookie, for `finish`."""
        while True:
            for cookie, flight in self._flights.items():
                if flight.done:
                    return cookie
            self._take_reply()

    def _take_reply(self) -> None:
        (magic,) = struct.unpack(">I", self._receive(4))
        if magic == SIMPLE_REPLY:
            error, cookie = struct.unpack(">IQ", self._receive(12))
            flight = self._flights[cookie]
            if error:
                flight.error = NbdError(error)
            elif flight.command == CMD_READ:
                self._receive_into(memoryview(flight.data))
                flight.covered = flight.length
            flight.done = True
            return
        assert magic == STRUCTURED_REPLY, f"bad magic of a reply: {magic:x}"
        flags, kind, cookie, length = struct.unpack(">HHQI", self._receive(16))
        self._take_chunk(self._flights[cookie], kind, length)
        self._flights[cookie].done = bool(flags & CHUNK_FLAG_DONE)

    def _take_chunk(self, flight: _Flight, kind: int, length: int) -> None:
        if kind == CHUNK_DATA:
            (offset,) = struct.unpack(">Q", self._receive(8))
            self._receive_into(self._target(flight, offset, length - 8))
        elif kind == CHUNK_HOLE:
            offset, hole = struct.unpack(">QI", self._receive(12))
            self._target(flight, offset, hole)[:] = bytes(hole)
        elif kind == CHUNK_STATUS:
            body = self._receive(length)
            assert struct.unpack(">I", body[:4])[0] == self._context, "status of another context"
            flight.status += list(struct.iter_unpack(">II", body[4:]))
        elif kind & CHUNK_ERROR:
            body = self._receive(length)
            error, size = struct.unpack(">IH", body[:6])
            flight.error = NbdError(error, bytes(body[6 : 6 + size]).decode(errors="replace"))
        else:
            assert kind == CHUNK_NONE, f"unknown kind of chunk {kind}"
            assert length == 0, "a chunk without content that has one"

    def _target(self, flight: _Flight, offset: int, length: int) -> memoryview:
        at = offset - flight.offset
        assert flight.command == CMD_READ, "data for a request that is no read"
        assert at >= 0, "a chunk before the range that was asked for"
        assert at + length <= flight.length, "a chunk past the range that was asked for"
        flight.covered += length
        return memoryview(flight.data)[at : at + length]

    # The socket

    def _send(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        sent = self._socket.sendmsg(parts)
        for part in parts:
            if sent < len(part):
                self._socket.sendall(memoryview(part)[sent:])
                sent = 0
            else:
                sent -= len(part)

    def _receive(self, length: int) -> bytearray:
        buffer = bytearray(length)
        self._receive_into(memoryview(buffer))
        return buffer

    def _receive_into(self, view: memoryview) -> None:
        while len(view):
            got = self._socket.recv_into(view)
            if got == 0:
                raise ConnectionResetError("the server closed the connection")
            view = view[got:]

    def close(self) -> None:
        """Say good-bye and close. Does nothing on a connection that broke."""
        with contextlib.suppress(OSError):  # the other end is gone: nobody to say good-bye to
            self._socket.sendall(struct.pack(">IHHQQI", REQUEST, 0, CMD_DISC, 0, 0, 0))
        self._socket.close()

    def abort(self) -> None:
        """Drop the connection without a word, as a client that died."""
        self._socket.close()

    def __enter__(self) -> NbdClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(uri: str, timeout_s: float) -> tuple[socket.socket, str]:
    """A connected socket and the name of the export."""
    parts = urlsplit(uri)
    name = unquote(parts.path.removeprefix("/"))
    if parts.scheme == "nbd+unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        connection.connect(unquote(parts.query.removeprefix("socket=")))
    else:
        assert parts.scheme == "nbd", f"not an NBD address: {uri}"
        connection = socket.create_connection((parts.hostname or "localhost", parts.port or 10809), timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection, name
