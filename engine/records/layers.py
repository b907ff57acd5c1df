"""Layers of volumes: which files make up an image, in which order, and in which state each is.

The chain of a volume is its packs that are sealed or being folded, by position, oldest first. A row stands
before its file is made and goes after the file. This module must never touch a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Protocol

from engine.errors import Raced, UnknownName
from engine.model import GroupId, Layer, LayerId, LayerKind, LayerState, PointId, SyncId, VolumeId
from engine.records.columns import from_u64, marks, to_u64

_NAMES = (
    "id, volume, kind, state, sync, builds_on, point, position, image_bytes, length_bytes, directory_offset,"
    " directory_check, blocks, digest"
)


class Receipt(Protocol):
    """What sealing the file of a layer gave (`blockstore.layer.SealReceipt`)."""

    @property
    def length_bytes(self) -> int: ...
    @property
    def directory_offset(self) -> int: ...
    @property
    def directory_check(self) -> bytes: ...
    @property
    def blocks(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def digest(self) -> bytes: ...


def _from(row: sqlite3.Row) -> Layer:
    return Layer(
        id=LayerId(row["id"]),
        volume=VolumeId(row["volume"]),
        kind=LayerKind(row["kind"]),
        state=LayerState(row["state"]),
        sync=None if row["sync"] is None else SyncId(row["sync"]),
        builds_on=None if row["builds_on"] is None else PointId(row["builds_on"]),
        point=None if row["point"] is None else PointId(row["point"]),
        position=row["position"],
        image_bytes=row["image_bytes"],
        length_bytes=row["length_bytes"],
        directory_offset=row["directory_offset"],
        directory_check=from_u64(row["directory_check"]),
        blocks=row["blocks"],
        digest=row["digest"],
    )


def insert(conn: sqlite3.Connection, layer: Layer) -> None:
    values = (
        layer.id,
        layer.volume,
        layer.kind.value,
        layer.state.value,
        layer.sync,
        layer.builds_on,
        layer.point,
        layer.position,
        layer.image_bytes,
        layer.length_bytes,
        layer.directory_offset,
        to_u64(layer.directory_check),
        layer.blocks,
        layer.digest,
    )
    conn.execute(f"INSERT INTO layer ({_NAMES}) VALUES ({marks(len(values))})", values)


def _fresh(
    conn: sqlite3.Connection,
    layer: LayerId,
    volume: VolumeId,
    kind: LayerKind,
    state: LayerState,
    *,
    sync: SyncId | None,
    builds_on: PointId | None,
    image_bytes: int,
) -> Layer:
    made = Layer(
        id=layer,
        volume=volume,
        kind=kind,
        state=state,
        sync=sync,
        builds_on=builds_on,
        point=None,
        position=next_position(conn, volume),
        image_bytes=image_bytes,
        length_bytes=0,
        directory_offset=0,
        directory_check=0,
        blocks=0,
        digest=b"",
    )
    insert(conn, made)
    return made


def open_pack(
    conn: sqlite3.Connection,
    layer: LayerId,
    volume: VolumeId,
    *,
    sync: SyncId,
    builds_on: PointId | None,
    image_bytes: int,
) -> Layer:
    """Name a pack that is about to be received, on top of the volume's chain (durability.md 2.5, step 1)."""
    return _fresh(
        conn,
        layer,
        volume,
        LayerKind.PACK,
        LayerState.OPEN,
        sync=sync,
        builds_on=builds_on,
        image_bytes=image_bytes,
    )


def new_overlay(
    conn: sqlite3.Connection,
    layer: LayerId,
    volume: VolumeId,
    state: LayerState,
    *,
    builds_on: PointId | None,
    image_bytes: int,
) -> Layer:
    """Name an overlay: `live`, or `open` until a promotion commits it.

    `builds_on`: the point whose image it lies on; None: all that the volume holds, which is no point (own image).
    """
    return _fresh(
        conn, layer, volume, LayerKind.OVERLAY, state, sync=None, builds_on=builds_on, image_bytes=image_bytes
    )


def next_position(conn: sqlite3.Connection, volume: VolumeId) -> int:
    """Above every layer that the volume has, whatever its state."""
    row = conn.execute("SELECT max(position) AS top FROM layer WHERE volume = ?", (volume,)).fetchone()
    return 0 if row["top"] is None else int(row["top"]) + 1


def _select(conn: sqlite3.Connection, where: str, *values: object) -> tuple[Layer, ...]:
    return tuple(_from(row) for row in conn.execute(f"SELECT {_NAMES} FROM layer WHERE {where}", values))


def get(conn: sqlite3.Connection, layer: LayerId) -> Layer:
    """Raises UnknownName."""
    found = _select(conn, "id = ?", layer)
    if not found:
        raise UnknownName(what="layer", name=layer.hex())
    return found[0]


def of_volume(conn: sqlite3.Connection, volume: VolumeId) -> tuple[Layer, ...]:
    """Every layer of the volume that has a row, in whatever state, by position."""
    return _select(conn, "volume = ? ORDER BY position", volume)


def chain(conn: sqlite3.Connection, volume: VolumeId) -> tuple[Layer, ...]:
    """The layers over the volume's base that make its image, oldest first, but for a live top.

    Packs, and overlays that were frozen when the side yielded. What is folded or set aside is not in it.
    """
    return _select(conn, "volume = ? AND state IN ('sealed', 'folding') ORDER BY position", volume)


def up_to(conn: sqlite3.Connection, volume: VolumeId, point: PointId) -> tuple[Layer, ...]:
    """The packs whose image, over the base, is `point`, oldest first, set aside or not. Empty: the base itself is.

    Raises UnknownName if the point is not here: the base alone would be another image, without a word. What a
    promoted volume shows is `chain` below its top, whatever point is common by now.
    """
    if conn.execute("SELECT 1 FROM point WHERE id = ?", (point,)).fetchone() is None:
        raise UnknownName(what="point", name=point.hex())
    layers = _select(
        conn,
        "volume = ? AND (state IN ('sealed', 'folding') OR kind = 'pack' AND state = 'set_aside') ORDER BY position",
        volume,
    )
    for index, layer in enumerate(layers):
        if layer.point == point:
            return layers[: index + 1]
    return ()


def in_state(conn: sqlite3.Connection, *states: LayerState, group: GroupId | None = None) -> tuple[Layer, ...]:
    """Layers in one of these states, of one group or of all; for boot, which finishes what they say is half done."""
    where = f"state IN ({marks(len(states))})"
    values: list[object] = [state.value for state in states]
    if group is not None:
        where += " AND volume IN (SELECT id FROM volume WHERE group_id = ?)"
        values.append(group)
    return _select(conn, f"{where} ORDER BY volume, position", *values)


def receiving(conn: sqlite3.Connection, group: GroupId) -> tuple[Layer, ...]:
    """The open packs of the group, in its order of volumes."""
    return _select(
        conn,
        "kind = 'pack' AND state = 'open' AND volume IN (SELECT id FROM volume WHERE group_id = ?)"
        " ORDER BY (SELECT position FROM volume WHERE id = layer.volume), layer.position",
        group,
    )


def set_state(conn: sqlite3.Connection, layers: Iterable[LayerId], state: LayerState) -> None:
    """Raises UnknownName."""
    for layer in layers:
        if conn.execute("UPDATE layer SET state = ? WHERE id = ?", (state.value, layer)).rowcount != 1:
            raise UnknownName(what="layer", name=layer.hex())


def freeze(conn: sqlite3.Connection, layer: LayerId, point: PointId | None) -> None:
    """A live overlay that nobody writes any more becomes a layer of the image; `point`: the one it ends in."""
    changed = conn.execute(
        "UPDATE layer SET state = 'sealed', point = ? WHERE id = ? AND kind = 'overlay' AND state = 'live'",
        (point, layer),
    )
    if changed.rowcount != 1:
        raise Raced(what="layer", name=layer.hex(), reason="it is not live")


def set_sync(conn: sqlite3.Connection, layer: LayerId, sync: SyncId) -> None:
    """An open pack goes on under a new sync (durability.md 2.5, "Reuse")."""
    if conn.execute("UPDATE layer SET sync = ? WHERE id = ? AND state = 'open'", (sync, layer)).rowcount != 1:
        raise Raced(what="layer", name=layer.hex(), reason="it is not open")


def seal(conn: sqlite3.Connection, layer: LayerId, point: PointId, receipt: Receipt) -> None:
    """An open pack is whole, and ends in `point`. Raises Raced if it is not open."""
    conn.execute("UPDATE layer SET point = ? WHERE id = ? AND state = 'open'", (point, layer))
    _whole(conn, layer, LayerState.OPEN, receipt)


def built(conn: sqlite3.Connection, layer: LayerId, receipt: Receipt) -> None:
    """A pack that was built from others is whole; its point is named already. Raises Raced if it is not building."""
    _whole(conn, layer, LayerState.BUILDING, receipt)


def _whole(conn: sqlite3.Connection, layer: LayerId, before: LayerState, receipt: Receipt) -> None:
    changed = conn.execute(
        "UPDATE layer SET state = 'sealed', length_bytes = ?, directory_offset = ?, directory_check = ?, blocks = ?,"
        " digest = ? WHERE id = ? AND kind = 'pack' AND state = ?",
        (
            receipt.length_bytes,
            receipt.directory_offset,
            receipt.directory_check,
            receipt.blocks,
            receipt.digest,
            layer,
            before.value,
        ),
    )
    if changed.rowcount != 1:
        raise Raced(what="layer", name=layer.hex(), reason=f"it is not {before.value}")


def delete(conn: sqlite3.Connection, layers: Iterable[LayerId]) -> None:
    """Forget layers whose files are gone, durably. Unknown ones are no error: a removal is repeated after a crash."""
    for layer in layers:
        conn.execute("DELETE FROM layer WHERE id = ?", (layer,))
