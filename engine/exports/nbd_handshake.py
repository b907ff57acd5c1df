"""The handshake of NBD as values: fixed newstyle, from the greeting to an agreed `Transmission`.

`Handshake` eats the client's bytes and leaves the answers in `take()`. It ends with a `Transmission`, or with
`left` when the client said goodbye or asked for what is not here. This module must never touch a socket, and
never believe a length before it is checked against a limit.

Source: the protocol text of the NBD project, `doc/proto.md` (handshake phase, option types, information
types, metadata querying). All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Protocol

from engine.exports.nbd_protocol import (
    ALLOCATION_CONTEXT,
    ALLOCATION_ID,
    MAX_PAYLOAD,
    MIN_BLOCK,
    PREFERRED_BLOCK,
    ExportInfo,
    Transmission,
    Violation,
    transmission_flags,
)

GREETING = struct.pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 1 << 0 | 1 << 1)
"""NBDMAGIC, IHAVEOPT, and: fixed newstyle, no zeroes after EXPORT_NAME if the client agrees."""

OPTION_MAGIC = 0x49484156454F5054
REPLY_MAGIC = 0x3E889045565A9

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST = 1, 2, 3
OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT = 6, 7, 8, 9, 10

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
_ERROR = 1 << 31
REP_ERR_UNSUPPORTED, REP_ERR_INVALID, REP_ERR_UNKNOWN = _ERROR + 1, _ERROR + 3, _ERROR + 6

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

MAX_OPTION_BYTES = 64 * 1024
"""Bytes of one option's data. The longest that means something is a name and a few queries, 4 KiB each."""

MAX_NAME_BYTES = 4096

MAX_ANSWER_BYTES = 256 * 1024
"""Bytes of answers that gather before no further option is looked at: they must be taken first."""

_OPTION = struct.Struct(">QII")
_REPLY = struct.Struct(">QIII")


class ExportTable(Protocol):
    """The exports that a client may see."""

    def names(self) -> Iterable[str]:
        """In the order to list them."""

    def find(self, name: str) -> ExportInfo | None:
        """The export of that name, if it is presented now."""


class _Invalid(Exception):
    """An option's data do not have the form that they should; the client is told and may go on."""


class Handshake:
    """One client's way to an export. Feed it with `receive` until `transmission` or `left` is set."""

    def __init__(self, exports: ExportTable) -> None:
        self.transmission: Transmission | None = None
        self.left = False
        self._exports = exports
        self._out = bytearray(GREETING)
        self._greeted = False
        self._no_zeroes = False
        self._structured = False
        self._context_of: str | None = None
        """The export that base:allocation was agreed for."""

    @property
    def crowded(self) -> bool:
        """True: `receive` stopped because of the answers that wait in `take`."""
        return len(self._out) >= MAX_ANSWER_BYTES

    @property
    def done(self) -> bool:
        return self.left or self.transmission is not None

    def take(self) -> bytes:
        """The bytes to send that have gathered, the greeting first of all."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def receive(self, view: memoryview) -> int:
        """Eat whole messages from the start of `view` and return how many bytes that were; keep the rest.

        Stops early while `MAX_ANSWER_BYTES` or more wait in `take`: call again when they are sent.
        A message is at most 16 bytes longer than `MAX_OPTION_BYTES`. Raises Violation for a client that does
        not speak fixed newstyle NBD.
        """
        eaten = 0
        while not self.done and len(self._out) < MAX_ANSWER_BYTES:
            used = self._option(view[eaten:]) if self._greeted else self._flags(view[eaten:])
            if not used:
                break
            eaten += used
        return eaten

    def _flags(self, view: memoryview) -> int:
        if len(view) < 4:
            return 0
        (flags,) = struct.unpack_from(">I", view)
        if flags & ~3 or not flags & 1:
            raise Violation(f"the client's flags are 0x{flags:08x}")
        self._no_zeroes = bool(flags & 2)
        self._greeted = True
        return 4

    def _option(self, view: memoryview) -> int:
        if len(view) < _OPTION.size:
            return 0
        magic, option, length = _OPTION.unpack_from(view)
        if magic != OPTION_MAGIC:
            raise Violation(f"an option began with 0x{magic:016x}")
        if length > MAX_OPTION_BYTES:
            raise Violation(f"option {option} with {length} bytes of data")
        end: int = _OPTION.size + length
        if len(view) < end:
            return 0
        self._answer(option, bytes(view[_OPTION.size : end]))
        return end

    def _answer(self, option: int, data: bytes) -> None:
        try:
            if option == OPT_EXPORT_NAME:
                self._export_name(data)
            elif option == OPT_ABORT:
                self._reply(option, REP_ACK)
                self.left = True
            elif option == OPT_LIST:
                self._list(data)
            elif option in (OPT_INFO, OPT_GO):
                self._info(option, data)
            elif option == OPT_STRUCTURED_REPLY:
                _must_be_empty(data)
                self._structured = True
                self._reply(option, REP_ACK)
            elif option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
                self._contexts(option, data)
            else:
                self._reply(option, REP_ERR_UNSUPPORTED, b"this server has no such option")
        except _Invalid as problem:
            self._reply(option, REP_ERR_INVALID, str(problem).encode())

    def _export_name(self, data: bytes) -> None:
        """The old way in: no refusal can be told, so an unknown name ends the connection."""
        try:
            name = _text(data)
        except _Invalid as problem:
            raise Violation(f"export name: {problem}") from problem
        export = self._exports.find(name)
        if export is None:
            self.left = True
            return
        self._out += struct.pack(">QH", export.size_bytes, transmission_flags(export, structured=self._structured))
        if not self._no_zeroes:
            self._out += bytes(124)
        self._agree(export)

    def _list(self, data: bytes) -> None:
        _must_be_empty(data)
        for name in self._exports.names():
            export = self._exports.find(name)
            if export is not None:
                raw = name.encode()
                body = struct.pack(">I", len(raw)) + raw + export.description.encode()[:MAX_NAME_BYTES]
                self._reply(OPT_LIST, REP_SERVER, body)
        self._reply(OPT_LIST, REP_ACK)

    def _info(self, option: int, data: bytes) -> None:
        name, wanted = _parse_info(data)
        export = self._exports.find(name)
        if export is None:
            self._unknown(option, name)
            return
        flags = transmission_flags(export, structured=self._structured)
        self._reply(option, REP_INFO, struct.pack(">HQH", INFO_EXPORT, export.size_bytes, flags))
        if INFO_NAME in wanted:
            self._reply(option, REP_INFO, struct.pack(">H", INFO_NAME) + name.encode())
        if INFO_DESCRIPTION in wanted and export.description:
            words = export.description.encode()[:MAX_NAME_BYTES]
            self._reply(option, REP_INFO, struct.pack(">H", INFO_DESCRIPTION) + words)
        if INFO_BLOCK_SIZE in wanted:
            sizes = struct.pack(">HIII", INFO_BLOCK_SIZE, MIN_BLOCK, PREFERRED_BLOCK, MAX_PAYLOAD)
            self._reply(option, REP_INFO, sizes)
        self._reply(option, REP_ACK)
        if option == OPT_GO:
            self._agree(export)

    def _contexts(self, option: int, data: bytes) -> None:
        if option == OPT_SET_META_CONTEXT:
            self._context_of = None  # whatever comes of it, what was agreed before is void
            if not self._structured:
                raise _Invalid("structured replies must be agreed first")
        name, queries = _parse_contexts(data)
        if self._exports.find(name) is None:
            self._unknown(option, name)
            return
        if option == OPT_SET_META_CONTEXT:
            chosen = ALLOCATION_CONTEXT in queries
            if chosen:
                self._context_of = name
        else:
            chosen = not queries or ALLOCATION_CONTEXT in queries or "base:" in queries
        if chosen:
            number = ALLOCATION_ID if option == OPT_SET_META_CONTEXT else 0
            self._reply(option, REP_META_CONTEXT, struct.pack(">I", number) + ALLOCATION_CONTEXT.encode())
        self._reply(option, REP_ACK)

    def _agree(self, export: ExportInfo) -> None:
        allocation = self._context_of == export.name
        self.transmission = Transmission(export, structured=self._structured, allocation=allocation)

    def _unknown(self, option: int, name: str) -> None:
        self._reply(option, REP_ERR_UNKNOWN, f"there is no export named {name[:200]!r} here".encode())

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self._out += _REPLY.pack(REPLY_MAGIC, option, kind, len(data)) + data


def _must_be_empty(data: bytes) -> None:
    if data:
        raise _Invalid("this option takes no data")


def _text(raw: bytes) -> str:
    if len(raw) > MAX_NAME_BYTES:
        raise _Invalid(f"longer than {MAX_NAME_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _Invalid("not UTF-8") from None


def _take_text(data: bytes, at: int) -> tuple[str, int]:
    """A string with its u32 length in front, and where it ends."""
    if len(data) < at + 4:
        raise _Invalid("the data end too early")
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 4 + length
    if len(data) < end:
        raise _Invalid("the data end too early")
    return _text(data[at + 4 : end]), end


def _parse_info(data: bytes) -> tuple[str, Sequence[int]]:
    """Name of the export and the information types asked for."""
    name, at = _take_text(data, 0)
    if len(data) < at + 2:
        raise _Invalid("the data end too early")
    (count,) = struct.unpack_from(">H", data, at)
    if len(data) != at + 2 + 2 * count:
        raise _Invalid("the number of information requests does not fit the data")
    return name, struct.unpack_from(f">{count}H", data, at + 2)


def _parse_contexts(data: bytes) -> tuple[str, Sequence[str]]:
    """Name of the export and the queries for metadata contexts."""
    name, at = _take_text(data, 0)
    if len(data) < at + 4:
        raise _Invalid("the data end too early")
    (count,) = struct.unpack_from(">I", data, at)
    at += 4
    queries: list[str] = []
    for _ in range(count):  # every query takes four bytes at least: the data end before a lying count does harm
        query, at = _take_text(data, at)
        queries.append(query)
    if at != len(data):
        raise _Invalid("there are bytes behind the last query")
    return name, queries
