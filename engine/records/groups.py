"""Consistency groups, and the one compare-and-set that every change of a group goes through.

`version` grows by one with every change: whoever decided on an older one has lost the race and decides
again. This module must never change a group without `update`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime

from engine.decide import transitions
from engine.errors import NameTaken, Raced, RefusedByState, UnknownName
from engine.model import (
    Generation,
    GenerationId,
    Group,
    GroupId,
    Incoming,
    LayerState,
    Pending,
    Point,
    PointId,
    Role,
    SyncId,
    SyncState,
)
from engine.records import generations, layers, pins, volumes
from engine.records.columns import from_us, marks, maybe_at, maybe_us, to_us

_NAMES = (
    "id, name, version, role, term, peer, rpo_s, keep, announced,"
    " common_id, common_sequence, common_captured_us, common_sealed_us, common_generation, common_digest, common_bytes,"
    " equal_us, generation_due, generation,"
    " pending_sync, pending_point, pending_sequence, pending_captured_us, pending_state,"
    " incoming_sync, incoming_point, incoming_sequence, incoming_builds_on, incoming_captured_us, incoming_plan,"
    " incoming_blocks, created_us, own_image, consent_term, paused_us"
)
_SELECT = f'SELECT {_NAMES}, (SELECT count(*) FROM pin WHERE pin.point = common_id) AS common_pins FROM "group"'


def _common(row: sqlite3.Row) -> Point | None:
    if row["common_id"] is None:
        return None
    return Point(
        id=PointId(row["common_id"]),
        group=GroupId(row["id"]),
        sequence=row["common_sequence"],
        captured_at=from_us(row["common_captured_us"]),
        sealed_at=from_us(row["common_sealed_us"]),
        generation=None if row["common_generation"] is None else GenerationId(row["common_generation"]),
        digest=row["common_digest"],
        bytes=row["common_bytes"],
        pins=row["common_pins"],
    )


def _pending(row: sqlite3.Row) -> Pending | None:
    if row["pending_sync"] is None:
        return None
    return Pending(
        sync=SyncId(row["pending_sync"]),
        point=PointId(row["pending_point"]),
        sequence=row["pending_sequence"],
        captured_at=from_us(row["pending_captured_us"]),
        state=SyncState(row["pending_state"]),
    )


def _incoming(row: sqlite3.Row) -> Incoming | None:
    if row["incoming_sync"] is None:
        return None
    builds_on = row["incoming_builds_on"]
    return Incoming(
        sync=SyncId(row["incoming_sync"]),
        point=PointId(row["incoming_point"]),
        sequence=row["incoming_sequence"],
        builds_on=None if builds_on is None else PointId(builds_on),
        captured_at=from_us(row["incoming_captured_us"]),
        plan_digest=row["incoming_plan"],
        blocks=row["incoming_blocks"],
    )


def _from(row: sqlite3.Row) -> Group:
    return Group(
        id=GroupId(row["id"]),
        name=row["name"],
        version=row["version"],
        role=Role(row["role"]),
        term=row["term"],
        peer=row["peer"],
        rpo_s=row["rpo_s"],
        keep=row["keep"],
        announced=bool(row["announced"]),
        common=_common(row),
        equal_at=maybe_at(row["equal_us"]),
        generation_due=bool(row["generation_due"]),
        generation=None if row["generation"] is None else GenerationId(row["generation"]),
        pending=_pending(row),
        incoming=_incoming(row),
        created_at=from_us(row["created_us"]),
        own_image=bool(row["own_image"]),
        consent_term=row["consent_term"],
        paused_at=maybe_at(row["paused_us"]),
    )


def _values(group: Group) -> tuple[object, ...]:
    """In the order of `_NAMES`."""
    common, pending, incoming = group.common, group.pending, group.incoming
    return (
        *(group.id, group.name, group.version, group.role.value, group.term, group.peer, group.rpo_s, group.keep),
        int(group.announced),
        *(
            (None,) * 7
            if common is None
            else (
                *(common.id, common.sequence, to_us(common.captured_at), to_us(common.sealed_at), common.generation),
                *(common.digest, common.bytes),
            )
        ),
        *(maybe_us(group.equal_at), int(group.generation_due), group.generation),
        *(
            (None,) * 5
            if pending is None
            else (pending.sync, pending.point, pending.sequence, to_us(pending.captured_at), pending.state.value)
        ),
        *(
            (None,) * 7
            if incoming is None
            else (
                *(incoming.sync, incoming.point, incoming.sequence, incoming.builds_on, to_us(incoming.captured_at)),
                *(incoming.plan_digest, incoming.blocks),
            )
        ),
        *(to_us(group.created_at), int(group.own_image), group.consent_term, maybe_us(group.paused_at)),
    )


def insert(conn: sqlite3.Connection, group: Group) -> None:
    """A new group; put its volumes in with `volumes.assign`. Raises NameTaken."""
    if find(conn, group.name) is not None:
        raise NameTaken(what="group", name=group.name)
    values = _values(group)
    conn.execute(f'INSERT INTO "group" ({_NAMES}) VALUES ({marks(len(values))})', values)


def find(conn: sqlite3.Connection, name: str) -> Group | None:
    row = conn.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
    return None if row is None else _from(row)


def get(conn: sqlite3.Connection, name: str) -> Group:
    """Raises UnknownName."""
    group = find(conn, name)
    if group is None:
        raise UnknownName(what="group", name=name)
    return group


def by_id(conn: sqlite3.Connection, group: GroupId) -> Group:
    """Raises UnknownName."""
    row = conn.execute(f"{_SELECT} WHERE id = ?", (group,)).fetchone()
    if row is None:
        raise UnknownName(what="group", name=group.hex())
    return _from(row)


def all(conn: sqlite3.Connection) -> tuple[Group, ...]:
    """Every group by name."""
    return tuple(_from(row) for row in conn.execute(f"{_SELECT} ORDER BY name"))


def update(conn: sqlite3.Connection, group: Group, *, expects: int) -> Group:
    """Write all of `group` if its version in the records is `expects`; returns it as it stands then.

    Its version is the next one. The pins of its common point are not written: they are rows of their own. Raises
    Raced.
    """
    after = replace(group, version=expects + 1)
    names = [name.strip() for name in _NAMES.split(",")]
    assignments = ", ".join(f"{name} = ?" for name in names)
    changed = conn.execute(
        f'UPDATE "group" SET {assignments} WHERE id = ? AND version = ?', (*_values(after), group.id, expects)
    )
    if changed.rowcount != 1:
        raise Raced(what="group", name=group.name, reason=f"it is no longer at version {expects}")
    return by_id(conn, group.id)


def begin_capture(conn: sqlite3.Connection, group: GroupId, pending: Pending, *, expects: int | None = None) -> Group:
    """The row of a sync, before anything of it happens.

    `expects`: the version that the sync was decided on. Raises Raced: it is another, or a sync is under way, or
    the group is recovery here.
    """
    before = by_id(conn, group)
    after = transitions.capturing(before, pending)
    return update(conn, after, expects=before.version if expects is None else expects)


def captured(conn: sqlite3.Connection, group: GroupId, sync: SyncId, *, captured_at: datetime) -> Group:
    """The seed pass is over and the delta captured, or a capture was made anew. Raises Raced."""
    before, pending = _require_pending(conn, group, sync)
    pending = replace(pending, state=SyncState.RUNNING, captured_at=captured_at)
    return update(conn, replace(before, pending=pending), expects=before.version)


def sealing(conn: sqlite3.Connection, group: GroupId, sync: SyncId, *, captured_at: datetime | None = None) -> Group:
    """From now on only the peer knows whether the point exists (durability.md 2.4, step 7). Raises Raced."""
    before, pending = _require_pending(conn, group, sync)
    pending = replace(pending, state=SyncState.SEALING, captured_at=captured_at or pending.captured_at)
    return update(conn, replace(before, pending=pending), expects=before.version)


def adopt(conn: sqlite3.Connection, group: GroupId, point: Point) -> Group:
    """The peer holds the pending point: it is the common one, and what a promotion kept here may be folded.

    `point` as the peer recorded it; what is not known when it is adopted at contact may be empty. Raises Raced
    unless it is the pending one, so also when it was adopted before.
    """
    before = by_id(conn, group)
    after = transitions.adopted(before, point)
    pins.unpin_group(conn, group, pins.PROMOTED)
    return update(conn, after, expects=before.version)


def abandon(conn: sqlite3.Connection, group: GroupId, sync: SyncId | None = None) -> Group:
    """The capture will never be sealed; its bits are dirty again. Nothing pending: nothing changes.

    `sync`: only this one. Raises Raced if another is pending.
    """
    before = by_id(conn, group)
    if before.pending is None:
        return before
    if sync is not None and before.pending.sync != sync:
        raise Raced(what="group", name=before.name, reason="this sync of it is over")
    return update(conn, transitions.abandoned(before), expects=before.version)


def _require_pending(conn: sqlite3.Connection, group: GroupId, sync: SyncId) -> tuple[Group, Pending]:
    found = by_id(conn, group)
    if found.pending is None or found.pending.sync != sync:
        raise Raced(what="group", name=found.name, reason="this sync of it is over")
    return found, found.pending


def announced(conn: sqlite3.Connection, group: GroupId) -> Group:
    """The peer has the group too. Again: nothing."""
    before = by_id(conn, group)
    if before.announced:
        return before
    return update(conn, replace(before, announced=True), expects=before.version)


def equal(conn: sqlite3.Connection, group: GroupId, at: datetime) -> Group:
    """Both sides were found equal as of `at`; an earlier time than the noted one changes nothing."""
    before = by_id(conn, group)
    if before.equal_at is not None and before.equal_at >= at:
        return before
    return update(conn, replace(before, equal_at=at), expects=before.version)


def pause(conn: sqlite3.Connection, group: GroupId, at: datetime | None) -> Group:
    """Nothing is sent from here from now on; `at` None: it is again. Raises Raced where the group is recovery."""
    before = by_id(conn, group)
    if (before.paused_at is None) == (at is None):
        return before
    return update(conn, transitions.paused(before, at), expects=before.version)


def promise(conn: sqlite3.Connection, group: GroupId, rpo_s: int | None) -> Group:
    """The peer, where hosts write, promises this RPO. Nothing changes where the group is not recovery."""
    before = by_id(conn, group)
    if before.role is not Role.RECOVERY or before.rpo_s == rpo_s:
        return before
    return update(conn, replace(before, rpo_s=rpo_s), expects=before.version)


def begin_generation(conn: sqlite3.Connection, group: GroupId, generation: Generation) -> Group:
    """The first write after a promotion, before its data (durability.md 2.2, step 2). Raises Raced if none is due."""
    before = by_id(conn, group)
    if not before.generation_due:
        raise Raced(what="group", name=before.name, reason="its generation has begun")
    generations.note(conn, group, [generation])
    return update(conn, replace(before, generation=generation.id, generation_due=False), expects=before.version)


def delete(conn: sqlite3.Connection, group: GroupId) -> None:
    """Forget the group: its volumes are free, its points gone, its layers dead until their files are.

    Raises RefusedByState while it has snapshots.
    """
    found = by_id(conn, group)
    snapshot = conn.execute("SELECT name FROM snapshot WHERE group_id = ? ORDER BY name", (group,)).fetchone()
    if snapshot is not None:
        raise RefusedByState(operation="group remove", group=found.name, reason=f"it has snapshot {snapshot['name']}")
    for volume in volumes.of_group(conn, group):
        layers.set_state(conn, [layer.id for layer in layers.of_volume(conn, volume.id)], LayerState.DEAD)
        volumes.set_top(conn, volume.id, None)
    volumes.release(conn, group)
    conn.execute("DELETE FROM pin WHERE point IN (SELECT id FROM point WHERE group_id = ?)", (group,))
    conn.execute('DELETE FROM "group" WHERE id = ?', (group,))
