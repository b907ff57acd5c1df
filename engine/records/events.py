"""Events: what an operator may want to know. The newest 10,000 are kept; a number is never given twice."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from engine.model import Event
from engine.records.columns import from_us, to_us

KEPT = 10_000
"""Older events than so many are forgotten."""


def append(
    conn: sqlite3.Connection,
    *,
    at: datetime,
    level: str,
    code: str,
    message: str,
    group: str | None = None,
    details: str = "{}",
) -> Event:
    """Add an event; `level` is info, warning or error, `details` a JSON object. Returns it with its number."""
    row = conn.execute(
        "INSERT INTO event (at_us, level, code, group_name, message, details) VALUES (?, ?, ?, ?, ?, ?)"
        " RETURNING sequence",
        (to_us(at), level, code, group, message, details),
    ).fetchone()
    sequence = int(row["sequence"])
    conn.execute("DELETE FROM event WHERE sequence <= ?", (sequence - KEPT,))
    return Event(sequence, at, level, code, group, message, details)


def after(conn: sqlite3.Connection, sequence: int, limit: int) -> tuple[Event, ...]:
    """The first `limit` events with a number above `sequence`, ascending."""
    rows = conn.execute("SELECT * FROM event WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, limit))
    return tuple(_from(row) for row in rows)


def newest(conn: sqlite3.Connection, limit: int) -> tuple[Event, ...]:
    """The last `limit` events, ascending."""
    rows = conn.execute("SELECT * FROM event ORDER BY sequence DESC LIMIT ?", (limit,)).fetchall()
    return tuple(_from(row) for row in reversed(rows))


def _from(row: sqlite3.Row) -> Event:
    return Event(
        sequence=row["sequence"],
        at=from_us(row["at_us"]),
        level=row["level"],
        code=row["code"],
        group=row["group_name"],
        message=row["message"],
        details=row["details"],
    )
