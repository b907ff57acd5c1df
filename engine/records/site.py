"""The one row that says who this site is, and how fast it may send. Id and name must never change once written."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from engine.model import Site, SiteId
from engine.records.columns import to_us


def insert(conn: sqlite3.Connection, site: Site, created_at: datetime) -> None:
    """Once, when the records are made."""
    conn.execute(
        "INSERT INTO site (only, id, name, created_us) VALUES (1, ?, ?, ?)", (site.id, site.name, to_us(created_at))
    )


def find(conn: sqlite3.Connection) -> Site | None:
    """This site, or None in records that were never completed."""
    row = conn.execute("SELECT id, name FROM site").fetchone()
    return None if row is None else Site(SiteId(row["id"]), row["name"])


def link_limit(conn: sqlite3.Connection) -> str:
    """The calendar of limits as it was written; empty: none."""
    return str(conn.execute("SELECT link_limit FROM site").fetchone()["link_limit"])


def set_link_limit(conn: sqlite3.Connection, calendar: str) -> None:
    """It has been parsed."""
    conn.execute("UPDATE site SET link_limit = ?", (calendar,))


def get(conn: sqlite3.Connection) -> Site:
    """This site."""
    site = find(conn)
    assert site is not None, "records are opened only with their site"
    return site
