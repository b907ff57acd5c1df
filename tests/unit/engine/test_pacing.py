"""A sync beside busy hosts is bounded, one beside idle hosts is not."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.operations.pacing import BUSY_BYTES_PER_S, Pacer


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def token(self, count: int) -> bytes:
        return bytes(count)

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


async def test_beside_busy_hosts_a_second_of_frames_takes_a_second() -> None:
    clock = Clock()
    pacer = Pacer(clock, lambda: True, clock.sleep)
    for _ in range(101):
        await pacer.pace(BUSY_BYTES_PER_S // 100)
    assert abs(clock.at - 101.0) < 0.02


async def test_beside_idle_hosts_nothing_is_held_back() -> None:
    clock = Clock()
    pacer = Pacer(clock, lambda: False, clock.sleep)
    for _ in range(100):
        await pacer.pace(1 << 22)
    assert clock.at == 100.0


async def test_a_pause_is_no_credit_for_later() -> None:
    clock, busy = Clock(), True
    pacer = Pacer(clock, lambda: busy, clock.sleep)
    await pacer.pace(BUSY_BYTES_PER_S)
    clock.at += 1000
    await pacer.pace(BUSY_BYTES_PER_S)
    await pacer.pace(1)
    assert abs(clock.at - 1101.0) < 0.01
