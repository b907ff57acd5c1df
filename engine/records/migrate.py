"""Numbered migrations of the records: `migrations/NNNN.sql`, one transaction each, counted in `PRAGMA user_version`.

This module must never change a released migration, nor open a database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"

APPLICATION_ID = 0x4C574452
"""`PRAGMA application_id` of Leeward's records ("LWDR"): another program's database is refused by it."""


def known_version(folder: Path = MIGRATIONS) -> int:
    """The schema that this program writes: the number of its newest migration."""
    return max(int(path.stem) for path in folder.glob("*.sql"))


def found_version(conn: sqlite3.Connection) -> int:
    """The schema that the database has; 0 if it was never completed."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def migrate(
    conn: sqlite3.Connection,
    folder: Path = MIGRATIONS,
    and_then: Callable[[sqlite3.Connection], None] = lambda conn: None,
) -> None:
    """Bring the database to the newest schema. `and_then` belongs to the transaction of the last migration.

    What fails leaves the database at the schema before the failed step. Raises sqlite3.Error.
    """
    last = known_version(folder)
    for version in range(found_version(conn) + 1, last + 1):
        conn.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements((folder / f"{version:04}.sql").read_text("utf-8")):
                conn.execute(statement)
            conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            conn.execute(f"PRAGMA user_version = {version}")
            if version == last:
                and_then(conn)
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise


def _statements(script: str) -> Iterator[str]:
    """The statements one by one: `executescript` would commit the transaction that they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert all(line.strip() == "" or line.strip().startswith("--") for line in statement.splitlines()), statement
