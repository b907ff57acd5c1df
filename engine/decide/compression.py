"""Sizes and times of what was sent -> plain, lz4 or zstd for what is sent next.

Pure: the caller measures, nothing here reads a clock. The model: a byte costs the larger of its compression
(spread over the threads that compress) and its way over the link (its ratio over the link's rate); the codec with the
least cost wins. The link counts only while sends are blocked for most of the time: if they are not, something else is
the limit and compressing cannot help, so plain is tried again, ever more rarely when that turns out wrong.
This module must never compress anything.

Priors, on one core: lz4 0.42 GB/s and zstd level 1 0.30 GB/s on text, both cautious. The first measurement of one
replaces its prior and moves the other's along. A link of which nothing is known counts as a slow one: a wrong
guess then costs some milliseconds, the other way round seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

PLAIN, LZ4, ZSTD = "plain", "lz4", "zstd"

WORTH_TRYING = 0.9
"""Blocks whose probe shrinks less than to this are sent plain, whatever the link."""
BETTER_BY = 0.9
"""A codec that costs more of the processor must promise at most this part of the time of the cheaper one."""
WINDOW_S = 0.05
WINDOW_BYTES = 16 << 20
"""A window of measurement ends after both, or after `LONG_WINDOW_S`: the kernel buffers some 4 MiB of what we send."""
LONG_WINDOW_S = 1.0
BLOCKED, BUSY, FULL = 0.5, 0.75, 0.85
"""Sends blocked for this part of a window: the link was the limit; it was never idle; the processor had time left."""
MOST_SPARE = 0.5
"""Time of a plain frame on the link that packing the next one may use, when the processor had time to spare."""
UNKNOWN_RATE = 100e6
"""Bytes a second of a link on which nothing was measured yet."""
PATIENCE = 64
"""Most windows between two tries of plain on a link where it was wrong."""

_PRIOR_S_PER_BYTE = {LZ4: 1 / 0.42e9, ZSTD: 1 / 0.30e9}
_PRIOR_RATIO = {LZ4: 0.92, ZSTD: 0.60}
"""What a codec makes of a byte, over what the lz4 probe of four blocks said."""
_NEW = 0.25
"""Weight of a new measurement in a running mean."""


class Chooser:
    """One direction of one link. `codecs`: what both ends speak. `threads`: how many frames are packed at once."""

    def __init__(self, codecs: Sequence[str], threads: int = 2) -> None:
        self._codecs = [codec for codec in (LZ4, ZSTD) if codec in codecs]
        self._threads = threads
        self._cost = dict(_PRIOR_S_PER_BYTE)
        self._ratio = dict(_PRIOR_RATIO)
        self._measured: set[str] = set()
        self.rate: float | None = None
        """Bytes a second of the link; infinite while something else is the limit, None while unknown."""
        self._began: float | None = None
        self._bytes = 0
        self._blocked = 0.0
        self._packed_any = False
        self._share = 1.0
        self._has_spare = False
        self._wait = 0
        self._patience = 1

    @property
    def probes(self) -> bool:
        """True if there is anything to choose, so that blocks are worth a probe."""
        return bool(self._codecs)

    def choose(self, shrinks_to: float) -> str:
        """The codec for a frame whose probe shrank to `shrinks_to` (0 to 1)."""
        is_worth_it = shrinks_to <= WORTH_TRYING
        self._share += _NEW / 4 * (is_worth_it - self._share)
        if not is_worth_it or not self._codecs:
            return PLAIN
        rate = self.rate or UNKNOWN_RATE
        # While frames that do not shrink are on their way the threads can pack those that do.
        spare_s = min(MOST_SPARE, (1 - self._share) / self._share) / rate if self._has_spare else 0.0
        best, best_s = PLAIN, 1 / rate
        for codec in self._codecs:
            packing_s = self._cost[codec] / self._threads - spare_s
            seconds = max(packing_s, min(1.0, shrinks_to * self._ratio[codec]) / rate)
            if seconds < best_s * BETTER_BY:
                best, best_s = codec, seconds
        return best

    def packed(self, codec: str, shrinks_to: float, plain_bytes: int, stored_bytes: int, seconds: float) -> None:
        """A frame was packed by one thread: what that took, and what it came to."""
        self._packed_any = True
        weight = _NEW if codec in self._measured else 1.0
        self._measured.add(codec)
        self._cost[codec] += weight * (seconds / plain_bytes - self._cost[codec])
        for other in _PRIOR_S_PER_BYTE.keys() - self._measured:
            self._cost[other] = self._cost[codec] * _PRIOR_S_PER_BYTE[other] / _PRIOR_S_PER_BYTE[codec]
        self._ratio[codec] += _NEW * (stored_bytes / plain_bytes / shrinks_to - self._ratio[codec])

    def sent(self, stored_bytes: int, blocked_s: float, at_s: float) -> None:
        """`stored_bytes` left; the send was blocked for `blocked_s`; the time is now `at_s` (monotonic)."""
        if self._began is None:
            self._began = at_s - blocked_s
        self._bytes += stored_bytes
        self._blocked += blocked_s
        elapsed = at_s - self._began
        if (elapsed >= WINDOW_S and self._bytes >= WINDOW_BYTES) or elapsed >= LONG_WINDOW_S:
            self._judge(elapsed)
            self._began, self._bytes, self._blocked, self._packed_any = at_s, 0, 0.0, False

    def paused(self) -> None:
        """Nothing is being sent for a while, by choice: what was measured in part is dropped."""
        self._began, self._bytes, self._blocked, self._packed_any = None, 0, 0.0, False

    def _judge(self, elapsed: float) -> None:
        """A window of measurement is over."""
        self._wait = max(0, self._wait - 1)
        self._has_spare = self._blocked >= FULL * elapsed
        if self._blocked >= BLOCKED * elapsed:
            # Blocked for nearly all of the time: the bytes that left are the link's rate, for the kernel's buffer kept
            # it busy in between. Else it waited for us, and its rate is rather what it took while we were blocked.
            seen = self._bytes / (elapsed if self._blocked >= BUSY * elapsed else self._blocked)
            if self.rate is not None and math.isinf(self.rate):  # plain was tried, and the link is the limit after all
                self._patience = min(PATIENCE, 2 * self._patience)
                self._wait = self._patience
            known = self.rate is not None and math.isfinite(self.rate)
            self.rate = (self.rate + seen) / 2 if known and self.rate is not None else seen
        elif not self._packed_any:
            self.rate, self._patience, self._wait = math.inf, 1, 0
        elif self._wait == 0:
            self.rate = math.inf
