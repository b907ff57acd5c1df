"""One site on a disk in memory: the product's own operations, records and boot, with nothing around them but the disk.

The database is SQLite in memory; each commit goes into the disk's record as one atomic durable step. The pool runs
steps at once while a state is being judged, and in seeded order while a script is being recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

from blockstore.steps import Step, Wait
from blockstore.tracking import recovery
from engine import model
from engine.live.boot import open_group
from engine.model import Group, GroupId, PointId, Role, SiteId, TrackingId, Volume, VolumeId, VolumeState
from engine.operations import volumes as volume_operations
from engine.operations.budget import Budget
from engine.operations.context import Context, Paths
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.pool import DiskPool
from engine.records import groups, migrate, peers, points, site, volumes
from rig.memory_disk import MemoryDisk

T = TypeVar("T")

GROUP = GroupId(b"G" * 16)
SEED = 7
MOODS = ((6, 6), (2, 16), (16, 2), (12, 12))
"""How long steps may wait for a thread, and to be settled."""
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Clock:
    """Time that stands still, so that equal states look equal; and seeded randomness."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 1.0

    def token(self, count: int) -> bytes:
        return self._random.randbytes(count)


class Records:
    """The database of a site: `engine.records.database.Database` as operations see it."""

    def __init__(self, disk: MemoryDisk, image: bytes) -> None:
        self._disk = disk
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        if image:
            self.conn.deserialize(image)
        else:
            self.conn.execute("PRAGMA page_size = 1024")
            migrate.migrate(self.conn, and_then=_name_site)
        self.conn.row_factory = sqlite3.Row
        self.conn.execute("PRAGMA foreign_keys = ON")

    async def transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return self.now(fn)

    def now(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction; what it changed is durable when it returns."""
        before = self.conn.total_changes
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            result = fn(self.conn)
        except BaseException:
            self.conn.execute("ROLLBACK")
            raise
        self.conn.execute("COMMIT")
        if self.conn.total_changes != before:
            self._disk.commit(self.conn.serialize())
        return result

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return fn(self.conn)

    def close(self) -> None:
        self.conn.close()


def _name_site(conn: sqlite3.Connection) -> None:
    site.insert(conn, model.Site(SiteId(b"S" * 16), "north"), NOW)


class EagerPool(DiskPool):
    """Runs each step at once."""

    def begin(self, wait: Wait) -> None:
        if isinstance(wait, Step) and not wait.started:
            with contextlib.suppress(Exception):  # the wait keeps it
                wait.run()


class SeededPool(DiskPool):
    """Runs steps on the loop in seeded order: begun, run and settled with other things in between."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._before, self._after = random.choice(MOODS)
        self.linger = 0
        """Turns of the loop that steps begun from now on wait for a thread, besides."""
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, wait: Wait) -> None:
        if isinstance(wait, Step) and not wait.started:
            task = asyncio.get_running_loop().create_task(self._run_step(wait, wait.start(), self.linger))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_step(self, step: Step[Any], work: Callable[[], Any], linger: int) -> None:
        await self.turns(linger)
        await self.pause(self._before)
        try:
            result = work()
        except Exception as error:
            await self.pause(self._after)
            step.fail(error)
        else:
            await self.pause(self._after)
            step.complete(result)

    async def pause(self, most: int = 6) -> None:
        """Let others go first, for a while that the seed chooses."""
        await self.turns(self._random.randrange(most))

    async def turns(self, count: int) -> None:
        """Let others go first for so many turns of the loop."""
        for _ in range(count):
            await asyncio.sleep(0)


class Exports:
    """What is presented: names and their block I/O."""

    def __init__(self) -> None:
        self.up: dict[str, Any] = {}

    def exports(self) -> tuple[tuple[int, str], ...]:
        return tuple(enumerate(self.up))

    def present(self, name: str, io: Any, *, read_only: bool, description: str) -> None:
        self.up[name] = io

    async def withdraw(self, name: str) -> None:
        self.up.pop(name, None)

    def is_busy(self, name: str) -> bool:
        return False


class Links:
    """No peer is here; scripts speak for it."""

    def redial(self, peer: str) -> None:
        pass


class Site:
    """A running site. `reports` collects what operators would see. `life`: which one it is, counted over crashes."""

    def __init__(self, disk: MemoryDisk, records: bytes, pool: DiskPool, life: int) -> None:
        self.disk = disk
        self.pool: Any = pool
        self.records = Records(disk, records)
        self.exports = Exports()
        self.reports: list[tuple[str, str, str]] = []
        parts: Any = {"disk": disk, "pool": pool, "database": self.records, "clock": Clock(life)}
        self.ctx = Context(
            site=model.Site(SiteId(b"S" * 16), "north"),
            settings=None,  # type: ignore[arg-type]  # no operation here asks for one
            paths=Paths(Path("/data"), "/run/leeward"),
            links=Links(),  # type: ignore[arg-type]
            presenter=self.exports,  # type: ignore[arg-type]
            report=self._report,
            budget=Budget(parts["clock"]),
            **parts,
        )
        self.handle: GroupHandle

    def _report(self, level: str, code: str, message: str, **_: Any) -> None:
        self.reports.append((level, code, message))

    @property
    def group(self) -> Group:
        return groups.by_id(self.records.conn, GROUP)

    async def boot(self) -> GroupHandle:
        """What a start does for the group. Its nonces are seeded, so that equal states stay equal."""
        recovery.secrets = SimpleNamespace(token_bytes=self.ctx.clock.token)  # type: ignore[attr-defined]
        self.handle = await open_group(self.ctx, self.group)
        return self.handle

    async def open_volumes(self) -> None:
        """The volumes alone, for a group that is being made."""
        group = self.group
        self.handle = GroupHandle(id=group.id, name=group.name, peer=group.peer)
        for row in volumes.of_group(self.records.conn, group.id):
            opened = VolumeHandle(row)
            await volume_operations.try_open(self.ctx, opened)
            self.handle.volumes.append(opened)

    def close(self) -> None:
        self.records.close()
        self.pool._threads.shutdown()


def volume_row(number: int, size_bytes: int) -> Volume:
    """The record of a volume."""
    return Volume(
        id=VolumeId(b"v" * 15 + bytes([48 + number])),
        name=f"v{number}",
        store=f"/stores/v{number}",
        size_bytes=size_bytes,
        prepared=False,
        state=VolumeState.ACTIVE,
        reason="",
        group=None,
        position=0,
        tracking=None,
        nonce=bytes(16),
        writes=0,
        hash_seed=SEED,
        wwn="6001405" + f"{number:025}",
        identity=None,
        top=None,
    )


@lru_cache(maxsize=8)
def first_records(role: Role, sizes: tuple[int, ...], point: bytes, keep: int) -> bytes:
    """The records of a site with one group, whose newest common point is `point` (empty: none)."""
    records = Records(MemoryDisk(), b"")
    common = None
    if point:
        common = model.Point(PointId(point), GROUP, 1, NOW, NOW, None, b"", 0, 0)
    group = Group(
        *(GROUP, "shop", 1, role, 1, "south", None, keep, True),
        *(common, None, False, None, None, None, NOW),
    )

    def fill(conn: sqlite3.Connection) -> None:
        peers.insert(conn, model.Peer("south", "10.0.0.2:7450", "SHA256:" + "ab" * 32, plain=False, id=None), NOW)
        groups.insert(conn, group)
        rows = [volume_row(number, size) for number, size in enumerate(sizes)]
        for row in rows:
            volumes.insert(conn, row)
        volumes.assign(conn, GROUP, [row.id for row in rows])
        if common is not None and role is Role.RECOVERY:
            points.insert(conn, common)

    records.now(fill)
    image = records.conn.serialize()
    records.close()
    return image


async def track(site: Site) -> None:
    """Track the changes of every volume from now on, none of them dirty yet."""
    for volume in site.handle.volumes:
        tracking = TrackingId(site.ctx.clock.token(16))
        opened = volume.require_open()
        opened.start_tracking(tracking, all_dirty=False)
        await volume_operations.resume_tracking(site.ctx, volume, tracking, nonce=bytes(16), clean=False, pending=False)
