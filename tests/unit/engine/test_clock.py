"""The system's clock: aware times, intervals, bytes that nobody guesses."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from engine.clock import SystemClock


def test_the_time_of_day_is_aware_and_utc() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert now.utcoffset() == timedelta(0)
    assert before <= now <= datetime.now(UTC)


def test_monotonic_time_counts_seconds() -> None:
    before = time.monotonic()
    assert before <= SystemClock().monotonic() <= time.monotonic()


def test_tokens_have_the_asked_length_and_differ() -> None:
    clock = SystemClock()
    tokens = {clock.token(16) for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {16}
