"""Points that go from the middle of a chain: their layers lose their names, and are merged into the next one later.

Dropping is one transaction, merging another that needs nothing but the records: layers that end in no point, below
one that does (durability.md 2.6). Only packs are merged; an overlay between them ends a run. This module must never
touch a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import Raced
from engine.model import GroupId, Layer, LayerId, LayerKind, LayerState, PointId, Role, VolumeId
from engine.records import folds, groups, layers, points, retention, volumes


@dataclass(frozen=True, slots=True)
class Merge:
    """One volume's part: neighbouring layers, oldest first, the last of which ends in a point; and the new one."""

    volume: VolumeId
    inputs: tuple[Layer, ...]
    output: Layer


def drop(conn: sqlite3.Connection, group: GroupId, keep: int) -> tuple[PointId, ...]:
    """Take away the points that may go and cannot be folded, since an older one stays; returns them.

    Raises PointPinned.
    """
    if groups.by_id(conn, group).role is not Role.RECOVERY:
        return ()
    oldest = {point.id for point in folds.retention(conn, group, keep)}
    gone = tuple(point.id for point in retention.due(conn, group, keep) if point.id not in oldest)
    for point in gone:
        points.delete(conn, point)
    return gone


def start(conn: sqlite3.Connection, group: GroupId, fresh: Mapping[VolumeId, LayerId]) -> tuple[Merge, ...]:
    """The next merge, in the order of volumes, its new layers `building`; nothing: no merge is due.

    `fresh` names a layer for each volume. All volumes go to the same point. Raises Raced if one is under way.
    """
    if layers.in_state(conn, LayerState.BUILDING, group=group):
        raise Raced(what="group", name=group.hex(), reason="a merge of it is under way")
    if groups.by_id(conn, group).role is not Role.RECOVERY:
        return ()
    members = volumes.of_group(conn, group)
    found = [_runs(conn, member.id) for member in members]
    shared = [point for point in found[0] if all(point in runs for runs in found)] if found else []
    if not shared:
        return ()
    made = []
    for member, runs in zip(members, found, strict=True):
        output = _output(fresh[member.id], runs[shared[0]])
        layers.insert(conn, output)
        made.append(Merge(member.id, runs[shared[0]], output))
    return tuple(made)


def _output(name: LayerId, inputs: Sequence[Layer]) -> Layer:
    last = inputs[-1]
    return Layer(
        id=name,
        volume=last.volume,
        kind=LayerKind.PACK,
        state=LayerState.BUILDING,
        sync=None,
        builds_on=inputs[0].builds_on,
        point=last.point,
        position=last.position,
        image_bytes=last.image_bytes,
        length_bytes=0,
        directory_offset=0,
        directory_check=0,
        blocks=0,
        digest=b"",
    )


def _runs(conn: sqlite3.Connection, volume: VolumeId) -> dict[PointId, tuple[Layer, ...]]:
    """By the point that each ends in: sealed packs in a row, all but the last of which end in no point any more."""
    runs: dict[PointId, tuple[Layer, ...]] = {}
    run: list[Layer] = []
    for layer in layers.chain(conn, volume):
        if layer.kind is not LayerKind.PACK or layer.state is not LayerState.SEALED or layer.point is None:
            run = []
            continue
        run.append(layer)
        if points.find(conn, layer.point) is not None:
            if len(run) > 1:
                runs[layer.point] = tuple(run)
            run = []
    return runs


def finish(conn: sqlite3.Connection, group: GroupId, done: Sequence[Merge], receipts: Sequence[layers.Receipt]) -> None:
    """The new files are whole and durable: they take the place of their inputs, which are dead, for the whole group.

    Raises Raced if anything of it changed meanwhile: the role, a layer, the point. Then `cancel`.
    """
    found = groups.by_id(conn, group)
    if found.role is not Role.RECOVERY:
        raise Raced(what="group", name=found.name, reason=f"it is {found.role.value} here")
    for merge, receipt in zip(done, receipts, strict=True):
        point = merge.output.point
        if point is None or _runs(conn, merge.volume).get(point) != merge.inputs:
            raise Raced(what="group", name=found.name, reason="its layers are not those that were merged")
        layers.set_state(conn, [layer.id for layer in merge.inputs], LayerState.DEAD)
        layers.built(conn, merge.output.id, receipt)


def cancel(conn: sqlite3.Connection, group: GroupId) -> None:
    """What was being built is dead; its inputs stay as they are. Nothing built: nothing."""
    building = layers.in_state(conn, LayerState.BUILDING, group=group)
    layers.set_state(conn, [layer.id for layer in building], LayerState.DEAD)
