"""The scheduler: groups that promised an RPO are synced in time, and it is noted whether the promise is kept.

Both sites watch: the protected one syncs and says why it is late, the recovery one alerts also when the protected one
is gone. When and how long is worked out in `decide/schedule.py`. This module must never start a sync for a group
without an RPO, and never more than one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial

from blockstore.errors import LeewardError
from engine import model
from engine.decide.schedule import Forecast, Promise, Turn, begin_in, pause_after
from engine.decide.status import fresh_as_of, lag_s
from engine.live.group import RunningGroup
from engine.live.site import Site
from engine.model import JobState, Role
from engine.records import groups, promises
from engine.records.jobs import SCHEDULED
from engine.requests import Sync

LONGEST_S = 1.0
"""Between two looks at a group; what waits to be sent grows meanwhile."""
SHORTEST_S = 0.02


@dataclass(slots=True)
class Watched:
    """What the scheduler knows of one group from what it saw."""

    promise: Promise
    forecast: Forecast = field(default_factory=Forecast)
    failures: int = 0
    failed_with: str = ""
    not_before_s: float = 0.0
    is_under_way: bool = False


class Scheduler:
    """The promises of one site. `run` until cancelled."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._watched: dict[model.GroupId, Watched] = {}

    async def run(self) -> None:
        """Look at every group when something is due, or when a site's copy became newer."""
        while True:
            self._site.news.clear()
            wait_s = LONGEST_S
            for running in list(self._site.groups_by_name.values()):
                try:
                    wait_s = min(wait_s, await self._look(running))
                except (LeewardError, OSError) as error:
                    # Hosts go on, and so do the other groups; this one is looked at again in a second.
                    code = error.code if isinstance(error, LeewardError) else "scheduler_failed"
                    name = running.handle.name
                    self._site.ctx.report("error", code, f"Scheduling group {name}: {error}", group=name)
            here = {running.handle.id for running in self._site.groups_by_name.values()}
            self._watched = {id: watched for id, watched in self._watched.items() if id in here}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._site.news.wait(), max(SHORTEST_S, wait_s))

    async def _look(self, running: RunningGroup) -> float:
        """Note how the promise stands, and sync if it is time to; seconds until the next look at the latest."""
        ctx, handle = self._site.ctx, running.handle
        record = await ctx.database.read(partial(groups.by_id, group=handle.id))
        watched = await self._of(handle.id)
        await self._note(running, record, watched)
        if record.rpo_s is None or record.role is not Role.PROTECTED or handle.is_split:
            return LONGEST_S
        if record.paused_at is not None:
            return LONGEST_S
        if running.is_syncing or running.waiting is not None or watched.is_under_way:
            return LONGEST_S  # its end is news
        held_s = watched.not_before_s - ctx.clock.monotonic()
        if held_s > 0 or ctx.links.get(handle.peer) is None:
            return held_s if held_s > 0 else LONGEST_S
        takes_s = watched.forecast.seconds(handle.backlog_bytes)
        due_s = begin_in(record.rpo_s, lag_s(record, ctx.clock.now()), takes_s)
        if due_s <= SHORTEST_S:
            watched.is_under_way = True
            self._site.spawn(self._sync(running, watched))
            return LONGEST_S
        return due_s / 2  # hosts may write much in the other half

    async def _of(self, group: model.GroupId) -> Watched:
        watched = self._watched.get(group)
        if watched is None:
            turns = await self._site.ctx.database.read(partial(promises.of_group, group=group))
            watched = self._watched[group] = Watched(Promise(turns[-1] if turns else None))
        return watched

    async def _sync(self, running: RunningGroup, watched: Watched) -> None:
        """One sync, and what it teaches."""
        clock, waiting = self._site.ctx.clock, running.handle.backlog_bytes
        began = clock.monotonic()
        try:
            job = await self._site.submit(Sync(group=running.handle.name), SCHEDULED)
            while job.finished_at is None:
                job = await self._site.job(job.id, LONGEST_S, job.revision)
            seconds = clock.monotonic() - began
            if job.state == JobState.DONE:
                watched.forecast.note(waiting, seconds)
                watched.failures, watched.failed_with = 0, ""
            else:
                watched.failures += 1
                watched.failed_with = job.error.message if job.error else ""
        except (LeewardError, OSError) as error:
            # The group went meanwhile, or the job could not be recorded: it is tried again after a while.
            watched.failures += 1
            watched.failed_with = str(error)
        finally:
            watched.is_under_way = False
            watched.not_before_s = clock.monotonic() + pause_after(watched.failures)
            self._site.news.set()

    async def _note(self, running: RunningGroup, record: model.Group, watched: Watched) -> None:
        promised = record.rpo_s if record.role is not Role.DEMOTED else None
        turns = watched.promise.look(self._site.ctx.clock.now(), promised, fresh_as_of(record))
        if not turns:
            return
        for turn in turns:  # before they are recorded: a full disk must not swallow an alert
            self._tell(running, record, watched, turn)
        await self._site.ctx.database.transact(partial(promises.add, group=record.id, turns=turns))

    def _tell(self, running: RunningGroup, record: model.Group, watched: Watched, turn: Turn) -> None:
        if turn.kept is None:
            return
        ctx, handle = self._site.ctx, running.handle
        lag = lag_s(record, ctx.clock.now())
        facts = {"rpo_s": record.rpo_s, "lag_s": lag, "backlog_bytes": handle.backlog_bytes, "since": str(turn.at)}
        if turn.kept:
            text = f"Group {handle.name} keeps its RPO of {record.rpo_s} s."
            ctx.report("info", "rpo_kept", text, group=handle.name, **facts)
        else:
            text = f"Group {handle.name} is behind its RPO of {record.rpo_s} s: {self._why(running, record, watched)}."
            ctx.report("warning", "rpo_broken", text, group=handle.name, **facts)

    def _why(self, running: RunningGroup, record: model.Group, watched: Watched) -> str:
        handle = running.handle
        if handle.failure:
            return handle.failure
        if record.paused_at is not None:
            return "an operator paused it"
        if handle.is_split:
            return "both sites are writable"
        if self._site.ctx.links.get(handle.peer) is None:
            return f"there is no contact with {handle.peer}"
        if record.role is Role.RECOVERY:
            return f"{handle.peer} has sent nothing newer in time"
        if watched.failures:
            return f"the last sync failed: {watched.failed_with}"
        return "what hosts write is not sent in time"
