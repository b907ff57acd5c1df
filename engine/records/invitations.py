"""Invitations, open and over. What proves one is wiped when it is over; the row stays a day, to say why it is refused.

This module must never judge an invitation: `operations/pairing.py` does.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from engine.model import Invitation, InvitationId
from engine.records.columns import from_us, to_us

KEPT = timedelta(days=1)
"""An invitation is remembered for so long after it expired."""

_COLUMNS = "id, peer, key, made_us, expires_us, wrong, used_by"


def _from(row: sqlite3.Row) -> Invitation:
    return Invitation(
        id=InvitationId(row["id"]),
        peer=row["peer"],
        key=row["key"],
        made_at=from_us(row["made_us"]),
        expires_at=from_us(row["expires_us"]),
        wrong=row["wrong"],
        used_by=row["used_by"],
    )


def insert(conn: sqlite3.Connection, invitation: Invitation) -> None:
    """A new one, instead of any for the same name."""
    conn.execute("DELETE FROM invitation WHERE peer = ? OR id = ?", (invitation.peer, invitation.id))
    conn.execute(
        f"INSERT INTO invitation ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            invitation.id,
            invitation.peer,
            invitation.key,
            to_us(invitation.made_at),
            to_us(invitation.expires_at),
            invitation.wrong,
            invitation.used_by,
        ),
    )


def find(conn: sqlite3.Connection, invitation: InvitationId) -> Invitation | None:
    """None: it never was, a newer one took its place, or it is forgotten."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM invitation WHERE id = ?", (invitation,)).fetchone()
    return None if row is None else _from(row)


def count_wrong(conn: sqlite3.Connection, invitation: InvitationId) -> None:
    """Somebody came with it and did not know its secret."""
    conn.execute("UPDATE invitation SET wrong = wrong + 1 WHERE id = ?", (invitation,))


def use(conn: sqlite3.Connection, invitation: InvitationId, fingerprint: str) -> None:
    """The site with this fingerprint was let in, and no other will be."""
    conn.execute("UPDATE invitation SET used_by = ? WHERE id = ?", (fingerprint, invitation))


def forget(conn: sqlite3.Connection, now: datetime) -> None:
    """Wipe what proves those that are over, and forget those that have been for a day."""
    conn.execute("DELETE FROM invitation WHERE expires_us <= ?", (to_us(now - KEPT),))
    conn.execute("UPDATE invitation SET key = x'' WHERE expires_us <= ?", (to_us(now),))
