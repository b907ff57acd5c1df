"""Reports of what hosts did or suffered, one line at a time: the same thing again within a while is counted.

A host repeats a failing write thousands of times a second; an operator needs to read it once. This module
must never delay or drop the first report of anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from blockstore.errors import LeewardError

Report = Callable[[str, str, str, dict[str, Any]], None]
"""level (info, warning, error), code, message, details."""

QUIET_S = 10.0
"""Seconds in which the same report about the same thing is given once."""

_REMEMBERED = 1024
"""Things remembered at most; the one reported longest ago is forgotten first."""


class RateLimited:
    """Passes errors on to `report`, each `about` a thing; `now` is a monotonic clock in seconds."""

    def __init__(self, report: Report, now: Callable[[], float]) -> None:
        self._report = report
        self._now = now
        self._last: OrderedDict[tuple[str, str], list[float]] = OrderedDict()

    def __call__(self, level: str, error: LeewardError, about: str) -> None:
        """Report `error`, unless its code was reported about the same thing less than `QUIET_S` ago.

        The next report says in `details["again"]` how many were not given, if there were any.
        """
        key = (error.code, about)
        now = self._now()
        entry = self._last.get(key)
        if entry is not None and now - entry[0] < QUIET_S:
            entry[1] += 1
            return
        details = error.details()
        if entry is not None and entry[1]:
            details["again"] = int(entry[1])
        self._last[key] = [now, 0]
        self._last.move_to_end(key)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        self._report(level, error.code, f"{error.message} {error.remedy}", details)
