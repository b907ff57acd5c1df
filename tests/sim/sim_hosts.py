"""Who uses the sites: hosts that write and flush, and operators that ask for one thing and watch it end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from sim_model import TAIL, Key
from sim_site import Daemon, SimHost
from sim_watch import Watch

from blockstore.errors import LeewardError
from blockstore.units import BLOCK
from engine.requests import JobDoc, Request

LONGEST_S = 400.0
"""An operation that is not over by then hangs: contact is waited for 30 s, a few times at most."""


@dataclass
class Asked:
    """One request of an operator, and how it ended."""

    host: SimHost
    daemon: Daemon
    request: Request
    since: float
    doc: JobDoc | None = None
    failure: str = ""
    writes: int = 0
    """Writes answered at that site when it was asked."""

    @property
    def token(self) -> str:
        """That a refusal gave for the decision to discard; empty: none."""
        return str(self.doc.error.details.get("token") or "") if self.doc and self.doc.error else ""

    @property
    def is_over(self) -> bool:
        """Also when its daemon is gone: nobody answers any more."""
        return self.doc is not None or bool(self.failure) or self.host.daemon is not self.daemon


def write(watch: Watch, host: SimHost, key: Key, number: int) -> bool:
    """A host begins to write a block; whether it could."""
    daemon, surface = host.daemon, watch.surfaces[host.name]
    name = f"v{key[0]}"
    if daemon is None or not daemon.is_up or name not in daemon.exports.up or host.name in watch.crashed:
        return False
    if surface.is_writing(key):
        return False
    length = 512 if key[1] == TAIL else BLOCK
    data = memoryview(number.to_bytes(4, "little") * (length // 4))
    begun = surface.begin(key, number, watch.world.scheduler.unique_us())
    io = daemon.exports.enter(name)

    async def work() -> None:
        try:
            await _finish(daemon, lambda: io.write(key[1] * BLOCK, data, False))
        except (LeewardError, OSError) as error:
            watch.world.tell(f"{host.name}: a write failed: {error}")
        else:
            begun.ended = watch.world.scheduler.unique_us()
        finally:
            begun.is_over = True
            daemon.exports.leave(name)

    daemon.loop.create_task(work())
    return True


def flush(watch: Watch, host: SimHost) -> bool:
    """A host flushes every volume that it has."""
    daemon, surface = host.daemon, watch.surfaces[host.name]
    if daemon is None or not daemon.is_up or host.name in watch.crashed or not daemon.exports.up.get("v0"):
        return False
    since, covers = surface.since, watch.world.scheduler.unique_us()
    names = [name for name in ("v0", "v1") if name in daemon.exports.up]
    ios = [daemon.exports.enter(name) for name in names]

    async def work() -> None:
        try:
            for io in ios:
                await _finish(daemon, io.flush)
        except (LeewardError, OSError) as error:
            watch.world.tell(f"{host.name}: a flush failed: {error}")
        else:
            if surface.since == since and len(names) == 2:
                surface.flushed_at = max(surface.flushed_at, covers)
        finally:
            for name in names:
                daemon.exports.leave(name)

    daemon.loop.create_task(work())
    return True


async def _finish(daemon: Daemon, call: Any) -> None:
    while (wait := call()) is not None:
        await daemon.pool.over(wait)
        if wait.final:
            return


def ask(watch: Watch, host: SimHost, request: Request) -> Asked | None:
    """An operator asks; None: the daemon is not there."""
    daemon = host.daemon
    if daemon is None or not daemon.is_up:
        return None
    world = watch.world
    asked = Asked(host, daemon, request, world.scheduler.now, writes=watch.surfaces[host.name].answered())
    words = ", ".join(f"{name}={value!r}" for name, value in _fields(request).items() if name != "group" and value)
    world.tell(f"operator at {host.name}: {request.kind} {words}")

    async def work() -> None:
        try:
            doc = await daemon.site.submit(request, None)
            while doc.finished_at is None:
                doc = await daemon.site.job(doc.id, 1000.0, doc.revision)
        except LeewardError as error:
            asked.failure = f"{error.code}: {error}"
            world.tell(f"answer at {host.name}: {request.kind}: {asked.failure}")
        except asyncio.CancelledError:
            asked.failure = "the daemon stopped"
        else:
            asked.doc = doc
            outcome = doc.error.message if doc.error else "done"
            world.tell(f"answer at {host.name}: {request.kind}: {outcome}")

    daemon.asking.append(daemon.loop.create_task(work()))
    return asked


def _fields(request: Any) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}
