"""Role changes but promotion, each one transaction for the whole group: demote, its undoing, and yield (lineage.md 5).

The caller holds the writers and has flushed what they wrote. A yield was decided on one `version`, and has lost on any
other; a demote needs nothing but the role. This module must never touch a file.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import datetime

from engine import model
from engine.decide import transitions
from engine.decide.yielding import Yield
from engine.errors import Raced
from engine.model import Group, GroupId, LayerState, Point, SetAside
from engine.records import groups, incoming, layers, pins, points, set_asides, volumes


def demote(conn: sqlite3.Connection, group: GroupId, *, consent_term: int | None) -> Group:
    """Hosts may not write any more; the image stays what it is. Raises Raced."""
    before = groups.by_id(conn, group)
    return groups.update(conn, transitions.demoted(before, consent_term), expects=before.version)


def undo_demote(conn: sqlite3.Connection, group: GroupId) -> Group:
    """Protected again, in the same term, with every set as it was. Raises Raced."""
    before = groups.by_id(conn, group)
    return groups.update(conn, transitions.demote_undone(before), expects=before.version)


def give_way(
    conn: sqlite3.Connection,
    group: GroupId,
    how: Yield,
    kept: SetAside | None,
    *,
    term: int,
    at: datetime,
    expects: int,
) -> Group:
    """This side becomes recovery (lineage.md 5, "yield", step 4).

    `kept`: what is set aside by it, None where nothing was written. Raises Raced: a sync is under way, or the group
    changed since `expects`.
    """
    before = groups.by_id(conn, group)
    if before.version != expects:
        raise Raced(what="group", name=before.name, reason=f"it is no longer at version {expects}")
    after = transitions.gave_way(before, how, term)
    common = model.require(before.common)
    if kept is not None:
        set_asides.insert(conn, kept)
    if how is Yield.TO_POINT:
        _discard_tops(conn, group, is_kept=kept is not None)
    else:
        _freeze_tops(conn, group, common if how is Yield.AS_POINT else None)
        if how is Yield.AS_POINT:
            _insert_point(conn, common, at)
    if how is not Yield.OWN_IMAGE:
        for volume in volumes.of_group(conn, group):
            volumes.untrack(conn, volume.id)
    pins.unpin_group(conn, group, pins.PROMOTED)
    dropped = incoming.drop(conn, group)
    return groups.update(conn, after, expects=dropped.version)


def _discard_tops(conn: sqlite3.Connection, group: GroupId, *, is_kept: bool) -> None:
    """The writes since the promotion are set aside, or were none; layers above an older promoted point count again."""
    for volume in volumes.of_group(conn, group):
        if volume.top is not None:
            layers.set_state(conn, [volume.top], LayerState.SET_ASIDE if is_kept else LayerState.DEAD)
            volumes.set_top(conn, volume.id, None)
        rolled = [
            layer.id
            for layer in layers.in_state(conn, LayerState.SET_ASIDE, group=group)
            if layer.volume == volume.id and layer.point is not None
        ]
        layers.set_state(conn, rolled, LayerState.SEALED)


def _freeze_tops(conn: sqlite3.Connection, group: GroupId, point: Point | None) -> None:
    for volume in volumes.of_group(conn, group):
        if volume.top is not None:
            layers.freeze(conn, volume.top, point.id if point is not None else None)
            volumes.set_top(conn, volume.id, None)


def _insert_point(conn: sqlite3.Connection, common: Point, at: datetime) -> None:
    if points.find(conn, common.id) is None:
        points.insert(conn, replace(common, sealed_at=common.sealed_at or at))
