"""Volumes: the stores under replication at this site.

Every change is a narrow one, so that two parts that each read the row earlier cannot undo each other.
This module must never touch a file: a name here is durable before the file is made, and outlives it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from blockstore.units import StoreIdentity
from engine.errors import NameTaken, Raced, UnknownName
from engine.model import GroupId, LayerId, TrackingId, Volume, VolumeId, VolumeState
from engine.records.columns import from_u64, from_us, to_u64, to_us

_NAMES = (
    "id, name, store, size_bytes, prepared, state, reason, group_id, position, tracking, nonce, writes, hash_seed, wwn,"
    " identity_size, identity_inode, identity_mtime_ns, identity_ctime_ns, top, tracking_next, store_bytes, verified_us"
)


def _from(row: sqlite3.Row) -> Volume:
    identity = None
    if row["identity_size"] is not None:
        identity = StoreIdentity(
            size_bytes=row["identity_size"],
            inode=from_u64(row["identity_inode"]),
            mtime_ns=row["identity_mtime_ns"],
            ctime_ns=row["identity_ctime_ns"],
        )
    return Volume(
        id=VolumeId(row["id"]),
        name=row["name"],
        store=row["store"],
        size_bytes=row["size_bytes"],
        prepared=bool(row["prepared"]),
        state=VolumeState(row["state"]),
        reason=row["reason"],
        group=None if row["group_id"] is None else GroupId(row["group_id"]),
        position=row["position"],
        tracking=None if row["tracking"] is None else TrackingId(row["tracking"]),
        nonce=row["nonce"],
        writes=row["writes"],
        hash_seed=from_u64(row["hash_seed"]),
        wwn=row["wwn"],
        identity=identity,
        top=None if row["top"] is None else LayerId(row["top"]),
        tracking_next=None if row["tracking_next"] is None else TrackingId(row["tracking_next"]),
        store_bytes=row["store_bytes"],
        verified_at=None if row["verified_us"] is None else from_us(row["verified_us"]),
    )


def _identity(identity: StoreIdentity | None) -> tuple[int | None, bytes | None, int | None, int | None]:
    if identity is None:
        return None, None, None, None
    return identity.size_bytes, to_u64(identity.inode), identity.mtime_ns, identity.ctime_ns


def insert(conn: sqlite3.Connection, volume: Volume) -> None:
    """Raises NameTaken if a volume that is not dead has the name."""
    if find(conn, volume.name) is not None:
        raise NameTaken(what="volume", name=volume.name)
    values = (
        volume.id,
        volume.name,
        volume.store,
        volume.size_bytes,
        int(volume.prepared),
        volume.state.value,
        volume.reason,
        volume.group,
        volume.position,
        volume.tracking,
        volume.nonce,
        volume.writes,
        to_u64(volume.hash_seed),
        volume.wwn,
        *_identity(volume.identity),
        volume.top,
        volume.tracking_next,
        volume.store_bytes,
        None if volume.verified_at is None else to_us(volume.verified_at),
    )
    conn.execute(f"INSERT INTO volume ({_NAMES}) VALUES ({', '.join('?' * len(values))})", values)


def _select(conn: sqlite3.Connection, where: str, *values: object) -> tuple[Volume, ...]:
    return tuple(_from(row) for row in conn.execute(f"SELECT {_NAMES} FROM volume WHERE {where}", values))


def find(conn: sqlite3.Connection, name: str) -> Volume | None:
    """The volume of that name that is not dead."""
    found = _select(conn, "name = ? AND state <> 'dead'", name)
    return found[0] if found else None


def get(conn: sqlite3.Connection, name: str) -> Volume:
    """Raises UnknownName."""
    volume = find(conn, name)
    if volume is None:
        raise UnknownName(what="volume", name=name)
    return volume


def by_id(conn: sqlite3.Connection, volume: VolumeId) -> Volume:
    """Dead ones too. Raises UnknownName."""
    found = _select(conn, "id = ?", volume)
    if not found:
        raise UnknownName(what="volume", name=volume.hex())
    return found[0]


def all(conn: sqlite3.Connection) -> tuple[Volume, ...]:
    """Every volume that is not dead, by name."""
    return _select(conn, "state <> 'dead' ORDER BY name")


def dead(conn: sqlite3.Connection) -> tuple[Volume, ...]:
    """Volumes whose files are to be removed, at boot for instance."""
    return _select(conn, "state = 'dead' ORDER BY name")


def of_group(conn: sqlite3.Connection, group: GroupId) -> tuple[Volume, ...]:
    """The group's volumes in the order given when it was made."""
    return _select(conn, "group_id = ? ORDER BY position", group)


def _set(conn: sqlite3.Connection, volume: VolumeId, assignments: str, *values: object) -> None:
    if conn.execute(f"UPDATE volume SET {assignments} WHERE id = ?", (*values, volume)).rowcount != 1:
        raise UnknownName(what="volume", name=volume.hex())


def set_state(conn: sqlite3.Connection, volume: VolumeId, state: VolumeState, reason: str = "") -> None:
    """`active`, `failed` with the reason, or `dead`: its files may go now."""
    _set(conn, volume, "state = ?, reason = ?", state.value, reason)


def verified(conn: sqlite3.Connection, volume: VolumeId, at: datetime) -> None:
    """Every block of it was the same at both sides."""
    _set(conn, volume, "verified_us = ?", to_us(at))


def opened(
    conn: sqlite3.Connection, volume: VolumeId, *, tracking: TrackingId, nonce: bytes, writes: int | None = None
) -> None:
    """The volume's live maps with `nonce` are in force and hosts may write: its identity is forgotten.

    `writes`: its write counter where the live maps that counted were lost (durability.md 1, "Live map").
    """
    _set(conn, volume, "tracking = ?, nonce = ?, tracking_next = nullif(tracking_next, ?)", tracking, nonce, tracking)
    if writes is not None:
        set_writes(conn, volume, writes)
    set_identity(conn, volume, None)


def set_identity(conn: sqlite3.Connection, volume: VolumeId, identity: StoreIdentity | None) -> None:
    """What the store looked like at a clean stop; None while it may change."""
    names = "identity_size = ?, identity_inode = ?, identity_mtime_ns = ?, identity_ctime_ns = ?"
    _set(conn, volume, names, *_identity(identity))


def stopped(conn: sqlite3.Connection, volume: VolumeId, identity: StoreIdentity, *, writes: int) -> None:
    """A clean stop: what the store looks like now, and its write counter."""
    set_writes(conn, volume, writes)
    set_identity(conn, volume, identity)


def set_writes(conn: sqlite3.Connection, volume: VolumeId, writes: int) -> None:
    """Its write counter, kept at a seal and at a role change."""
    _set(conn, volume, "writes = ?", writes)


def plan_tracking(conn: sqlite3.Connection, volume: VolumeId, tracking: TrackingId | None) -> None:
    """Name the files of a tracking before they are made; None: they are gone again, or were never made."""
    _set(conn, volume, "tracking_next = ?", tracking)


def untrack(conn: sqlite3.Connection, volume: VolumeId) -> None:
    """No tracking is in force any more; `tracking_next` names the files that are to go."""
    _set(conn, volume, "tracking_next = coalesce(tracking, tracking_next), tracking = NULL, nonce = ?", bytes(16))


def set_top(conn: sqlite3.Connection, volume: VolumeId, top: LayerId | None) -> None:
    """The overlay that takes the volume's writes; None: its store does."""
    _set(conn, volume, "top = ?", top)


def set_hash_seed(conn: sqlite3.Connection, volume: VolumeId, hash_seed: int) -> None:
    """The secret seed of its block hashes: the protected site's, once a group of it takes the volume."""
    _set(conn, volume, "hash_seed = ?", to_u64(hash_seed))


def fit(conn: sqlite3.Connection, volume: VolumeId, *, size_bytes: int, store_bytes: int | None) -> None:
    """It has the size of the peer's volume from now on; `store_bytes`: of its store, if that is larger."""
    _set(conn, volume, "size_bytes = ?, store_bytes = ?", size_bytes, store_bytes)


def assign(conn: sqlite3.Connection, group: GroupId, volumes: Sequence[VolumeId]) -> None:
    """Put volumes into a new group, in this order. Raises Raced if one is in a group already, or dead."""
    for position, volume in enumerate(volumes):
        changed = conn.execute(
            "UPDATE volume SET group_id = ?, position = ?, prepared = 0"
            " WHERE id = ? AND group_id IS NULL AND state <> 'dead'",
            (group, position, volume),
        )
        if changed.rowcount != 1:
            raise Raced(what="volume", name=by_id(conn, volume).name, reason="it is in a group, or was removed")


def release(conn: sqlite3.Connection, group: GroupId) -> None:
    """Take all volumes out of a group that goes away."""
    conn.execute("UPDATE volume SET group_id = NULL, position = 0 WHERE group_id = ?", (group,))


def delete(conn: sqlite3.Connection, volume: VolumeId) -> None:
    """Forget a dead volume once its files are gone; its layers went before. Raises Raced if it is not dead."""
    changed = conn.execute("DELETE FROM volume WHERE id = ? AND state = 'dead'", (volume,))
    if changed.rowcount != 1:
        raise Raced(what="volume", name=volume.hex(), reason="it is not dead")
