"""Upkeep: what happens by the clock. Regions cool, and the reserve that a full disk took is taken back.

This module must never start a sync: `scheduler.py` does.
"""

from __future__ import annotations

import asyncio

from blockstore.errors import LeewardError
from engine.live.site import Site

TICK_S = 1.0
COOL_EVERY_S = 5.0


async def upkeep(site: Site) -> None:
    """Until cancelled."""
    cooled = site.ctx.clock.monotonic()
    while True:
        await asyncio.sleep(TICK_S)
        now = site.ctx.clock.monotonic()
        try:
            if now - cooled >= COOL_EVERY_S:
                cooled = now
                await _cool(site, now)
                if not site.ctx.database.has_ballast:
                    await site.ctx.database.restore_ballast()
        except (LeewardError, OSError) as error:
            # Hosts go on: what could not be done now, on a full disk for instance, is tried again.
            code = error.code if isinstance(error, LeewardError) else "upkeep_failed"
            site.ctx.report("error", code, f"Upkeep: {error}")


async def _cool(site: Site, now_s: float) -> None:
    for running in list(site.groups_by_name.values()):
        for volume in running.handle.volumes:
            if volume.open is None or volume.problem:
                continue
            step = volume.open.cool(now_s)
            if step is None:
                continue
            try:
                await site.ctx.pool.over(step)
            except (LeewardError, OSError) as error:
                # The volume marked itself failed: hosts get errors from now on, and the operator sees why.
                code = error.code if isinstance(error, LeewardError) else "tracking_failed"
                site.ctx.report("error", code, f"Volume {volume.name}: {error}", group=running.handle.name)
