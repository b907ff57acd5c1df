"""The prefix of a frame: 32 bytes that say what follows and how long it is.

    0 magic "LWP1" | 4 u8 type | 5 u8 flags, 0 | 6 u16 0 | 8 u32 bytes of header | 12 u32 0
    16 u64 bytes of payload | 24 u64 check: xxh3-64 (seed 0) over bytes 0..23 and the header

Little-endian. The check guards against a stream that lost its place, not against an enemy: that is TLS's work,
and blocks carry hashes of their own. This module must never look into a header or a payload.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from xxhash import xxh3_64

from engine.errors import WireDamaged
from engine.wire.limits import PREFIX_BYTES
from engine.wire.messages import TYPES

MAGIC = b"LWP1"

_LAYOUT = struct.Struct("<4sBBHIIQ")
_CHECK = struct.Struct("<Q")
CHECKED_BYTES = _LAYOUT.size
"""The part of the prefix that the check covers; the check itself follows it."""

assert CHECKED_BYTES + _CHECK.size == PREFIX_BYTES


class Prefix(NamedTuple):
    """`type`: a number of `messages.TYPES`. Lengths in bytes."""

    type: int
    header_bytes: int
    payload_bytes: int
    check: int


def build_prefix(type_number: int, header: bytes, payload_bytes: int) -> bytes:
    """The prefix of a frame with this header."""
    checked = _LAYOUT.pack(MAGIC, type_number, 0, 0, len(header), 0, payload_bytes)
    return checked + _CHECK.pack(check_of(checked, header))


def check_of(checked: bytes | memoryview, header: bytes | memoryview) -> int:
    """The check over the first `CHECKED_BYTES` of a prefix and its header."""
    digest = xxh3_64(checked)
    digest.update(header)
    return digest.intdigest()


def parse_prefix(view: memoryview) -> Prefix:
    """The prefix in `view` (32 bytes), its check not yet compared. Raises WireDamaged; lengths are not judged here."""
    magic, kind, flags, zero_a, header_bytes, zero_b, payload_bytes = _LAYOUT.unpack_from(view)
    if magic != MAGIC:
        raise WireDamaged(reason=f"a frame begins with {magic!r}")
    if kind not in TYPES:
        raise WireDamaged(reason=f"message type {kind} is not known")
    if flags or zero_a or zero_b:
        raise WireDamaged(reason="reserved bits of a frame are set")
    (check,) = _CHECK.unpack_from(view, CHECKED_BYTES)
    return Prefix(kind, header_bytes, payload_bytes, check)
