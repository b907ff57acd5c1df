"""Events: what operators may want to know, recorded in order, in the log as well, and waited for by followers.

Reporting never blocks and never fails its caller: an event that cannot be recorded is in the log at least.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import structlog

from engine import model
from engine.clock import Clock
from engine.errors import LeewardError
from engine.operations.documents import at_text
from engine.records import events
from engine.records.database import Database
from engine.requests import EventDoc

LONGEST_WAIT = 10_000
"""Events that wait to be recorded; more are in the log only, and the loss is said."""


class Events:
    """The events of this site. `report` may be called from the loop only."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._log = structlog.get_logger()
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(LONGEST_WAIT)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start recording."""
        self._task = asyncio.create_task(self._record(), name="events")

    async def close(self) -> None:
        """Record what waits, then end."""
        await self._queue.join()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def report(
        self,
        level: str,
        code: str,
        message: str,
        *,
        group: str | None = None,
        trace: BaseException | None = None,
        **facts: Any,
    ) -> None:
        """Log it and have it recorded. `trace`: an error of ours whose stack belongs in the log."""
        is_ours = trace is not None and not isinstance(trace, LeewardError | OSError)
        self._log.log(_LEVELS[level], message, code=code, group=group, exc_info=trace if is_ours else None, **facts)
        kept = {
            "at": self._clock.now(),
            "level": level,
            "code": code,
            "message": message,
            "group": group,
            "details": json.dumps(facts, default=str),
        }
        try:
            self._queue.put_nowait(kept)
        except asyncio.QueueFull:
            self._log.error("events come faster than they can be recorded; this one is in the log only", code=code)

    async def _record(self) -> None:
        while True:
            kept = await self._queue.get()
            try:
                await self._database.transact(partial(events.append, **kept))
            except LeewardError as error:
                self._log.error("an event could not be recorded", code=error.code, reason=error.message)
            finally:
                self._queue.task_done()
            self._news.set()
            self._news = asyncio.Event()

    async def after(self, sequence: int, limit: int, wait_s: float) -> tuple[EventDoc, ...]:
        """As Service.events."""
        deadline = self._clock.monotonic() + wait_s
        while True:
            news = self._news
            found = await self._database.read(
                lambda conn: events.newest(conn, limit) if sequence < 0 else events.after(conn, sequence, limit)
            )
            left = deadline - self._clock.monotonic()
            if found or left <= 0:
                return tuple(_doc(event) for event in found)
            try:
                async with asyncio.timeout(left):
                    await news.wait()
            except TimeoutError:
                return ()


_LEVELS = {"info": 20, "warning": 30, "error": 40}


def _doc(event: model.Event) -> EventDoc:
    return EventDoc(
        sequence=event.sequence,
        at=at_text(event.at),
        level=event.level,
        code=event.code,
        group=event.group,
        message=event.message,
        details=json.loads(event.details),
    )
