"""A whole site in this process, started and stopped as `leeward serve` does it: for what only faults inside can show.

make_site(tmp_path / "data", "east")
async with site_at(tmp_path / "data") as site:
    done = await asked(site, VolumeAdd("data", "/some/store", 1 << 30))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from engine.live.site import Site
from engine.requests import JobDoc, Request
from engine.serve import _start
from engine.setup import create_site
from rig.ports import free_port
from rig.until import until


def make_site(data: Path, name: str) -> None:
    """The site's data directory, its live maps in a folder beside it."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    create_site(data, name, *addresses)
    settings = data / "leeward.toml"
    settings.write_text(f'live_dir = "{data.parent / "live"}"\n' + settings.read_text("utf-8"), "utf-8")


@asynccontextmanager
async def site_at(data: Path) -> AsyncIterator[Site]:
    """The site of `data`, everything up, but without its upkeep; stopped in order at the end."""
    async with AsyncExitStack() as stack:
        yield await _start(data, stack)


async def asked(site: Site, request: Request, key: str | None = None) -> JobDoc:
    """Ask, and wait for the end of the job."""
    return await site.job((await site.submit(request, key)).id, 30, None)


async def come_true(condition: Callable[[], object], what: str, timeout_s: float = 10) -> None:
    """`rig.until` while the loop of the site goes on."""
    await asyncio.to_thread(until, condition, what, timeout_s)
