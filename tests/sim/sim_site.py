"""A simulated host and the daemon on it: the product's own Site, links and boot, on a simulated disk."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from sim_disk import SimDatabase, SimDisk, SimPool
from sim_loop import ProcessLoop
from sim_net import HOST
from sim_world import World

from blockstore.errors import LeewardError
from engine import model
from engine.exports.presenter import NBD, Presenter
from engine.link.peer import Links
from engine.live.boot import boot
from engine.live.router import Router
from engine.live.shutdown import stop_volumes
from engine.live.site import Site
from engine.live.upkeep import upkeep
from engine.model import SiteId
from engine.operations import peers
from engine.operations.budget import Budget
from engine.operations.context import Context, Paths
from engine.records import migrate
from engine.records import site as site_records
from engine.settings import Address, Settings

EPOCH = datetime(2026, 11, 24, 12, tzinfo=UTC)
DATA = "/data"


class SimClock:
    """Virtual time, with this host's own idea of the time of day."""

    def __init__(self, world: World, host: SimHost, random: Random) -> None:
        self._world, self._host, self._random = world, host, random

    def now(self) -> datetime:
        return EPOCH + timedelta(microseconds=self._world.scheduler.unique_us()) + self._host.clock_is_off

    def monotonic(self) -> float:
        return self._world.scheduler.now

    def token(self, count: int) -> bytes:
        return self._random.randbytes(count)


class SimExports:
    """A kind of export: hosts look their volume up by name, and are waited for when it goes."""

    def __init__(self) -> None:
        self.up: dict[str, Any] = {}
        self._using: dict[str, int] = {}
        self._idle: dict[str, asyncio.Future[None]] = {}

    def present(self, name: str, io: Any, *, read_only: bool, description: str = "") -> None:
        assert name not in self.up, f"{name} is up already"
        self.up[name] = io

    async def withdraw(self, name: str) -> None:
        del self.up[name]
        if self._using.get(name):
            self._idle[name] = asyncio.get_running_loop().create_future()
            await self._idle[name]

    def enter(self, name: str) -> Any:
        """The block I/O of `name`, in use until `leave`."""
        self._using[name] = self._using.get(name, 0) + 1
        return self.up[name]

    def leave(self, name: str) -> None:
        self._using[name] -= 1
        idle = self._idle.get(name)
        if not self._using[name] and idle is not None and not idle.done():
            idle.set_result(None)

    def uri(self, name: str) -> str:
        return f"nbd://{name}"

    def exports(self) -> list[str]:
        return list(self.up)

    def is_busy(self, name: str) -> bool:
        return False


class Daemon:
    """One life of the daemon: from its start until it stops or is killed."""

    def __init__(self, world: World, host: SimHost, seed: int) -> None:
        random = Random(seed)
        self.host, self.world = host, world
        self.disk = host.disk
        self.loop: ProcessLoop = world.scheduler.begin(self)
        self.exports = SimExports()
        self.is_up = False
        self.asking: list[asyncio.Task[None]] = []
        """Requests of operators that are being answered."""
        self.pool = SimPool(self.loop, self.disk, random)
        self.database = SimDatabase(self.loop, host.conn, self.disk, random, lambda: world.committed(host))
        self.clock = SimClock(world, host, random)
        self.site: Site
        self._keeping: asyncio.Task[None] | None = None
        self.starting = self.loop.create_task(self._start())

    async def _start(self) -> None:
        database: Any = self.database
        me = await database.read(site_records.get)
        router = Router()
        identity: Any = SimpleNamespace(fingerprint=self.host.fingerprint)
        self.links = Links(
            site=me,
            identity=identity,
            listen=(HOST, self.host.port),
            handler=router,
            report=self._report_facts,
            clock=self.clock,
        )
        ctx = Context(
            site=me,
            settings=_settings(self.host.name, self.host.port),
            paths=Paths(Path(DATA), f"/run/{self.host.name}"),
            disk=self.disk,
            pool=self.pool,
            database=database,
            clock=self.clock,
            links=self.links,
            presenter=Presenter({NBD: self.exports}),
            report=self.report,
            budget=Budget(self.clock),
        )
        self.site = Site(ctx, None)  # type: ignore[arg-type]  # nobody asks it for events here
        router.serve(self.site)
        await boot(self.site)
        await self.links.start()
        await peers.refresh(ctx)
        self._keeping = asyncio.create_task(upkeep(self.site))
        self.is_up = True

    async def stop(self) -> None:
        """As `engine.serve` does it: no requests, syncs cut, links away, volumes clean."""
        self.is_up = False
        for task in (*self.asking, *([self._keeping] if self._keeping else [])):
            task.cancel()
        await self.site.close()
        await self.links.close()
        for name in self.exports.exports():
            await self.exports.withdraw(name)
        await stop_volumes(self.site)

    def report(self, level: str, code: str, message: str, *, group: str | None = None, **facts: Any) -> None:
        self.world.tell(f"{self.host.name} {level}: {message}")
        trace = facts.get("trace")
        if code == "internal" or (trace is not None and not isinstance(trace, LeewardError | OSError)):
            self.world.note_fault(self.host.name, code, message, trace)

    def _report_facts(self, level: str, code: str, message: str, facts: dict[str, Any]) -> None:
        self.report(level, code, message, **{k: v for k, v in facts.items() if k not in ("group", "trace", "code")})


class SimHost:
    """A machine with its disk, and the daemon that runs on it, if one does."""

    def __init__(self, world: World, name: str, port: int) -> None:
        self.world, self.name, self.port = world, name, port
        self.fingerprint = "SHA256:" + f"{port:064x}"
        self.disk = SimDisk()
        self.conn = _new_records(name)
        self.clock_is_off = timedelta(0)
        self.daemon: Daemon | None = None
        self.lives = 0
        self.record: model.Group | None = None
        self.read_at = -1
        """The count of changes at which `record` was read."""

    @property
    def is_up(self) -> bool:
        return self.daemon is not None and self.daemon.is_up

    def start(self, seed: int) -> None:
        assert self.daemon is None
        self.lives += 1
        self.daemon = Daemon(self.world, self, seed)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(silently=False)
        self.disk = self.disk.after_kill()

    def cut_power(self, random: Random) -> None:
        if self.daemon is not None:
            self._end(silently=True)
        self.disk = self.disk.after_power_cut(random)

    def ended(self) -> None:
        """It stopped by itself."""
        self._end(silently=False)
        self.disk = self.disk.after_kill()

    def _end(self, *, silently: bool) -> None:
        assert self.daemon is not None
        self.world.scheduler.kill(self.daemon.loop)
        self.world.network.died(self.daemon, silently=silently)
        if self.conn.in_transaction:
            self.conn.execute("ROLLBACK")
        self.daemon = None


def _settings(name: str, port: int) -> Settings:
    nowhere = Address(HOST, 1)
    return Settings(name, Address(HOST, port), nowhere, nowhere, f"{DATA}/stores", None, f"/run/{name}")


def _new_records(name: str) -> sqlite3.Connection:
    return open_records(_records_image(name))


def open_records(image: bytes) -> sqlite3.Connection:
    """The records in this serialised form, in memory."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.deserialize(image)
    conn.row_factory = sqlite3.Row
    conn.execute("PRAGMA foreign_keys = ON")
    return conn


@lru_cache(maxsize=4)
def _records_image(name: str) -> bytes:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    conn.execute("PRAGMA page_size = 1024")
    me = model.Site(SiteId(name.encode().ljust(16, b".")), name)
    migrate.migrate(conn, and_then=lambda conn: site_records.insert(conn, me, EPOCH))
    image = conn.serialize()
    conn.close()
    return image
