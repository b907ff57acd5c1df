"""Which points of a group stay, as an operator asked for it, and the space that its points take here.

The number of points to keep stands in the group's own row; a schedule beside it, if there is one, stands here. This
module must never decide what goes: `engine.decide.retention` does.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from engine.decide.retention import going, parse
from engine.model import GroupId, Point, PointId
from engine.records import groups, points


@dataclass(frozen=True, slots=True)
class Kept:
    """`schedule` as it was written, empty for none; how many points are here, and the bytes of all their layers."""

    schedule: str
    points: int
    bytes: int


def schedule_of(conn: sqlite3.Connection, group: GroupId) -> str:
    """As it was written; empty: there is none."""
    row = conn.execute("SELECT schedule FROM retention WHERE group_id = ?", (group,)).fetchone()
    return "" if row is None else str(row["schedule"])


def set_schedule(conn: sqlite3.Connection, group: GroupId, schedule: str) -> None:
    """`schedule` has been parsed; empty: points are kept by count alone."""
    conn.execute("DELETE FROM retention WHERE group_id = ?", (group,))
    if schedule:
        conn.execute("INSERT INTO retention (group_id, schedule) VALUES (?, ?)", (group, schedule))


def due(conn: sqlite3.Connection, group: GroupId, keep: int) -> tuple[Point, ...]:
    """The points that count and schedule let go now, oldest first, wherever in the chain they are."""
    common = groups.by_id(conn, group).common
    return going(
        points.of_group(conn, group),
        keep=keep,
        schedule=parse(schedule_of(conn, group)),
        common=common.id if common is not None else None,
    )


_LAYERS = (
    "SELECT point, length_bytes FROM layer WHERE kind = 'pack' AND state IN ('sealed', 'folding', 'set_aside')"
    " AND volume IN (SELECT id FROM volume WHERE group_id = ?)"
)


def kept(conn: sqlite3.Connection, group: GroupId) -> Kept:
    count = conn.execute("SELECT count(*) AS n FROM point WHERE group_id = ?", (group,)).fetchone()["n"]
    size = conn.execute(f"SELECT coalesce(sum(length_bytes), 0) AS n FROM ({_LAYERS})", (group,)).fetchone()["n"]
    return Kept(schedule_of(conn, group), int(count), int(size))


def space(conn: sqlite3.Connection, group: GroupId) -> dict[PointId, int]:
    """Bytes that the layers of each point take. A point without layers is the base itself."""
    rows = conn.execute(f"SELECT point, sum(length_bytes) AS n FROM ({_LAYERS}) GROUP BY point", (group,))
    return {PointId(row["point"]): int(row["n"]) for row in rows if row["point"] is not None}
