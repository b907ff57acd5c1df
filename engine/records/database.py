"""Database: the one connection to DATA/meta.db, its thread, and what happens when SQLite fails.

WAL, `synchronous=FULL` and an exclusive lock (durability.md 1, C9; sqlite.org/wal.html): no mapping, no second
process. Unreadable records are refused and never made again: they name the layers of every point. Nothing
else in the process may open meta.db, not even to copy it: any close would drop SQLite's locks. This module
must never go on after a COMMIT whose outcome is unknown.

SQLITE_FULL, also out of COMMIT, is no unknown outcome: it stands for a write to the log that found no space
(os_unix.c, unixWrite), and the frame that commits is the last one written (wal.c, sqlite3WalFrames; no padding
follows it with powersafe overwrite, the default). A failed sync is SQLITE_IOERR_FSYNC.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

from blockstore.disk import Disk
from engine.errors import (
    DataInUse,
    MetadataNewer,
    MetadataSpace,
    MetadataUncertain,
    MetadataUnreadable,
    NotInitialised,
    SiteExists,
)
from engine.model import Site
from engine.records import migrate, site
from engine.records.ballast import BALLAST_BYTES, Ballast

T = TypeVar("T")

Connection = sqlite3.Connection
"""What a function inside a transaction is given: for those who compose records without knowing SQL."""

EXIT_UNCERTAIN = 70
"""Exit status when a commit failed: a restart reads what is true, and keys make retries safe."""

_PRAGMAS: tuple[tuple[str, str, object], ...] = (
    ("locking_mode", "EXCLUSIVE", "exclusive"),  # before WAL, or its index would be a mapped file
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("mmap_size", "0", 0),
    ("foreign_keys", "ON", 1),
)


def exit_at_once(error: MetadataUncertain) -> None:
    """The default of `on_uncertain`: end the process without any clean-up that might answer somebody."""
    logging.getLogger("leeward.records").critical("%s", error)
    os._exit(EXIT_UNCERTAIN)


class Database:
    """The records of one site. Every call runs in one thread, in the order of the calls."""

    def __init__(self, data: str, disk: Disk, ballast_bytes: int, on_uncertain: Callable[[MetadataUncertain], None]):
        self.path = os.path.join(data, "meta.db")
        self._data = data
        self._disk = disk
        self._ballast = Ballast(disk, data, ballast_bytes)
        self._on_uncertain = on_uncertain
        self._broken: MetadataUncertain | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="records")
        self._closed = False
        self._conn: sqlite3.Connection

    @classmethod
    def create(
        cls,
        data: str,
        this_site: Site,
        created_at: datetime,
        *,
        disk: Disk | None = None,
        ballast_bytes: int = BALLAST_BYTES,
        on_uncertain: Callable[[MetadataUncertain], None] = exit_at_once,
    ) -> Database:
        """Make the records of a new site in the existing folder `data`, and open them. Blocking.

        Raises SiteExists if there are any, whole or not; MetadataSpace, MetadataUnreadable.
        """
        database = cls(data, disk or Disk(), ballast_bytes, on_uncertain)
        if database._disk.exists(database.path):
            raise SiteExists(path=data)
        try:
            database._begin(lambda: database._create(this_site, created_at))
        except BaseException:
            # Made by this very call and never complete: gone again, so that `init` can be repeated.
            for name in (database.path, f"{database.path}-wal", f"{database.path}-journal"):
                database._disk.unlink(name)
            raise
        return database

    @classmethod
    def open(
        cls,
        data: str,
        *,
        disk: Disk | None = None,
        ballast_bytes: int = BALLAST_BYTES,
        on_uncertain: Callable[[MetadataUncertain], None] = exit_at_once,
    ) -> Database:
        """Open the records in `data`; the caller holds its DataLock. Blocking.

        Raises NotInitialised, MetadataUnreadable, MetadataNewer (nothing was changed then), DataInUse, MetadataSpace.
        """
        database = cls(data, disk or Disk(), ballast_bytes, on_uncertain)
        if not database._disk.exists(database.path):
            raise NotInitialised(data=data)
        database._begin(database._open)
        return database

    @property
    def has_ballast(self) -> bool:
        """False after `metadata_space`, until `restore_ballast` finds room again."""
        return self._ballast.is_there

    async def transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn(conn)` in one transaction and return its value once that is durable; raising undoes it all.

        `fn` runs in the database's thread: it must only use the connection and what it was given. Raises
        MetadataSpace (nothing was recorded). A cancelled caller does not know whether it was: ask the records.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, fn)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn(conn)`, which changes nothing, on one state of the records."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, fn)

    def transact_now(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """`transact` for a caller without an event loop. Blocking."""
        return self._thread.submit(self._transact, fn).result()

    def read_now(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """`read` for a caller without an event loop. Blocking."""
        return self._thread.submit(self._read, fn).result()

    async def restore_ballast(self) -> bool:
        """Keep space back again if there is room; returns whether it is kept."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ballast.take)

    def close(self) -> None:
        """Finish what was asked, then close. Blocking; again: nothing."""
        if self._closed:
            return
        self._closed = True
        self._thread.submit(self._conn.close).result()
        self._thread.shutdown()

    def _begin(self, opening: Callable[[], None]) -> None:
        """Run `opening` in the thread; on failure nothing stays open."""
        try:
            self._thread.submit(opening).result()
        except BaseException as error:
            if hasattr(self, "_conn"):
                self._thread.submit(self._conn.close).result()
            self._thread.shutdown()
            if isinstance(error, sqlite3.Error):
                raise self._translated(error) from error
            raise

    def _connect(self, mode: str) -> sqlite3.Connection:
        self._conn = sqlite3.connect(
            f"file:{quote(os.path.abspath(self.path))}?mode={mode}", uri=True, timeout=0, isolation_level=None
        )
        self._conn.row_factory = sqlite3.Row
        return self._conn

    def _set(self, names: tuple[tuple[str, str, object], ...]) -> None:
        for name, value, answer in names:
            self._conn.execute(f"PRAGMA {name} = {value}")
            found = self._conn.execute(f"PRAGMA {name}").fetchone()[0]
            if found != answer:
                raise MetadataUnreadable(path=self.path, reason=f"{name} is {found}, not {value}")

    def _create(self, this_site: Site, created_at: datetime) -> None:
        conn = self._connect("rwc")
        self._set(_PRAGMAS)
        migrate.migrate(conn, and_then=lambda conn: site.insert(conn, this_site, created_at))
        # The new file is whole by itself from here on, and its name is durable.
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._disk.sync_dir(self._data)
        self._ballast.take()

    def _open(self) -> None:
        conn = self._connect("rw")
        self._set(_PRAGMAS[:1])
        self._require_known(conn)
        self._set(_PRAGMAS[1:])
        # What a dead process left may not be on the disk: it is, before any row of it is believed.
        busy = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise DataInUse(data=self._data, holder="another process")
        damage = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise MetadataUnreadable(path=self.path, reason=f"damaged: {damage}")
        migrate.migrate(conn)
        if site.find(conn) is None:
            raise MetadataUnreadable(path=self.path, reason="they name no site")
        self._ballast.take()

    def _require_known(self, conn: sqlite3.Connection) -> None:
        """Before anything may be written: these are records of ours, whole, and of a schema that we know."""
        found = migrate.found_version(conn)
        known = migrate.known_version()
        if found == 0:
            raise MetadataUnreadable(path=self.path, reason="they were never completed")
        if conn.execute("PRAGMA application_id").fetchone()[0] != migrate.APPLICATION_ID:
            raise MetadataUnreadable(path=self.path, reason="another program made them")
        if found > known:
            raise MetadataNewer(path=self.path, found=found, known=known)

    def _transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        if self._broken is not None:
            raise self._broken
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            result = fn(self._conn)
        except sqlite3.Error as error:
            self._roll_back()
            raise self._translated(error) from error
        except BaseException:
            self._roll_back()
            raise
        self._commit()
        return result

    def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        if self._broken is not None:
            raise self._broken
        before = self._conn.total_changes
        try:
            # Never committed: a change that slipped in here is undone, and found out.
            self._conn.execute("BEGIN")
            result = fn(self._conn)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            self._roll_back()
        assert self._conn.total_changes == before, "a read changes nothing"
        return result

    def _commit(self) -> None:
        try:
            self._conn.execute("COMMIT")
        except sqlite3.Error as error:
            if _primary(error) == sqlite3.SQLITE_FULL:
                self._roll_back()
                raise self._translated(error) from error
            raise self._stop(error) from error

    def _roll_back(self) -> None:
        if not self._conn.in_transaction:
            return  # SQLite did it itself, as after SQLITE_FULL
        try:
            self._conn.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._stop(error) from error

    def _stop(self, error: sqlite3.Error) -> MetadataUncertain:
        self._broken = MetadataUncertain(path=self.path, reason=str(error))
        self._on_uncertain(self._broken)
        return self._broken

    def _translated(self, error: sqlite3.Error) -> Exception:
        """Our own error for what concerns an operator; anything else is a mistake of ours and stays what it is."""
        primary = _primary(error)
        if primary == sqlite3.SQLITE_FULL:
            self._ballast.give_up()
            return MetadataSpace(path=self.path)
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return DataInUse(data=self._data, holder="another process")
        if primary in _UNREADABLE:
            return MetadataUnreadable(path=self.path, reason=str(error))
        return error


_UNREADABLE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error that the `sqlite3` module made up itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
