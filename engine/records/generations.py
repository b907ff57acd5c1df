"""Generations: the lives of writable sides that led to a group's image, told to the peer at contact.

They word a verdict and never decide one (lineage.md 4). This module must never change what a generation grew from.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.model import Generation, GenerationId, GroupId, PointId, SiteId
from engine.records.columns import from_us, to_us


def note(conn: sqlite3.Connection, group: GroupId, history: Sequence[Generation]) -> None:
    """Add generations, one's own or the peer's as of a capture; of a known one only the write counter moves."""
    for generation in history:
        conn.execute(
            "INSERT INTO generation (id, group_id, parent, site, common, began_us, writes) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET writes = max(writes, excluded.writes)",
            (
                generation.id,
                group,
                generation.parent,
                generation.site,
                generation.common,
                to_us(generation.began_at),
                generation.writes,
            ),
        )


def of_group(conn: sqlite3.Connection, group: GroupId) -> tuple[Generation, ...]:
    """Every known generation of the group, in the order in which this site learned of them."""
    rows = conn.execute(
        "SELECT id, parent, site, common, began_us, writes FROM generation WHERE group_id = ? ORDER BY rowid", (group,)
    )
    return tuple(
        Generation(
            id=GenerationId(row["id"]),
            parent=None if row["parent"] is None else GenerationId(row["parent"]),
            site=SiteId(row["site"]),
            common=None if row["common"] is None else PointId(row["common"]),
            began_at=from_us(row["began_us"]),
            writes=row["writes"],
        )
        for row in rows
    )
