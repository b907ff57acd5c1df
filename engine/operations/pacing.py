"""A sync yields to hosts: while they use a volume of the group it sends at most so much a second; folds and merges too.

Measured (hot path, 2 cores): an unbounded sync halves the speed of 4 KiB writes beside it; at 300 MB/s they keep
nine tenths. While nobody uses the volumes nothing is held back. This module must never stop anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from engine.clock import Clock

BUSY_BYTES_PER_S = 300_000_000
"""Of a sync."""
UPKEEP_BYTES_PER_S = 50_000_000
"""Of folds and merges, which nobody waits for: each byte is read and written again."""


class Pacer:
    """Awaited with the bytes of each frame before it leaves. `sleep` is the loop's."""

    def __init__(
        self,
        clock: Clock,
        is_busy: Callable[[], bool],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        busy_bytes_per_s: int = BUSY_BYTES_PER_S,
    ) -> None:
        self._clock = clock
        self._is_busy = is_busy
        self._sleep = sleep
        self._due = 0.0
        self._busy_bytes_per_s = busy_bytes_per_s

    async def pace(self, count: int) -> None:
        """Return when a frame of `count` bytes may leave."""
        now = self._clock.monotonic()
        if not self._is_busy():
            self._due = now
            return
        self._due = max(now, self._due)
        if self._due > now:
            await self._sleep(self._due - now)
        self._due += count / self._busy_bytes_per_s
