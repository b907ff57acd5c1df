"""The database: its settings in force, transactions whole or not at all, and every bad file refused untouched."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from records_build import NOW, SITE, SMALL_BALLAST, Records, fail_on, peer

from engine.errors import (
    EXIT_REFUSED,
    DataInUse,
    MetadataNewer,
    MetadataUnreadable,
    NotInitialised,
    SiteExists,
    UnknownName,
)
from engine.model import Site
from engine.records import events, migrate, peers, site
from engine.records.database import Database

OPEN = """
import sys
from engine.errors import LeewardError
from engine.records.database import Database
try:
    Database.open(sys.argv[1], ballast_bytes=65536)
except LeewardError as error:
    print(error.code)
"""


def pragma(records: Records, name: str) -> object:
    return records.database.read_now(lambda conn: conn.execute(f"PRAGMA {name}").fetchone()[0])


def open_again(data: Path) -> Database:
    return Database.open(str(data), ballast_bytes=SMALL_BALLAST, on_uncertain=fail_on)


def contents(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data.iterdir() if path.name.startswith("meta.db")}


@pytest.mark.parametrize("again", [False, True])
def test_the_settings_that_durability_rests_on_are_in_force(records: Records, again: bool) -> None:
    if again:
        records.reopen()
    assert pragma(records, "journal_mode") == "wal"
    assert pragma(records, "synchronous") == 2
    assert pragma(records, "locking_mode") == "exclusive"
    assert pragma(records, "mmap_size") == 0
    assert pragma(records, "foreign_keys") == 1
    assert pragma(records, "user_version") == migrate.known_version()
    records(peers.insert, peer(), NOW)
    assert not (records.data / "meta.db-shm").exists()  # exclusive before WAL: the index is no mapped file


def test_a_transaction_is_undone_whole_when_its_function_raises(records: Records) -> None:
    before = records.everything()

    def add_and_fail(conn: sqlite3.Connection) -> None:
        peers.insert(conn, peer(), NOW)
        events.append(conn, at=NOW, level="info", code="c", message="m")
        peers.get(conn, "nobody")

    with pytest.raises(UnknownName):
        records(add_and_fail)
    assert records.everything() == before
    records(peers.insert, peer(), NOW)


def test_a_mistake_of_ours_stays_what_it_is(records: Records) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        records(lambda conn: conn.execute("SELECT * FROM nowhere"))
    with pytest.raises(sqlite3.IntegrityError):
        records(lambda conn: conn.execute("INSERT INTO pin (point, holder) VALUES (x'00', 'nobody')"))


def test_a_read_that_writes_is_found_out_and_undone(records: Records) -> None:
    with pytest.raises(AssertionError, match="changes nothing"):
        records.database.read_now(lambda conn: peers.insert(conn, peer(), NOW))
    assert records(peers.all) == ()


async def test_transactions_run_one_after_another_in_one_thread(records: Records) -> None:
    threads = set()

    def count(conn: sqlite3.Connection) -> int:
        threads.add(threading.current_thread())
        return (
            len(events.after(conn, 0, 1000)) + events.append(conn, at=NOW, level="info", code="c", message="m").sequence
        )

    counted = await asyncio.gather(*(records.database.transact(count) for _ in range(50)))
    assert counted == [2 * n + 1 for n in range(50)]
    assert len(threads) == 1
    assert threading.main_thread() not in threads


async def test_a_cancelled_caller_leaves_a_whole_transaction_or_none(records: Records) -> None:
    entered, released = threading.Event(), threading.Event()

    def add_both(conn: sqlite3.Connection) -> None:
        peers.insert(conn, peer("first"), NOW)
        entered.set()
        assert released.wait(60)
        peers.insert(conn, peer("second"), NOW)

    task = asyncio.create_task(records.database.transact(add_both))
    assert await asyncio.to_thread(entered.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    released.set()
    assert [found.name for found in await records.database.read(peers.all)] == ["first", "second"]


def test_what_was_committed_is_there_after_a_restart(records: Records) -> None:
    records(peers.insert, peer(), NOW)
    records.reopen()
    assert records(peers.get, "south") == peer()
    assert records(site.get) == SITE


def test_closing_twice_does_nothing(records: Records) -> None:
    records.database.close()
    records.database.close()


def test_records_are_made_once(records: Records) -> None:
    with pytest.raises(SiteExists) as caught:
        Database.create(str(records.data), SITE, NOW)
    assert caught.value.exit_status == EXIT_REFUSED
    records.database.close()
    before = contents(records.data)
    with pytest.raises(SiteExists):
        Database.create(str(records.data), Site(SITE.id, "other"), NOW)
    assert contents(records.data) == before


def test_there_are_no_records_where_none_were_made(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised):
        open_again(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a b", "q?mode=ro", "hash#tag", "per%20cent", "ümlaut"])
def test_any_path_can_hold_records(tmp_path: Path, name: str) -> None:
    data = tmp_path / name
    data.mkdir()
    Database.create(str(data), SITE, NOW, ballast_bytes=SMALL_BALLAST).close()
    assert (data / "meta.db").stat().st_size > 0
    open_again(data).close()


def test_a_second_process_is_refused_even_without_the_lock_file(records: Records) -> None:
    records(peers.insert, peer(), NOW)
    second = subprocess.run(
        [sys.executable, "-c", OPEN, records.data], check=True, capture_output=True, text=True, timeout=60
    )
    assert second.stdout == f"{DataInUse.code}\n"
    records(peers.delete, "south")  # and the first goes on


def test_a_newer_schema_is_refused_and_left_alone(records: Records) -> None:
    newer = migrate.known_version() + 1
    records.database.close()
    with sqlite3.connect(records.data / "meta.db") as conn:
        conn.execute(f"PRAGMA user_version = {newer}")
        conn.execute("CREATE TABLE of_the_future (x)")
    conn.close()
    with sqlite3.connect(records.data / "meta.db") as conn:
        before = list(conn.iterdump())
    conn.close()
    with pytest.raises(MetadataNewer) as caught:
        open_again(records.data)
    assert (caught.value.found, caught.value.known) == (newer, newer - 1)
    with sqlite3.connect(records.data / "meta.db") as conn:
        assert list(conn.iterdump()) == before
    conn.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish", b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 4080, os.urandom(65536)],
    ids=["empty", "short", "zeros", "header", "noise"],
)
def test_rubbish_is_refused_and_never_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meta.db").write_bytes(content)
    with pytest.raises(MetadataUnreadable) as caught:
        open_again(tmp_path)
    assert str(tmp_path / "meta.db") in caught.value.message
    assert (tmp_path / "meta.db").read_bytes() == content
    with pytest.raises(SiteExists):
        Database.create(str(tmp_path), SITE, NOW)
    assert (tmp_path / "meta.db").read_bytes() == content


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.db").mkdir()
    with pytest.raises(MetadataUnreadable):
        open_again(tmp_path)


def test_another_program_s_database_is_refused(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "meta.db")
    conn.executescript("CREATE TABLE t (x); PRAGMA user_version = 1;")
    conn.close()
    before = contents(tmp_path)
    with pytest.raises(MetadataUnreadable, match="another program"):
        open_again(tmp_path)
    assert contents(tmp_path) == before


def test_a_schema_without_its_site_is_refused(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "meta.db", isolation_level=None)
    migrate.migrate(conn)
    conn.close()
    with pytest.raises(MetadataUnreadable, match="no site"):
        open_again(tmp_path)


def test_a_truncated_database_is_refused(records: Records) -> None:
    records.database.close()
    whole = (records.data / "meta.db").read_bytes()
    for size in (100, 4096, len(whole) // 2, len(whole) - 4096):
        (records.data / "meta.db").write_bytes(whole[:size])
        with pytest.raises(MetadataUnreadable):
            open_again(records.data)
        assert (records.data / "meta.db").read_bytes() == whole[:size]


def test_a_damaged_page_is_found_when_the_records_are_opened(records: Records) -> None:
    records(peers.insert, peer(), NOW)
    records.database.close()
    whole = (records.data / "meta.db").read_bytes()
    for page in range(1, len(whole) // 4096):
        at = page * 4096
        (records.data / "meta.db").write_bytes(whole[:at] + b"\xa5" * 4096 + whole[at + 4096 :])
        with pytest.raises(MetadataUnreadable):
            open_again(records.data)
    (records.data / "meta.db").write_bytes(whole)
    open_again(records.data).close()


def test_a_copy_with_its_log_has_every_commit_and_a_torn_log_has_a_prefix(records: Records, tmp_path: Path) -> None:
    """What a power cut leaves: the log to any length. Each commit is there whole or not at all, in order."""
    for number in range(6):
        records(events.append, at=NOW, level="info", code="c", message=str(number), details="x" * 3000)
    base, log = (records.data / "meta.db").read_bytes(), (records.data / "meta.db-wal").read_bytes()
    seen = set()
    for size in (*range(0, len(log), 1511), len(log)):
        copy = tmp_path / f"cut-{size}"
        copy.mkdir()
        (copy / "meta.db").write_bytes(base)
        (copy / "meta.db-wal").write_bytes(log[:size])
        database = open_again(copy)
        found = database.read_now(lambda conn: [event.message for event in events.after(conn, 0, 100)])
        database.close()
        assert found == [str(number) for number in range(len(found))]
        seen.add(len(found))
        shutil.rmtree(copy)
    assert seen == set(range(7))
