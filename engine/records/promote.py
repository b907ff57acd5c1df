"""A recovery point becomes writable, for the whole group at once (durability.md 2.8, lineage.md 5).

`prepare` names the files of the new tops and trackings before they are made, `commit` is the one transaction
that makes the site protected, `cancel` takes a preparation back after a failure or a crash. This module must
never touch a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.decide import transitions
from engine.errors import Raced
from engine.model import (
    Group,
    GroupId,
    Layer,
    LayerId,
    LayerKind,
    LayerState,
    Point,
    PointId,
    Role,
    TrackingId,
    VolumeId,
    require,
)
from engine.records import groups, incoming, layers, pins, points, volumes


@dataclass(frozen=True, slots=True)
class Top:
    """What a volume gets by a promotion: an overlay for its writes, and a tracking of them."""

    volume: VolumeId
    layer: LayerId
    tracking: TrackingId


def prepare(conn: sqlite3.Connection, group: GroupId, point: PointId | None, tops: Sequence[Top]) -> tuple[Layer, ...]:
    """Name the files that the promotion of `point` makes next; `tops` in the group's order of volumes.

    None: the image that a side which yielded still holds; its tracking goes on, for its changes are not shipped yet.

    Returns the overlays' rows (`open` until the commit). Raises UnknownName if the point is gone; Raced when the
    group is not recovery, or a promotion is prepared.
    """
    found = groups.by_id(conn, group)
    members = volumes.of_group(conn, group)
    if point is not None:
        points.get(conn, point)
    elif not found.own_image:
        raise Raced(what="group", name=found.name, reason="it holds no image of its own any more")
    if found.role is not Role.RECOVERY:
        raise Raced(what="group", name=found.name, reason=f"it is {found.role.value} here")
    if _prepared(conn, group) or [top.volume for top in tops] != [volume.id for volume in members]:
        raise Raced(what="group", name=found.name, reason="a promotion is under way, or its volumes are others")
    made = []
    for top, volume in zip(tops, members, strict=True):
        if point is not None:
            volumes.plan_tracking(conn, volume.id, top.tracking)
        below = layers.up_to(conn, volume.id, point) if point is not None else layers.chain(conn, volume.id)
        size = below[-1].image_bytes if below else volume.size_bytes
        made.append(layers.new_overlay(conn, top.layer, volume.id, LayerState.OPEN, builds_on=point, image_bytes=size))
    return tuple(made)


def commit(
    conn: sqlite3.Connection,
    group: GroupId,
    point: PointId | None,
    nonces: Mapping[VolumeId, bytes],
    *,
    term: int,
    expects: int,
) -> Group:
    """The group is protected here, as of `point`. The files that `prepare` named are durable.

    `nonces` of the new live maps. In one transaction: role and term; a new generation is due; tops and trackings
    in force; what was being received is dead; layers above `point` set aside; `point`, the common point and
    all between pinned until the first seal at the peer. The common point stays the newest sealed one.
    Raises Raced.
    """
    found = groups.by_id(conn, group)
    if found.version != expects:
        raise Raced(what="group", name=found.name, reason=f"it is no longer at version {expects}")
    tops = {layer.volume: layer for layer in _prepared(conn, group)}
    members = volumes.of_group(conn, group)
    if any(
        volume.id not in tops
        or tops[volume.id].builds_on != point
        or (volume.tracking_next if point is not None else volume.tracking) is None
        for volume in members
    ):
        raise Raced(what="group", name=found.name, reason="this promotion is no longer prepared")
    dropped = incoming.drop(conn, group)
    for volume in members:
        layers.set_state(conn, [tops[volume.id].id], LayerState.LIVE)
        volumes.set_top(conn, volume.id, tops[volume.id].id)
        if point is not None:
            _set_aside(conn, volume.id, point)
            volumes.opened(conn, volume.id, tracking=require(volume.tracking_next), nonce=nonces[volume.id])
    if point is not None:
        _pin(conn, group, points.get(conn, point), found.common)
    return groups.update(conn, transitions.promoted(dropped, term), expects=dropped.version)


def cancel(conn: sqlite3.Connection, group: GroupId) -> tuple[Layer, ...]:
    """Take a preparation back: its overlays are dead. Unlink their files and those of each `tracking_next` *before*
    `volumes.plan_tracking(..., None)` and `layers.delete`. Nothing prepared: nothing changes."""
    prepared = _prepared(conn, group)
    layers.set_state(conn, [layer.id for layer in prepared], LayerState.DEAD)
    return prepared


def _prepared(conn: sqlite3.Connection, group: GroupId) -> tuple[Layer, ...]:
    found = layers.in_state(conn, LayerState.OPEN, group=group)
    return tuple(layer for layer in found if layer.kind is LayerKind.OVERLAY)


def _set_aside(conn: sqlite3.Connection, volume: VolumeId, point: PointId) -> None:
    """The layers above the promoted point are no part of the image any more, and are kept."""
    kept = {layer.id for layer in layers.up_to(conn, volume, point)}
    above = [layer.id for layer in layers.chain(conn, volume) if layer.id not in kept]
    layers.set_state(conn, above, LayerState.SET_ASIDE)


def _pin(conn: sqlite3.Connection, group: GroupId, chosen: Point, common: Point | None) -> None:
    newest = common.sequence if common is not None else chosen.sequence
    for point in points.of_group(conn, group):
        if chosen.sequence <= point.sequence <= max(newest, chosen.sequence):
            pins.pin(conn, point.id, pins.PROMOTED)
