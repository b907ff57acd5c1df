"""Bytes to messages and back, with no socket: the caller moves the bytes, the codec says where to.

The decoder hands out the exact memory that the next bytes belong in, so a payload lands where `place` wants it and
is never copied. Every length is compared with its limit before memory is made for it. A header is msgpack, read
with explicit limits, then turned into its struct: block data never passes through msgpack.
This module must never do I/O, and never guess: what it does not know ends the stream with one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

import msgpack  # type: ignore[import-untyped, unused-ignore]
import msgspec

from blockstore.units import BLOCK
from engine.errors import WireDamaged, WireLimit
from engine.wire import limits
from engine.wire.frames import CHECKED_BYTES, Prefix, build_prefix, check_of, parse_prefix
from engine.wire.messages import NUMBERS, TYPES, Data, Hello, Message, Pair, Paired, Refused, Resume, Retry

Buffer: TypeAlias = bytes | bytearray | memoryview

Place = Callable[[Data, int], Sequence[memoryview]]
"""Where the payload of this DATA (that many bytes) belongs: writable views, filled one after another."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_BEFORE_HELLO: Final = (Hello, Refused, Pair, Paired)
_HEADER_LIMITS: Final[dict[type[msgspec.Struct], int]] = {
    Hello: limits.HELLO_HEADER_BYTES,
    Refused: limits.HEADER_BYTES,
    Pair: limits.HELLO_HEADER_BYTES,
    Paired: limits.HELLO_HEADER_BYTES,
    Resume: limits.PRESENCE_HEADER_BYTES,
    Retry: limits.PRESENCE_HEADER_BYTES,
    Data: limits.DATA_HEADER_BYTES,
}


def header_limit(kind: type[msgspec.Struct]) -> int:
    """The largest header in bytes that a message of this class may have."""
    return _HEADER_LIMITS.get(kind, limits.HEADER_BYTES)


def encode(message: Message, payload_bytes: int = 0) -> bytes:
    """Prefix and header of `message`; its payload follows them. Raises WireLimit for what the peer would refuse."""
    header = _ENCODER.encode(message)
    _within(f"a header of {type(message).__name__}", len(header), header_limit(type(message)))
    if isinstance(message, Data):
        check_payload(message, payload_bytes)
    else:
        assert payload_bytes == 0, "only DATA has a payload"
    return build_prefix(NUMBERS[type(message)], header, payload_bytes) + header


def check_payload(data: Data, payload_bytes: int) -> None:
    """Compare the lengths that a DATA states with each other and with the limits. Raises WireDamaged, WireLimit."""
    _within("a payload", payload_bytes, limits.PAYLOAD_BYTES)
    stored = plain = payload_bytes - data.head_bytes
    if data.codec == "plain":
        if data.pieces:
            raise WireDamaged(reason="a plain frame names compressed pieces")
    else:
        stored = sum(piece[0] for piece in data.pieces)
        plain = sum(piece[1] for piece in data.pieces)
        for piece_stored, piece_plain in data.pieces:
            _within("a piece", piece_plain, limits.PIECE_BYTES)
            if not 0 < piece_stored <= piece_plain:
                raise WireDamaged(reason=f"a piece of {piece_plain} bytes is stored in {piece_stored}")
    if stored != payload_bytes - data.head_bytes:
        raise WireDamaged(reason=f"a payload of {payload_bytes} bytes does not hold what its header names")
    if plain < 0 or plain % BLOCK:
        raise WireDamaged(reason=f"{plain} bytes of blocks are not whole blocks")
    _within("a frame of blocks", plain, limits.BLOCKS_BYTES)


def _within(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise WireLimit(what=what, size=size, limit=limit)


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands twice")
    return found


def decode_header(kind: type[msgspec.Struct], header: Buffer) -> Message:
    """The message of class `kind` in this header. Raises WireDamaged."""
    length = len(memoryview(header))
    try:
        fields = msgpack.unpackb(
            header,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_once,
            max_str_len=min(length, 4 * limits.TEXT_CHARS),
            max_bin_len=length,
            max_array_len=limits.CONTAINER_ITEMS,
            max_map_len=limits.WORDS,
            max_ext_len=0,
        )
        return cast(Message, msgspec.convert(fields, kind, builtin_types=(bytes,)))
    except (ValueError, TypeError, msgpack.UnpackException, msgspec.ValidationError) as error:
        raise WireDamaged(reason=f"a header of {kind.__name__} is not valid ({error})"[:300]) from None


class Decoder:
    """One direction of one connection. Write bytes to `target()`, tell how many with `advance`, in turn.

    Until `greeted` is set only HELLO, REFUSED, PAIR and PAIRED are read: the sender may be a stranger. After an error
    the decoder is of no further use.
    """

    __slots__ = (
        "_header",
        "_kind",
        "_message",
        "_place",
        "_prefix",
        "_prefix_bytes",
        "_segments",
        "_target",
        "greeted",
    )

    def __init__(self, place: Place) -> None:
        self.greeted = False
        self._place = place
        self._prefix_bytes = memoryview(bytearray(limits.PREFIX_BYTES))
        self._prefix: Prefix | None = None
        self._header: memoryview | None = None
        self._message: Message | None = None
        self._segments: list[memoryview] = []
        self._target = self._prefix_bytes

    def target(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self._target

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without a loss."""
        return self._prefix is None and self._message is None and len(self._target) == limits.PREFIX_BYTES

    def advance(self, count: int) -> Message | None:
        """`count` bytes were written to the front of the target. Returns a message when it is whole, payload too.

        Raises WireDamaged, WireLimit, and what `place` raises.
        """
        if count < len(self._target):
            self._target = self._target[count:]
            return None
        if self._message is not None:
            return self._next_segment()
        if self._prefix is None:
            self._read_prefix()
            return None
        return self._read_header(self._prefix)

    def feed(self, data: Buffer) -> Iterator[Message]:
        """Decode bytes that are in memory already; copies them. Like `advance`, lazily."""
        rest = memoryview(data).cast("B")
        while rest:
            target = self._target
            count = min(len(target), len(rest))
            target[:count] = rest[:count]
            rest = rest[count:]
            if (message := self.advance(count)) is not None:
                yield message

    def drop(self) -> None:
        """Forget the memory that `place` gave: nothing is written there any more."""
        self._segments = []
        self._message = None
        self._target = self._prefix_bytes

    def _read_prefix(self) -> None:
        prefix = parse_prefix(self._prefix_bytes)
        kind = TYPES[prefix.type]
        if not self.greeted and kind not in _BEFORE_HELLO:
            raise WireDamaged(reason=f"{kind.__name__} came before HELLO")
        limit = header_limit(kind) if self.greeted else limits.HELLO_HEADER_BYTES
        _within(f"a header of {kind.__name__}", prefix.header_bytes, limit)
        if prefix.header_bytes == 0:
            raise WireDamaged(reason="a frame has no header")
        if kind is not Data and prefix.payload_bytes:
            raise WireDamaged(reason=f"{kind.__name__} carries a payload")
        _within("a payload", prefix.payload_bytes, limits.PAYLOAD_BYTES)
        self._prefix = prefix
        self._header = self._target = memoryview(bytearray(prefix.header_bytes))

    def _read_header(self, prefix: Prefix) -> Message | None:
        assert self._header is not None
        if check_of(self._prefix_bytes[:CHECKED_BYTES], self._header) != prefix.check:
            raise WireDamaged(reason="a frame's check does not match")
        message = decode_header(TYPES[prefix.type], self._header)
        self._prefix = self._header = None
        self._target = self._prefix_bytes
        if not isinstance(message, Data):
            return message
        check_payload(message, prefix.payload_bytes)
        self._segments = [view for view in reversed(self._place(message, prefix.payload_bytes)) if len(view)]
        assert sum(map(len, self._segments)) == prefix.payload_bytes, "`place` gives memory for the whole payload"
        self._message = message
        return self._next_segment()

    def _next_segment(self) -> Message | None:
        if self._segments:
            self._target = self._segments.pop()
            return None
        message, self._message = self._message, None
        self._target = self._prefix_bytes
        return message
