"""The transmission phase of NBD as values: requests in, refusals and replies out. Every refusal is here.

A request is 28 bytes and the payload of a write. `Transmission.request` turns the bytes into plain integers
and an NBD error number (0: to be served), so that whoever serves it never looks at sizes, flags or limits.
This module must never touch a socket, a clock or a store, and never allocate by a number that a client sent.

Source: the protocol text of the NBD project, `doc/proto.md` (transmission phase, error values, command
flags), and its `base:allocation` context. All integers are big-endian.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blockstore.errors import LayerSpace, LeewardError, WriteRefused

READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)

FUA = 1 << 0
NO_HOLE = 1 << 1
DONT_FRAGMENT = 1 << 2
ONE_EXTENT = 1 << 3
FAST_ZERO = 1 << 4

EPERM, EIO, EINVAL, ENOSPC, ENOMEM = 1, 5, 22, 28, 12

REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

CHUNK_DONE = 1
CHUNK_DATA = 1
CHUNK_STATUS = 5
CHUNK_ERROR = (1 << 15) + 1

ALLOCATION_CONTEXT = "base:allocation"
ALLOCATION_ID = 1
STATE_HOLE_ZERO = 3

REQUEST = struct.Struct(">IHHQQI")
REQUEST_BYTES = REQUEST.size
SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_DATA_CHUNK = struct.Struct(">IHHQIQ")
_ERROR_CHUNK = struct.Struct(">IHHQIIH")
_STATUS_CHUNK = struct.Struct(">IHHQII")
SIMPLE_BYTES = SIMPLE.size
DATA_CHUNK_BYTES = _DATA_CHUNK.size

MAX_PAYLOAD = 32 * 1024 * 1024
"""Bytes that one read or write may move; announced to clients that ask."""

MAX_REFUSED_PAYLOAD = 64 * 1024 * 1024
"""A write above `MAX_PAYLOAD` is refused and its payload thrown away up to here; above, the client is sent off."""

MIN_BLOCK, PREFERRED_BLOCK = 1, 4096

STATUS_BYTES = 512 * 1024 * 1024
"""Bytes that one block status answers for at most: bounds the list of extents. Clients ask again for the rest."""

STATUS_BYTES_ONE = 128 * 1024 * 1024
"""The same when one extent is wanted: what lies behind the first is looked up in vain."""

FIRST_LOOK_BYTES = 256 * 1024
"""So the first look is this short, and each next one eight times as long while one extent fills it: a client that
walks a fragmented image one extent at a time would have it all looked up for each."""

_ALLOWED_FLAGS = {
    READ: FUA | DONT_FRAGMENT,
    WRITE: FUA,
    DISCONNECT: 0xFFFF,
    FLUSH: FUA,
    TRIM: FUA,
    WRITE_ZEROES: FUA | NO_HOLE,
    BLOCK_STATUS: FUA | ONE_EXTENT,
}
"""FUA must be accepted with every command. FAST_ZERO is not offered: a store cannot tell beforehand."""

_CHANGES = frozenset((WRITE, TRIM, WRITE_ZEROES))


class Violation(Exception):
    """The client does not speak NBD, or broke a rule after which the stream cannot be read on: disconnect it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """What a client may know of an export. `size_bytes` may be any number, also no multiple of a block."""

    name: str
    size_bytes: int
    read_only: bool
    description: str = ""


def transmission_flags(export: ExportInfo, *, structured: bool) -> int:
    """The u16 of what may be asked of `export`. Several connections are promised: one file, one flush."""
    flags = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 8  # has flags, FLUSH, FUA, several connections
    if structured:
        flags |= 1 << 7  # DONT_FRAGMENT
    if export.read_only:
        return flags | 1 << 1
    return flags | 1 << 5 | 1 << 6  # TRIM, WRITE_ZEROES


class Transmission:
    """What was agreed on one connection, and the judgement of every request under it."""

    __slots__ = ("_plain_writes", "allocation", "export", "size_bytes", "structured")

    def __init__(self, export: ExportInfo, *, structured: bool, allocation: bool) -> None:
        self.export = export
        self.size_bytes = export.size_bytes
        self.structured = structured
        self.allocation = allocation and structured
        self._plain_writes = READ if export.read_only else WRITE

    def request(self, view: memoryview, at: int) -> tuple[int, int, int, int, int, int]:
        """The request in the 28 bytes at `view[at:]`: (kind, flags, cookie, offset, length, error).

        `error` is 0 or the NBD error to answer with; a refused write is still followed by `length` bytes of
        payload, at most `MAX_REFUSED_PAYLOAD`. A tuple of integers: this runs for every request of a host.
        Raises Violation when these are no request.
        """
        magic, flags, kind, cookie, offset, length = REQUEST.unpack_from(view, at)
        if magic != REQUEST_MAGIC:
            raise Violation(f"a request began with 0x{magic:08x}")
        plain = kind <= self._plain_writes and flags <= FUA
        if plain and 0 < length <= MAX_PAYLOAD and offset + length <= self.size_bytes:
            return kind, flags, cookie, offset, length, 0
        return kind, flags, cookie, offset, length, self._refusal(kind, flags, offset, length)

    def _refusal(self, kind: int, flags: int, offset: int, length: int) -> int:
        """The error of a request that is not plainly fine; 0 if it is."""
        if kind == WRITE and length > MAX_REFUSED_PAYLOAD:
            raise Violation(f"a write of {length} bytes")
        allowed = _ALLOWED_FLAGS.get(kind)
        if kind in _CHANGES and self.export.read_only:
            return EPERM
        if allowed is None or flags & ~allowed or (flags & DONT_FRAGMENT and not self.structured):
            return EINVAL
        if kind == DISCONNECT:
            return 0
        if kind == FLUSH:
            return EINVAL if offset or length else 0
        if not length or (kind <= WRITE and length > MAX_PAYLOAD) or (kind == BLOCK_STATUS and not self.allocation):
            return EINVAL
        if offset + length > self.size_bytes:
            return ENOSPC if kind in (WRITE, WRITE_ZEROES) else EINVAL
        return 0

    def read_head_bytes(self) -> int:
        """Bytes that stand before the data of a read."""
        return DATA_CHUNK_BYTES if self.structured else SIMPLE_BYTES

    def put_read_head(self, view: memoryview, cookie: int, offset: int, length: int, *, last: bool = True) -> None:
        """Write what stands before `length` bytes of data from `offset` to the start of `view`.

        `last`: no more of this read follows. Without structured replies a read is always answered in one piece.
        """
        if self.structured:
            done = CHUNK_DONE if last else 0
            _DATA_CHUNK.pack_into(view, 0, CHUNK_MAGIC, done, CHUNK_DATA, cookie, length + 8, offset)
        else:
            assert last, "a simple reply is one piece"
            SIMPLE.pack_into(view, 0, SIMPLE_MAGIC, 0, cookie)

    def error_reply(self, kind: int, cookie: int, error: int, text: str = "") -> bytes:
        """The answer to a request that failed with the NBD `error`; `text` is for a person at the client."""
        if self.structured and kind in (READ, BLOCK_STATUS):
            words = text.encode()[:1024]
            head = _ERROR_CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, CHUNK_ERROR, cookie, 6 + len(words), error, len(words))
            return head + words
        return SIMPLE.pack(SIMPLE_MAGIC, error, cookie)

    @staticmethod
    def status_reply(cookie: int, extents: Iterable[tuple[int, int, bool]], *, one: bool) -> bytes:
        """The answer to a block status: `extents` are (offset, length, has data), ascending, without gaps.

        Neighbours of one kind become one descriptor. Raises ValueError if there is none.
        """
        runs: list[list[int]] = []
        for _, length, has_data in extents:
            state = 0 if has_data else STATE_HOLE_ZERO
            if runs and runs[-1][1] == state:
                runs[-1][0] += length
            elif one and runs:
                break
            else:
                runs.append([length, state])
        if not runs:
            raise ValueError("no extent to report")
        numbers = [number for run in runs for number in run]
        body = struct.pack(f">{len(numbers)}I", *numbers)
        head = _STATUS_CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, CHUNK_STATUS, cookie, 4 + len(body), ALLOCATION_ID)
        return head + body


def simple_reply(cookie: int, error: int = 0) -> bytes:
    """The 16 bytes that answer anything but a read or a block status."""
    return SIMPLE.pack(SIMPLE_MAGIC, error, cookie)


def status_lengths(length: int, flags: int) -> Iterator[int]:
    """How many of the `length` bytes asked for a block status looks at: longer ones while one extent fills it."""
    if not flags & ONE_EXTENT:
        yield min(length, STATUS_BYTES)
        return
    most, look = min(length, STATUS_BYTES_ONE), FIRST_LOOK_BYTES
    while look < most:
        yield look
        look *= 8
    yield most


def error_number(error: Exception) -> int:
    """The NBD error for what a `BlockIO` failed with."""
    if isinstance(error, WriteRefused):
        return EPERM
    if isinstance(error, LayerSpace):
        return ENOSPC
    if isinstance(error, MemoryError):
        return ENOMEM
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ENOSPC
    return EIO


def failure_text(error: Exception) -> str:
    """One line for the client about what failed; nothing about paths or state unless the error has it."""
    if isinstance(error, LeewardError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "internal error"
