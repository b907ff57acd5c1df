"""The budget of the line on a clock of the test's own: the rate is kept, the urgent go first, nobody starves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from engine.operations.budget import NEVER_S, Budget

M = 1 << 20


class Hands:
    """A clock that goes on as far as the sleepers wish, the earliest first."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 2, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def token(self, count: int) -> bytes:
        return bytes(count)

    async def sleep(self, seconds: float) -> None:
        until = self.seconds + seconds
        while self.seconds < until:
            await asyncio.sleep(0)
            self.seconds = min(until, self.seconds + 0.001)


async def send(budget: Budget, hands: Hands, name: str, due_s: float, frames: int, left: list[str]) -> None:
    for _ in range(frames):
        await budget.take(M, due_s)
        left.append(name)


async def test_without_a_limit_nobody_waits() -> None:
    hands = Hands()
    budget = Budget(hands, "", hands.sleep)
    await send(budget, hands, "a", NEVER_S, 1000, [])
    assert hands.seconds == 0
    assert budget.bytes_per_s() == pytest.approx(1000 * M / 5)


async def test_the_rate_is_that_of_the_calendar() -> None:
    hands = Hands()
    budget = Budget(hands, "10M", hands.sleep)
    await send(budget, hands, "a", NEVER_S, 100, [])
    assert hands.seconds == pytest.approx(99 / 10, rel=0.02)
    assert budget.bytes_per_s() == pytest.approx(10 * M, rel=0.1)


async def test_an_idle_line_saves_nothing_up() -> None:
    hands = Hands()
    budget = Budget(hands, "10M", hands.sleep)
    hands.seconds = 1000
    await send(budget, hands, "a", NEVER_S, 50, [])
    assert hands.seconds - 1000 >= 48 / 10


async def test_the_group_whose_promise_ends_first_goes_first_and_the_others_get_on() -> None:
    hands = Hands()
    budget = Budget(hands, "10M", hands.sleep)
    left: list[str] = []
    await asyncio.gather(
        send(budget, hands, "late", 60.0, 40, left),
        send(budget, hands, "never", NEVER_S, 40, left),
        send(budget, hands, "soon", 2.0, 40, left),
    )
    early = left[:45]
    assert early.count("soon") >= 36
    assert early.count("late") + early.count("never") >= 4, "each eighth turn is for whoever waits longest"
    assert left[45:85].count("late") >= 30


async def test_a_limit_that_goes_lets_who_waits_go_at_once() -> None:
    hands = Hands()
    budget = Budget(hands, "64K", hands.sleep)
    left: list[str] = []
    sending = asyncio.create_task(send(budget, hands, "a", NEVER_S, 5, left))
    await hands.sleep(1)
    assert len(left) == 1
    budget.set("")
    await sending
    assert hands.seconds < 2


async def test_who_is_cancelled_leaves_the_queue() -> None:
    hands = Hands()
    budget = Budget(hands, "1M", hands.sleep)
    await budget.take(M, NEVER_S)
    first = asyncio.create_task(budget.take(M, 0.0))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await budget.take(M, NEVER_S)
    assert hands.seconds == pytest.approx(1, abs=0.3)


async def test_a_frame_whose_sync_is_over_waits_no_longer_and_costs_nothing() -> None:
    hands, over = Hands(), False
    budget = Budget(hands, "64K", hands.sleep)
    await budget.take(M, NEVER_S)
    waiting = asyncio.create_task(budget.take(M, NEVER_S, lambda: over))
    await hands.sleep(1)
    assert not waiting.done()
    over = True
    await hands.sleep(1)
    assert waiting.done()
    await budget.take(M, NEVER_S)
    assert hands.seconds == pytest.approx(16, abs=0.5)


async def test_a_calendar_that_cannot_be_read_changes_nothing() -> None:
    hands = Hands()
    budget = Budget(hands, "10M", hands.sleep)
    with pytest.raises(ValueError, match="no rate"):
        budget.set("fast")
    assert budget.calendar == "10M"
    assert budget.applied().limit == 10 * M
