"""Set-asides: what a role change discarded, named and kept until an operator drops it (lineage.md 5, "yield").

An `image` lies in the store and the layers above it, so nothing of the group is folded while there is one. An
`overlay` pins the point that it lies on. This module must never touch a file, nor let one go by itself.
"""

from __future__ import annotations

import sqlite3

from engine.errors import UnknownName
from engine.model import GroupId, LayerId, LayerState, PointId, SetAside, SetAsideId
from engine.records import layers, pins
from engine.records.columns import from_us, to_us

OVERLAY, IMAGE = "overlay", "image"
_ID_BYTES = 16
_NAMES = "id, group_id, name, why, kind, base, layers, blocks, created_us, exported"


def _from(row: sqlite3.Row) -> SetAside:
    packed: bytes = row["layers"]
    ids = [packed[at : at + _ID_BYTES] for at in range(0, len(packed), _ID_BYTES)]
    return SetAside(
        id=SetAsideId(row["id"]),
        group=GroupId(row["group_id"]),
        name=row["name"],
        why=row["why"],
        kind=row["kind"],
        base=None if row["base"] is None else PointId(row["base"]),
        layers=tuple(LayerId(one) if any(one) else None for one in ids),
        blocks=row["blocks"],
        created_at=from_us(row["created_us"]),
        exported=bool(row["exported"]),
    )


def insert(conn: sqlite3.Connection, made: SetAside) -> None:
    """Keep it; an `overlay` pins its point. Raises UnknownName if that is gone."""
    if made.base is not None:
        pins.pin(conn, made.base, pins.of_set_aside(made.id))
    packed = b"".join(layer or bytes(_ID_BYTES) for layer in made.layers)
    values = (made.id, made.group, made.name, made.why, made.kind, made.base, packed, made.blocks)
    conn.execute(
        f"INSERT INTO set_aside ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, to_us(made.created_at), made.exported),
    )


def of_group(conn: sqlite3.Connection, group: GroupId) -> tuple[SetAside, ...]:
    """The group's set-asides, oldest first."""
    rows = conn.execute(f"SELECT {_NAMES} FROM set_aside WHERE group_id = ? ORDER BY created_us, rowid", (group,))
    return tuple(_from(row) for row in rows)


def get(conn: sqlite3.Connection, group: GroupId, name: str) -> SetAside:
    """Raises UnknownName."""
    for found in of_group(conn, group):
        if found.name == name:
            return found
    raise UnknownName(what="set-aside", name=name)


def holds_base(conn: sqlite3.Connection, group: GroupId) -> bool:
    """True while one of them lies in the stores themselves: then nothing may be folded into these."""
    return any(found.kind == IMAGE for found in of_group(conn, group))


def set_exported(conn: sqlite3.Connection, set_aside: SetAsideId, exported: bool) -> None:
    """Hosts may read it from now on, or may not."""
    conn.execute("UPDATE set_aside SET exported = ? WHERE id = ?", (exported, set_aside))


def drop(conn: sqlite3.Connection, found: SetAside) -> None:
    """Let it go: its pin is gone; overlays that were nothing but set aside are dead, their files to be removed."""
    if found.base is not None:
        pins.unpin(conn, found.base, pins.of_set_aside(found.id))
    if found.kind == OVERLAY:
        layers.set_state(conn, [layer for layer in found.layers if layer is not None], LayerState.DEAD)
    conn.execute("DELETE FROM set_aside WHERE id = ?", (found.id,))
