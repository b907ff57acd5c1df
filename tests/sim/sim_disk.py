"""The disk of a simulated host: a page cache over what is durable; power cuts leave any legal part of the rest.

Slow, failing and full are moods of it. The records are SQLite in memory, each commit one atomic durable step.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from sim_loop import ProcessLoop

from blockstore.steps import Step, Wait
from engine.errors import MetadataSpace
from engine.pool import DiskPool
from rig.disk_states import Choice, Replay
from rig.memory_disk import Entry, MemoryDisk

T = TypeVar("T")


class SimDisk(MemoryDisk):
    """Keeps what is durable beside what is in the page cache."""

    def __init__(self) -> None:
        super().__init__()
        self.replay = Replay()
        self.is_full = False
        self.failing_syncs = 0
        """So many syncs from now on fail with EIO."""
        self.slowness = 1.0
        self.has_failed = False
        """A sync failed on it."""
        self.ballast = 50
        """Commits that a full disk still takes."""
        self.is_bad = False
        """It was full or failed once: what an orderly stop left may be less than all."""

    def change(self, entry: Entry) -> None:
        kind = entry[0]
        if kind in ("data", "size"):
            if self.is_full and kind == "size" and entry[2] > self.contents[entry[1]].size:
                self.is_bad = True
                raise OSError(errno.ENOSPC, "No space left on device")
            self.contents[entry[1]].apply(entry)
        elif kind == "sync" and self.failing_syncs:
            self.failing_syncs -= 1
            self.is_bad = self.has_failed = True
            raise OSError(errno.EIO, "Input/output error")
        self.replay.apply(entry)

    def look(self) -> None:
        """Live maps are memory: they are there until the power goes."""

    def make_dir(self, path: str, mode: int = 0o700) -> None:
        super().make_dir(path, mode)
        self.log.clear()

    def note(self, name: str, *arguments: Any) -> None:
        pass

    def file_system_type(self, folder: str) -> int:
        return 0  # none whose holes are believed

    def free_bytes(self, path: str) -> int:
        return 0 if self.is_full else 1 << 40

    def after_power_cut(self, random: Random) -> SimDisk:
        """What is left: all that was synced, and of the rest whatever the seed says."""
        pending = self.replay.pending
        mood = random.choice(("nothing", "everything", "some", "prefix"))
        choice: Choice = ()
        if mood == "everything":
            choice = tuple((index, None) for index in range(len(pending)))
        elif mood == "prefix":
            choice = tuple((index, None) for index in range(random.randrange(len(pending) + 1)))
        elif mood == "some":
            choice = tuple(
                (index, random.getrandbits(len(op[2])) if op[0] == "data" and random.random() < 0.5 else None)
                for index, op in enumerate(pending)
                if random.random() < 0.5
            )
        return self._restarted(self.replay.build(choice))

    def after_kill(self) -> SimDisk:
        """The page cache and the live maps outlive a process; what it had not got to write does not."""
        after = self._restarted(self.replay)
        after.live = self.live
        return after

    def _restarted(self, replay: Replay) -> SimDisk:
        booted = replay.boot()
        after = SimDisk()
        after.names, after.contents, after.folders = booted.names, booted.contents, booted.folders
        after.next_inode = booted.next_inode
        after.replay = replay
        after.is_full, after.slowness, after.is_bad = self.is_full, self.slowness, self.is_bad
        after.has_failed = self.has_failed
        return after


class SimPool(DiskPool):
    """Runs steps on the loop, each when the seed says."""

    def __init__(self, loop: ProcessLoop, disk: SimDisk, random: Random) -> None:
        super().__init__()
        self._loop = loop
        self._disk = disk
        self._random = random

    def delay(self) -> float:
        return self._random.choice((0.00002, 0.0001, 0.0001, 0.001)) * self._disk.slowness

    def begin(self, wait: Wait) -> None:
        if isinstance(wait, Step) and not wait.started:
            self._loop.call_later(self.delay(), self._do, wait, wait.start())

    def _do(self, step: Step[Any], work: Callable[[], Any]) -> None:
        try:
            result = work()
        except Exception as error:
            self._loop.call_later(self.delay(), step.fail, error)
        else:
            self._loop.call_later(self.delay(), step.complete, result)


class SimDatabase:
    """`engine.records.database.Database` as a site sees it: one after the other, each a while after it was asked."""

    has_ballast = True

    def __init__(
        self, loop: ProcessLoop, conn: sqlite3.Connection, disk: SimDisk, random: Random, committed: Callable[[], None]
    ) -> None:
        self.conn = conn
        self._committed = committed
        self._loop = loop
        self._disk = disk
        self._random = random
        self._free_at = 0.0

    async def transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._queued(self._transact, fn)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._queued(fn, self.conn)

    async def _queued(self, call: Callable[..., T], *args: Any) -> T:
        answered: asyncio.Future[T] = self._loop.create_future()
        self._free_at = max(self._free_at, self._loop.time()) + self._random.choice((0.00001, 0.0002))
        self._loop.call_at(self._free_at, self._run, answered, call, *args)
        return await answered

    def _run(self, answered: asyncio.Future[Any], call: Callable[..., Any], *args: Any) -> None:
        try:
            result = call(*args)
        except Exception as error:
            if not answered.done():
                answered.set_exception(error)
        else:
            if not answered.done():
                answered.set_result(result)

    def _transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        before = self.conn.total_changes
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            result = fn(self.conn)
            if self._disk.is_full and self.conn.total_changes != before:
                self._disk.ballast -= 1
                if self._disk.ballast < 0:
                    raise MetadataSpace(path="/data/meta.db")
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")
        if self.conn.total_changes != before:
            self._committed()
        return result
