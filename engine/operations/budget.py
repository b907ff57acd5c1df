"""The budget of the line: every frame of every sync takes its turn, the most urgent group first.

Earliest deadline first keeps every promise that can be kept at all; each eighth turn goes to whoever waits longest, so
that a group without an RPO gets on as well. Without a limit nobody waits. This module must never drop a frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from engine.clock import Clock
from engine.decide.calendar import Applied, Entry, applied, parse
from engine.errors import BadValue
from engine.records import site
from engine.requests import LinkSet

if TYPE_CHECKING:
    from engine.operations.context import Context

NEVER_S = float("inf")
"""The deadline of a group that promises nothing."""
FAIR_TURN = 8
LONGEST_S = 0.25
SHORTEST_S = 0.005
MEASURED_S = 5.0
"""The rate that is shown is that of so many seconds."""


async def limit(ctx: Context, request: LinkSet) -> None:
    """The limits of this site from now on, also after a restart. Raises BadValue, and changes nothing then."""
    calendar = " ".join(request.limit.split())
    try:
        parse(calendar)
    except ValueError as error:
        raise BadValue(what="limit", value=repr(calendar), reason=str(error)) from None
    await ctx.database.transact(partial(site.set_link_limit, calendar=calendar))
    ctx.budget.set(calendar)


@dataclass(slots=True, eq=False)
class Turn:
    due_s: float


class Budget:
    """`take` before each frame. `calendar` as an operator wrote it; `local` is the time of day at this site."""

    def __init__(
        self, clock: Clock, calendar: str = "", sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Raises ValueError: the calendar cannot be read."""
        self._clock = clock
        self._sleep = sleep
        self._entries: tuple[Entry, ...] = ()
        self._waiting: list[Turn] = []
        """In the order in which they came."""
        self._free_at_s = 0.0
        self._turns = 0
        self._sent: deque[tuple[float, int]] = deque()
        self.calendar = ""
        self.set(calendar)

    def set(self, calendar: str) -> None:
        """From the next frame on. Raises ValueError, and changes nothing then."""
        self._entries, self.calendar = parse(calendar), calendar

    def applied(self) -> Applied:
        """What holds now, in the local time of this host."""
        return applied(self._entries, self._clock.now().astimezone())

    def bytes_per_s(self) -> float:
        """What has left in the last seconds, on average."""
        self._forget()
        return sum(count for _, count in self._sent) / MEASURED_S

    async def take(self, count: int, due_s: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Return when a frame of `count` bytes may leave; `due_s`: monotonic, when the promise of its group ends.

        Also when `is_over`: its sync failed or was paused, and the frame will not leave.
        """
        turn = Turn(due_s)
        self._waiting.append(turn)
        try:
            while (limit := self.applied().limit) is not None and not is_over():
                left = self._free_at_s - self._clock.monotonic()
                if left <= 0 and self._first() is turn:
                    self._free_at_s = max(self._free_at_s, self._clock.monotonic() - SHORTEST_S) + count / limit
                    break
                await self._sleep(min(LONGEST_S, max(SHORTEST_S, left)))
        finally:
            self._waiting.remove(turn)
        if is_over():
            return
        self._turns += 1
        self._sent.append((self._clock.monotonic(), count))
        self._forget()

    def _first(self) -> Turn:
        if self._turns % FAIR_TURN == FAIR_TURN - 1:
            return self._waiting[0]
        return min(self._waiting, key=lambda turn: turn.due_s)

    def _forget(self) -> None:
        begin = self._clock.monotonic() - MEASURED_S
        while self._sent and self._sent[0][0] < begin:
            self._sent.popleft()
