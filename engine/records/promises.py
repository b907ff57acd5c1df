"""When the RPO of each group began to be kept, and when it was broken. What is older than a day is forgotten.

This module must never judge a promise: `decide/schedule.py` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.decide.schedule import DAY, Turn
from engine.model import GroupId
from engine.records.columns import from_us, to_us


def add(conn: sqlite3.Connection, group: GroupId, turns: Sequence[Turn]) -> None:
    """Turns behind those that are recorded, ascending. The one that held a day before the last of them stays.

    Of a group that was removed meanwhile: nothing.
    """
    for turn in turns:
        kept = None if turn.kept is None else int(turn.kept)
        conn.execute(
            "INSERT INTO promise (group_id, at_us, kept)"
            ' SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM "group" WHERE id = ?1)',
            (group, to_us(turn.at), kept),
        )
    if turns:
        begin = to_us(turns[-1].at - DAY)
        conn.execute(
            "DELETE FROM promise WHERE group_id = ?1 AND at_us < (SELECT max(at_us) FROM promise"
            " WHERE group_id = ?1 AND at_us <= ?2)",
            (group, begin),
        )


def of_group(conn: sqlite3.Connection, group: GroupId) -> tuple[Turn, ...]:
    """Ascending."""
    rows = conn.execute("SELECT at_us, kept FROM promise WHERE group_id = ? ORDER BY at_us, rowid", (group,))
    return tuple(Turn(from_us(row["at_us"]), None if row["kept"] is None else bool(row["kept"])) for row in rows)
