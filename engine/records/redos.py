"""Redo packs of settled syncs: hashes that still have to be copied into the tables of hashes (durability.md 2.4, 9).

A row is made in the transaction that adopts the point and goes once the tables are durable. While it is
there, a look-up asks the pack first. This module must never name the redo of a sync that is not settled.
"""

from __future__ import annotations

import sqlite3

from engine.model import GroupId, PointId, Redo, SyncId


def insert(conn: sqlite3.Connection, redo: Redo) -> None:
    conn.execute(
        "INSERT INTO redo (sync, group_id, point, sequence) VALUES (?, ?, ?, ?)",
        (redo.sync, redo.group, redo.point, redo.sequence),
    )


def of_group(conn: sqlite3.Connection, group: GroupId) -> tuple[Redo, ...]:
    """What is still to be applied, oldest first: they must be applied in this order."""
    rows = conn.execute("SELECT sync, point, sequence FROM redo WHERE group_id = ? ORDER BY sequence", (group,))
    return tuple(Redo(SyncId(row["sync"]), group, PointId(row["point"]), row["sequence"]) for row in rows)


def delete(conn: sqlite3.Connection, sync: SyncId) -> None:
    """It is in the tables of hashes, durably (or given up with them); its files may go. Again: nothing."""
    conn.execute("DELETE FROM redo WHERE sync = ?", (sync,))
