"""Migrations: numbered, one transaction each, and a failed one leaves the schema before it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from records_build import NOW, SITE

from engine.records import migrate, site


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.row_factory = sqlite3.Row
    yield conn
    conn.close()


def tables(conn: sqlite3.Connection) -> set[str]:
    rows = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    return {row[0] for row in rows}


def write(folder: Path, **scripts: str) -> Path:
    for name, script in scripts.items():
        (folder / f"{name[1:]}.sql").write_text(script)
    return folder


def test_released_migrations_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.stem) for path in migrate.MIGRATIONS.glob("*.sql"))
    assert numbers == list(range(1, migrate.known_version() + 1))
    assert all(re.fullmatch(r"\d{4}\.sql", path.name) for path in migrate.MIGRATIONS.iterdir())


def test_every_table_is_strict(conn: sqlite3.Connection) -> None:
    migrate.migrate(conn, and_then=lambda conn: site.insert(conn, SITE, NOW))
    strict = {row["name"] for row in conn.execute("PRAGMA table_list") if row["strict"]}
    assert tables(conn) <= strict
    assert site.get(conn) == SITE


def test_the_steps_run_in_order_and_once(conn: sqlite3.Connection, tmp_path: Path) -> None:
    folder = write(tmp_path, _0001="CREATE TABLE a (x);\n-- a comment; with a semicolon\nINSERT INTO a VALUES (';');\n")
    migrate.migrate(conn, folder)
    write(tmp_path, _0002="CREATE TABLE b AS\n  SELECT x FROM a;\n", _0003="INSERT INTO b VALUES ('three');")
    migrate.migrate(conn, folder)
    migrate.migrate(conn, folder)
    assert [row[0] for row in conn.execute("SELECT x FROM b")] == [";", "three"]
    assert migrate.found_version(conn) == 3


def test_a_failed_step_leaves_the_schema_before_it(conn: sqlite3.Connection, tmp_path: Path) -> None:
    folder = write(tmp_path, _0001="CREATE TABLE a (x);", _0002="CREATE TABLE b (x);\nINSERT INTO nothing VALUES (1);")
    with pytest.raises(sqlite3.OperationalError, match="nothing"):
        migrate.migrate(conn, folder)
    assert (migrate.found_version(conn), tables(conn), conn.in_transaction) == (1, {"a"}, False)


def test_what_belongs_to_the_last_step_fails_with_it(conn: sqlite3.Connection, tmp_path: Path) -> None:
    def fail(conn: sqlite3.Connection) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        migrate.migrate(conn, write(tmp_path, _0001="CREATE TABLE a (x);"), fail)
    assert (migrate.found_version(conn), tables(conn)) == (0, set())


def test_an_unfinished_statement_is_a_mistake(conn: sqlite3.Connection, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="CREATE"):
        migrate.migrate(conn, write(tmp_path, _0001="CREATE TABLE a (x)"))
    assert migrate.found_version(conn) == 0
