"""How ids, times and unsigned numbers become columns and come back. Pure.

Times are whole microseconds since 1970 UTC. SQLite's integers are signed 64-bit, so a number that may need
all 64 bits is an 8-byte little-endian blob. This module must never know a table.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from sqlite3 import Connection

__all__ = ["Connection", "from_u64", "from_us", "marks", "maybe_at", "maybe_us", "to_u64", "to_us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware time, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC time of `us` microseconds since 1970."""
    return _EPOCH + us * _MICROSECOND


def maybe_us(at: datetime | None) -> int | None:
    return None if at is None else to_us(at)


def maybe_at(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def to_u64(value: int) -> bytes:
    """OverflowError unless `value` fits 64 bits without a sign."""
    return value.to_bytes(8, "little")


def from_u64(blob: bytes) -> int:
    return int.from_bytes(blob, "little")


def marks(count: int) -> str:
    """`count` placeholders for an IN list."""
    return ", ".join("?" * count)
