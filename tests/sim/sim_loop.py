"""Virtual time: one event loop a process, all of them stepped by one seeded scheduler on one clock.

A process that is killed is a loop that is never stepped again: nothing of it runs on, no `finally` either. Time moves
only when nobody has anything to do, and then straight to the next timer. Equal seeds give equal runs.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from asyncio import events
from collections.abc import Callable
from random import Random
from typing import Any

MOST_TURNS = 20_000
"""Turns of loops without time moving on: somebody spins."""


class Stuck(AssertionError):
    """The run does not get on."""


class ProcessLoop(asyncio.BaseEventLoop):
    """The loop of one process. Never run by itself: `Scheduler` gives it its turns."""

    def __init__(self, scheduler: Scheduler, process: Any) -> None:
        super().__init__()
        self.process = process
        """Who runs on it; sockets ask."""
        self._scheduler = scheduler
        self._selector = self
        self._clock_resolution = 1e-6
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def time(self) -> float:
        return self._scheduler.now

    def select(self, timeout: float | None) -> list[Any]:
        return []

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def turn(self) -> None:
        """Everything that is ready now, once."""
        events._set_running_loop(self)
        try:
            self._run_once()  # type: ignore[attr-defined]
        finally:
            events._set_running_loop(None)

    @property
    def next_at(self) -> float | None:
        """When there is something to do; None: never, by itself."""
        if self._ready:  # type: ignore[attr-defined]
            return self._scheduler.now
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        return scheduled[0]._when if scheduled else None

    # What the product's sockets need of a loop; the sockets are those of `sim_net`.

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(2, 1, 0, "", (host, port))]

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await sock.connect(address)

    def add_reader(self, sock: Any, callback: Callable[..., Any], *args: Any) -> None:
        sock.watch(lambda: self.call_soon(callback, *args))

    def remove_reader(self, sock: Any) -> bool:
        sock.watch(None)
        return True

    async def create_connection(self, factory: Any, *_: Any, sock: Any, **__: Any) -> Any:  # type: ignore[override]
        return sock.attach(factory())

    async def connect_accepted_socket(self, factory: Any, sock: Any, **_: Any) -> Any:
        return sock.attach(factory())


class Scheduler:
    """The one clock, what happens on it outside any process (the network), and whose turn it is."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.loops: list[ProcessLoop] = []
        self.dead: list[ProcessLoop] = []
        """Kept until the end of the run, so that nothing of a killed process is ever finalised."""
        self._random = Random(seed)
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last_us = 0

    def reseed(self, seed: int) -> None:
        """What is drawn from now on depends on `seed` alone."""
        self._random.seed(seed)

    def unique_us(self) -> int:
        """Microseconds of virtual time, later at each call."""
        self._last_us = max(self._last_us + 1, int(self.now * 1e6))
        return self._last_us

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (when, next(self._order), call))

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.call_at(self.now + delay_s, call)

    def begin(self, process: Any) -> ProcessLoop:
        loop = ProcessLoop(self, process)
        self.loops.append(loop)
        return loop

    def kill(self, loop: ProcessLoop) -> None:
        self.loops.remove(loop)
        self.dead.append(loop)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let so much time go by, or less once `until` holds; whether it does. Raises Stuck."""
        end = self.now + seconds
        turns = 0
        while True:
            ready = [loop for loop in self.loops if (at := loop.next_at) is not None and at <= self.now + 5e-7]
            has_calls = bool(self._calls) and self._calls[0][0] <= self.now
            if not ready and not has_calls:
                if until is not None and until():
                    return True
                times = [at for loop in self.loops if (at := loop.next_at) is not None]
                times += [self._calls[0][0]] if self._calls else []
                following = min(times, default=math.inf)
                if following > end:
                    self.now = end
                    return until is not None and until()
                self.now = max(self.now, following)
                turns = 0
                continue
            turns += 1
            if turns > MOST_TURNS:
                raise Stuck(f"{MOST_TURNS} turns at {self.now:.3f} s, and still not done")
            pick = self._random.randrange(len(ready) + has_calls)
            if pick == len(ready):
                heapq.heappop(self._calls)[2]()
            else:
                ready[pick].turn()
