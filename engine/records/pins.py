"""Pins: what holds a point, so that no fold or drop can take it. A row per point and holder.

The database thread decides between a pin and a fold that start together: both are transactions. This module
must never let a holder go by itself.
"""

from __future__ import annotations

import sqlite3

from engine.errors import UnknownName
from engine.model import GroupId, PointId, SetAsideId, SnapshotId

PROMOTED = "promoted"
"""Holder of what a promotion keeps until the promoted side has sealed at its peer (lineage.md 5)."""


def of_set_aside(set_aside: SetAsideId) -> str:
    """The holder's name of a set-aside."""
    return f"set-aside:{set_aside.hex()}"


def of_snapshot(snapshot: SnapshotId) -> str:
    """The holder's name of a snapshot."""
    return f"snapshot:{snapshot.hex()}"


def pin(conn: sqlite3.Connection, point: PointId, holder: str) -> None:
    """Hold the point until `unpin` by the same holder; again: nothing. Raises UnknownName if it is gone."""
    if conn.execute("SELECT 1 FROM point WHERE id = ?", (point,)).fetchone() is None:
        raise UnknownName(what="point", name=point.hex())
    conn.execute("INSERT OR IGNORE INTO pin (point, holder) VALUES (?, ?)", (point, holder))


def unpin(conn: sqlite3.Connection, point: PointId, holder: str) -> None:
    """Again: nothing."""
    conn.execute("DELETE FROM pin WHERE point = ? AND holder = ?", (point, holder))


def unpin_group(conn: sqlite3.Connection, group: GroupId, holder: str) -> None:
    """The holder lets go of every point of the group."""
    conn.execute(
        "DELETE FROM pin WHERE holder = ? AND point IN (SELECT id FROM point WHERE group_id = ?)", (holder, group)
    )


def holders(conn: sqlite3.Connection, point: PointId) -> tuple[str, ...]:
    """Who holds the point."""
    rows = conn.execute("SELECT holder FROM pin WHERE point = ? ORDER BY holder", (point,))
    return tuple(row["holder"] for row in rows)
