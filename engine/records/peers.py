"""Paired sites. This module must never judge an address or a fingerprint: it keeps what it is given."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from engine.errors import NameTaken, Raced, RefusedByState, UnknownName
from engine.model import Peer, SiteId
from engine.records.columns import to_us

_COLUMNS = "name, address, fingerprint, plain, id"


def _from(row: sqlite3.Row) -> Peer:
    site = row["id"]
    return Peer(
        name=row["name"],
        address=row["address"],
        fingerprint=row["fingerprint"],
        plain=bool(row["plain"]),
        id=None if site is None else SiteId(site),
    )


def insert(conn: sqlite3.Connection, peer: Peer, added_at: datetime) -> None:
    """Raises NameTaken."""
    if find(conn, peer.name) is not None:
        raise NameTaken(what="peer", name=peer.name)
    conn.execute(
        f"INSERT INTO peer ({_COLUMNS}, added_us) VALUES (?, ?, ?, ?, ?, ?)",
        (peer.name, peer.address, peer.fingerprint, int(peer.plain), peer.id, to_us(added_at)),
    )


def find(conn: sqlite3.Connection, name: str) -> Peer | None:
    row = conn.execute(f"SELECT {_COLUMNS} FROM peer WHERE name = ?", (name,)).fetchone()
    return None if row is None else _from(row)


def with_fingerprint(conn: sqlite3.Connection, fingerprint: str) -> Peer | None:
    """The peer that has this certificate; the first by name if an operator gave it several names."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM peer WHERE fingerprint = ? ORDER BY name", (fingerprint,)).fetchone()
    return None if row is None else _from(row)


def get(conn: sqlite3.Connection, name: str) -> Peer:
    """Raises UnknownName."""
    peer = find(conn, name)
    if peer is None:
        raise UnknownName(what="peer", name=name)
    return peer


def all(conn: sqlite3.Connection) -> tuple[Peer, ...]:
    """Every peer by name."""
    return tuple(_from(row) for row in conn.execute(f"SELECT {_COLUMNS} FROM peer ORDER BY name"))


def set_id(conn: sqlite3.Connection, name: str, site: SiteId) -> None:
    """Note at the first contact which site answers to this fingerprint. Raises Raced if another is noted."""
    changed = conn.execute("UPDATE peer SET id = ? WHERE name = ? AND (id IS NULL OR id = ?)", (site, name, site))
    if changed.rowcount != 1:
        raise Raced(what="peer", name=name, reason="another site is noted for it, or it was removed")


def delete(conn: sqlite3.Connection, name: str) -> None:
    """Raises UnknownName; RefusedByState while a group replicates to it."""
    get(conn, name)
    group = conn.execute('SELECT name FROM "group" WHERE peer = ? ORDER BY name', (name,)).fetchone()
    if group is not None:
        raise RefusedByState(operation=f"peer remove {name}", group=group["name"], reason="it replicates to this peer")
    conn.execute("DELETE FROM peer WHERE name = ?", (name,))
