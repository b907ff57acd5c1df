"""Upkeep: what happens by the clock. Regions cool, and groups that promised an RPO are synced in time.

This module must never start a sync for a group without an RPO.
"""

from __future__ import annotations

import asyncio
from functools import partial

from blockstore.errors import LeewardError
from engine.decide.status import lag_s
from engine.live.site import Site
from engine.model import Role
from engine.records import groups
from engine.requests import Sync

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
            await _keep_promises(site)
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


async def _keep_promises(site: Site) -> None:
    """A group is synced when half of its RPO has gone by, so that the other half is left for the sync itself."""
    for name, running in list(site.groups_by_name.items()):
        if running.is_syncing or running.waiting is not None or site.ctx.links.get(running.handle.peer) is None:
            continue
        record = await site.ctx.database.read(partial(groups.by_id, group=running.handle.id))
        if record.rpo_s is None or record.role is not Role.PROTECTED or running.handle.is_split:
            continue
        lag = lag_s(record, site.ctx.clock.now())
        if lag is None or lag >= record.rpo_s / 2:
            await site.submit(Sync(group=name), None)
