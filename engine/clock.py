"""Clock: where time and randomness enter, so that a simulator can replace both.

Everything in the product that asks for the time of day, an interval or random bytes asks a `Clock`.
This module must never decide anything from the time that it reads.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Time of day, monotonic time and randomness of one site."""

    def now(self) -> datetime:
        """The time of day, aware, UTC. May jump: never order anything by it."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back. For intervals and deadlines."""

    def token(self, count: int) -> bytes:
        """`count` unpredictable random bytes."""


class SystemClock:
    """The host's clocks and its random source."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def token(self, count: int) -> bytes:
        return secrets.token_bytes(count)
