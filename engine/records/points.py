"""Sealed recovery points of the groups that this site holds copies of, and what pins them.

A point is made by `seal` and nowhere else: all layers, the point and the group's common point become true in
one transaction (durability.md 2.5, step 7). This module must never touch a file, nor drop a pinned point.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from engine.decide import transitions
from engine.errors import PointPinned, Raced, UnknownName
from engine.model import Generation, GenerationId, Group, GroupId, LayerId, Point, PointId
from engine.records import generations, groups, layers, pins, volumes
from engine.records.columns import from_us, to_us

_SELECT = (
    "SELECT id, group_id, sequence, captured_us, sealed_us, generation, digest, bytes,"
    " (SELECT count(*) FROM pin WHERE pin.point = point.id) AS pins FROM point"
)


def _from(row: sqlite3.Row) -> Point:
    return Point(
        id=PointId(row["id"]),
        group=GroupId(row["group_id"]),
        sequence=row["sequence"],
        captured_at=from_us(row["captured_us"]),
        sealed_at=from_us(row["sealed_us"]),
        generation=None if row["generation"] is None else GenerationId(row["generation"]),
        digest=row["digest"],
        bytes=row["bytes"],
        pins=row["pins"],
    )


def find(conn: sqlite3.Connection, point: PointId) -> Point | None:
    row = conn.execute(f"{_SELECT} WHERE id = ?", (point,)).fetchone()
    return None if row is None else _from(row)


def get(conn: sqlite3.Connection, point: PointId) -> Point:
    """Raises UnknownName."""
    found = find(conn, point)
    if found is None:
        raise UnknownName(what="point", name=point.hex())
    return found


def of_group(conn: sqlite3.Connection, group: GroupId) -> tuple[Point, ...]:
    """The group's points here, newest first."""
    return tuple(_from(row) for row in conn.execute(f"{_SELECT} WHERE group_id = ? ORDER BY sequence DESC", (group,)))


def newest(conn: sqlite3.Connection, group: GroupId) -> Point | None:
    points = of_group(conn, group)
    return points[0] if points else None


def insert(conn: sqlite3.Connection, point: Point) -> None:
    """Record a point whose image stands here already; its `pins` are not looked at."""
    conn.execute(
        "INSERT INTO point (id, group_id, sequence, captured_us, sealed_us, generation, digest, bytes)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            point.id,
            point.group,
            point.sequence,
            to_us(point.captured_at),
            to_us(point.sealed_at),
            point.generation,
            point.digest,
            point.bytes,
        ),
    )


def seal(
    conn: sqlite3.Connection,
    point: Point,
    receipts: Iterable[tuple[LayerId, layers.Receipt]],
    *,
    history: Sequence[Generation] = (),
    term: int = 0,
) -> Group:
    """All layers of the incoming sync sealed, its point visible and common, for the whole group at once.

    `receipts` covers exactly the group's open packs, one for every volume; it is empty when the sync went into
    the bases (the first point). `history` and `term` are the peer's as of the capture. Raises Raced when the
    group no longer waits for this point on this common point: then nothing of it counts.
    """
    before = groups.by_id(conn, point.group)
    after = transitions.sealed(before, point, term)
    sealed = dict(receipts)
    opened = layers.receiving(conn, point.group)
    if {layer.id for layer in opened} != set(sealed):
        raise Raced(what="group", name=before.name, reason="its open layers are not those that were sealed")
    members = [volume.id for volume in volumes.of_group(conn, point.group)]
    if [layer.volume for layer in opened] != (members if before.common is not None else []):
        raise Raced(what="group", name=before.name, reason="a volume of it has no layer to seal")
    for layer, receipt in sealed.items():
        layers.seal(conn, layer, point.id, receipt)
    insert(conn, point)
    generations.note(conn, point.group, history)
    for member in volumes.of_group(conn, point.group):
        volumes.untrack(conn, member.id)  # what hosts had written here is in no image above this one
    return groups.update(conn, after, expects=before.version)


def delete(conn: sqlite3.Connection, point: PointId) -> None:
    """The point is no longer visible. Raises PointPinned if anything holds it."""
    holders = pins.holders(conn, point)
    if holders:
        raise PointPinned(point=point.hex(), holders=", ".join(holders))
    conn.execute("DELETE FROM point WHERE id = ?", (point,))
