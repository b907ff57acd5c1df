"""The oldest layer of every volume of a group goes into the base, and what retention lets go (durability.md 2.6).

The oldest point of a group has no layer: the bases are its image. Folding the layer above it makes the
second point the oldest, and takes the first away. This module must never touch a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import takewhile

from engine.errors import RefusedByState
from engine.model import GroupId, Layer, LayerId, LayerState, Point
from engine.records import groups, layers, points, set_asides, volumes
from engine.records import retention as retention_records


def retention(conn: sqlite3.Connection, group: GroupId, keep: int) -> tuple[Point, ...]:
    """The points that may be folded away now, oldest first: those that may go, up to the first that stays.

    What may go behind one that stays is dropped and merged (`merges`). Nothing is folded while a set-aside lies in
    the bases.
    """
    if set_asides.holds_base(conn, group):
        return ()
    may_go = {point.id for point in retention_records.due(conn, group, keep)}
    return tuple(takewhile(lambda point: point.id in may_go, reversed(points.of_group(conn, group))))


def start(conn: sqlite3.Connection, group: GroupId) -> tuple[Layer, ...]:
    """The oldest point is gone and its successor's layers are `folding`; returns them in the order of volumes.

    A fold that was started and not finished is returned again: it is repeated from the start. Raises PointPinned;
    RefusedByState when there is no point but the newest.
    """
    running = _folding(conn, group)
    if running:
        return running
    kept = points.of_group(conn, group)
    found = groups.by_id(conn, group)
    if len(kept) < 2:
        raise RefusedByState(operation="fold", group=found.name, reason="it has no point but the newest")
    if set_asides.holds_base(conn, group):
        raise RefusedByState(operation="fold", group=found.name, reason="a set-aside lies in its stores")
    members = volumes.of_group(conn, group)
    if not any(layers.up_to(conn, volume.id, kept[-1].id) for volume in members):
        points.delete(conn, kept[-1].id)  # its image is the base: it ends with the next fold
    for volume in members:
        oldest = layers.chain(conn, volume.id)[0]
        layers.set_state(conn, [oldest.id], LayerState.FOLDING)
    return _folding(conn, group)


def finish(conn: sqlite3.Connection, folded: Sequence[LayerId]) -> None:
    """Their blocks and hashes are durable in the bases: no chain has them. Unlink them, then `layers.delete`."""
    layers.set_state(conn, folded, LayerState.FOLDED)


def _folding(conn: sqlite3.Connection, group: GroupId) -> tuple[Layer, ...]:
    found = layers.in_state(conn, LayerState.FOLDING, group=group)
    order = {volume.id: volume.position for volume in volumes.of_group(conn, group)}
    return tuple(sorted(found, key=lambda layer: order[layer.volume]))
