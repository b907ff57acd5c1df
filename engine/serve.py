"""`leeward serve`: the only place where everything meets. Opens the site, starts what listens, stops in order.

Stop order: no new requests, hosts off, syncs cut, volumes stopped clean, records closed. This module must
never decide what an operation does.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog
import uvloop

from blockstore.disk import Disk
from blockstore.errors import LeewardError
from engine import log, notify, settings
from engine.api.server import serve_api
from engine.clock import SystemClock
from engine.exports.nbd_server import NbdServer
from engine.exports.presenter import NBD, Presenter
from engine.link import identity
from engine.link.peer import Links
from engine.live.boot import boot
from engine.live.events import Events
from engine.live.router import Router
from engine.live.scheduler import Scheduler
from engine.live.shutdown import stop_volumes
from engine.live.site import Site
from engine.live.upkeep import upkeep
from engine.operations import pairing, peers
from engine.operations.budget import Budget
from engine.operations.context import Context, Paths
from engine.pool import DiskPool
from engine.records import site as site_records
from engine.records.database import Database
from engine.records.lock import DataLock

POOL_THREADS = 4


def run(data: Path) -> int:
    """Serve the site in `data` until SIGTERM or SIGINT; returns the exit status. Raises LeewardError, OSError."""
    log.configure(sys.stderr)
    folder = data.absolute()
    with DataLock.take(str(folder)):
        uvloop.run(_serve(folder))
    return 0


async def _serve(folder: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        site = await _start(folder, stack)
        notify.ready(f"Serving site {site.ctx.site.name}.")
        structlog.get_logger().info("serving", site=site.ctx.site.name, data=str(folder))
        tasks = [
            asyncio.create_task(upkeep(site), name="upkeep"),
            asyncio.create_task(Scheduler(site).run(), name="scheduler"),
        ]
        for task in tasks:
            stack.push_async_callback(_cancel, task)
        waiting = asyncio.create_task(stop.wait(), name="signals")
        await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()  # ends by a fault of ours only: better a restart than a daemon that syncs no more
        notify.stopping()


async def _start(folder: Path, stack: AsyncExitStack) -> Site:
    """Everything up, in order; what was started is on the stack to be stopped in reverse."""
    disk, clock = Disk(), SystemClock()
    chosen = settings.load(str(folder), disk=disk)
    database = Database.open(str(folder), disk=disk)
    stack.callback(database.close)
    me = await database.read(site_records.get)
    events = Events(database, clock)
    events.begin()
    stack.push_async_callback(events.close)
    pool = DiskPool(POOL_THREADS)
    stack.push_async_callback(pool.close)
    nbd = NbdServer(pool, report=_with_facts(events))
    router = Router()
    links = Links(
        site=me,
        identity=identity.load(folder / "identity"),
        listen=(chosen.listen.host, chosen.listen.port),
        handler=router,
        report=_with_facts(events),
        clock=clock,
    )
    ctx = Context(
        site=me,
        settings=chosen,
        paths=Paths(folder, f"{chosen.live_dir}/{me.id.hex()}"),
        disk=disk,
        pool=pool,
        database=database,
        clock=clock,
        links=links,
        presenter=Presenter({NBD: nbd}),
        report=events.report,
        budget=Budget(clock, await database.read(site_records.link_limit)),
    )
    site = Site(ctx, events)
    router.serve(site)
    stack.push_async_callback(stop_volumes, site)
    await nbd.start(chosen.nbd.host, chosen.nbd.port)
    stack.push_async_callback(nbd.close)
    stack.push_async_callback(site.close)
    await boot(site)
    pairing.begin(ctx)
    await links.start()
    stack.push_async_callback(links.close)
    stack.push_async_callback(site.close)  # before the links: a sync that is cut runs again, one that loses them fails
    await peers.refresh(ctx)
    api = await serve_api(site, folder / "api.sock")
    stack.push_async_callback(api.close)
    return site


def _with_facts(events: Events) -> Callable[[str, str, str, dict[str, Any]], None]:
    """The shape in which links and exports report: the facts as one dictionary."""

    def report(level: str, code: str, message: str, facts: dict[str, Any]) -> None:
        events.report(level, code, message, **{k: v for k, v in facts.items() if k not in ("group", "trace")})

    return report


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass  # that is what was asked
    except LeewardError as error:
        structlog.get_logger().error(error.message, code=error.code)
