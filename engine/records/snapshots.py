"""Writable throw-away copies of points: row and pin before the files, files gone before row and pin.

`creating` and `deleting` rows that boot finds are finished as deletes (durability.md 2.7), `resetting` ones as
resets. This module must never touch a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from engine.errors import NameTaken, Raced, UnknownName
from engine.model import GroupId, LayerId, LayerState, PointId, Snapshot, SnapshotId, SnapshotState
from engine.records import layers, pins, volumes
from engine.records.columns import from_us, maybe_at, maybe_us, to_us

_ID_BYTES = 16
_NAMES = "id, group_id, name, point, state, layers, wwns, created_us, expires_us"


def _from(row: sqlite3.Row) -> Snapshot:
    packed: bytes = row["layers"]
    return Snapshot(
        id=SnapshotId(row["id"]),
        group=GroupId(row["group_id"]),
        name=row["name"],
        point=PointId(row["point"]),
        state=SnapshotState(row["state"]),
        layers=tuple(LayerId(packed[at : at + _ID_BYTES]) for at in range(0, len(packed), _ID_BYTES)),
        wwns=tuple(row["wwns"].split()),
        created_at=from_us(row["created_us"]),
        expires_at=maybe_at(row["expires_us"]),
    )


def create(conn: sqlite3.Connection, snapshot: Snapshot) -> Snapshot:
    """Pin the point and name the snapshot and its overlays, which are made next; its state is `creating`.

    `layers` and `wwns` stand in the group's order of volumes. Raises NameTaken; UnknownName if the point is
    gone; Raced if its volumes are others by now.
    """
    if find(conn, snapshot.group, snapshot.name) is not None:
        raise NameTaken(what="snapshot", name=snapshot.name)
    pins.pin(conn, snapshot.point, pins.of_snapshot(snapshot.id))
    _name_overlays(conn, snapshot)
    made = replace(snapshot, state=SnapshotState.CREATING)
    conn.execute(
        f"INSERT INTO snapshot ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            made.id,
            made.group,
            made.name,
            made.point,
            made.state.value,
            b"".join(made.layers),
            " ".join(made.wwns),
            to_us(made.created_at),
            maybe_us(made.expires_at),
        ),
    )
    return made


def _name_overlays(conn: sqlite3.Connection, snapshot: Snapshot) -> None:
    members = volumes.of_group(conn, snapshot.group)
    if not len(members) == len(snapshot.layers) == len(snapshot.wwns):
        raise Raced(what="group", name=snapshot.group.hex(), reason="its volumes are not those of the snapshot")
    for layer, volume in zip(snapshot.layers, members, strict=True):
        below = layers.up_to(conn, volume.id, snapshot.point)
        layers.new_overlay(
            conn,
            layer,
            volume.id,
            LayerState.LIVE,
            builds_on=snapshot.point,
            image_bytes=below[-1].image_bytes if below else volume.size_bytes,
        )


def _select(conn: sqlite3.Connection, where: str, *values: object) -> tuple[Snapshot, ...]:
    return tuple(_from(row) for row in conn.execute(f"SELECT {_NAMES} FROM snapshot WHERE {where}", values))


def find(conn: sqlite3.Connection, group: GroupId, name: str) -> Snapshot | None:
    found = _select(conn, "group_id = ? AND name = ?", group, name)
    return found[0] if found else None


def get(conn: sqlite3.Connection, group: GroupId, name: str) -> Snapshot:
    """Raises UnknownName."""
    snapshot = find(conn, group, name)
    if snapshot is None:
        raise UnknownName(what="snapshot", name=name)
    return snapshot


def of_group(conn: sqlite3.Connection, group: GroupId) -> tuple[Snapshot, ...]:
    """In every state, oldest first."""
    return _select(conn, "group_id = ? ORDER BY rowid", group)


def all(conn: sqlite3.Connection) -> tuple[Snapshot, ...]:
    """Of every group, in every state, oldest first."""
    return _select(conn, "TRUE ORDER BY rowid")


def ready(conn: sqlite3.Connection, snapshot: SnapshotId) -> None:
    """Its files are durable. Raises Raced if it is not being created or reset."""
    _move(conn, snapshot, SnapshotState.READY, "state IN ('creating', 'resetting')")


def reset(conn: sqlite3.Connection, snapshot: SnapshotId, fresh: Sequence[LayerId]) -> None:
    """What was written to it is dead, and the overlays `fresh` are made next: until `ready` it is `resetting`.

    `fresh` in the group's order of volumes. Raises Raced if it is being made or deleted, or gone.
    """
    _move(conn, snapshot, SnapshotState.RESETTING, "state IN ('ready', 'resetting')")
    (found,) = _select(conn, "id = ?", snapshot)
    layers.set_state(conn, found.layers, LayerState.DEAD)
    _name_overlays(conn, replace(found, layers=tuple(fresh)))
    conn.execute("UPDATE snapshot SET layers = ? WHERE id = ?", (b"".join(fresh), snapshot))


def deleting(conn: sqlite3.Connection, snapshot: SnapshotId) -> None:
    """Its files may go, and its name is free: the row has one that no operator can give. Again: nothing.

    Raises Raced if it is gone.
    """
    _move(conn, snapshot, SnapshotState.DELETING, "TRUE")
    conn.execute("UPDATE snapshot SET name = ? WHERE id = ?", (f"~{snapshot.hex()}", snapshot))


def _move(conn: sqlite3.Connection, snapshot: SnapshotId, state: SnapshotState, where: str) -> None:
    changed = conn.execute(f"UPDATE snapshot SET state = ? WHERE id = ? AND {where}", (state.value, snapshot))
    if changed.rowcount != 1:
        raise Raced(what="snapshot", name=snapshot.hex(), reason="it was deleted, or finished before")


def delete(conn: sqlite3.Connection, snapshot: SnapshotId) -> None:
    """Its files are gone, durably: forget it, its overlays and its pin. Raises Raced unless it is `deleting`."""
    found = _select(conn, "id = ? AND state = 'deleting'", snapshot)
    if not found:
        raise Raced(what="snapshot", name=snapshot.hex(), reason="it is not being deleted")
    layers.delete(conn, found[0].layers)
    conn.execute("DELETE FROM snapshot WHERE id = ?", (snapshot,))
    pins.unpin(conn, found[0].point, pins.of_snapshot(snapshot))
