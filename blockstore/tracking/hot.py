"""HotSet: which regions the intent log covers, who waits for a record, and which regions may cool.

A region is hot from the moment a durable record names it until its bits are durable in the pages; only the next
record leaves it out. Records are made on the owner's loop, one is in flight, latecomers join the next. This
module must never call a region hot before the sync of a record that names it has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blockstore.errors import TrackingFailed
from blockstore.steps import Step
from blockstore.tracking.intent import MAX_REGIONS, IntentLog

AHEAD = 8
"""Regions that an ascending writer is heated ahead of itself."""
IDLE_S = 60.0
"""A region that was not written for so long may cool."""
COOL_ABOVE = MAX_REGIONS * 9 // 10
"""With more hot regions than this the oldest cool at once."""
MIN_BATCH, MAX_BATCH = 64, 256
"""Regions that cool together; fewer than the first are left alone unless asked for."""


class HotSet:
    """The hot regions of one volume. Everything on the owner's loop."""

    def __init__(self, log: IntentLog, regions: int, fail: Callable[[TrackingFailed], None]) -> None:
        self.log = log
        self.used: dict[int, float] = dict.fromkeys(log.newest.regions, 0.0)
        """Hot region -> when it was last written, as told by the last `cool`."""
        self.cooling: set[int] = set()
        """Regions whose bits are being made durable and that were not written since."""
        self.now_s = 0.0
        self._regions = regions
        self._fail = fail
        self._wanted: set[int] = set()
        self._named: set[int] = set()
        self._record: Step[None] | None = None
        self._next = -1

    def missing(self, regions: Iterable[int]) -> list[int]:
        """Those of `regions` that are not hot."""
        used = self.used
        return [region for region in regions if region not in used]

    def use(self, regions: Iterable[int]) -> None:
        """Hot regions are written now: one that is cooling stays hot, for the newest record still names it."""
        now_s = self.now_s
        for region in regions:
            self.used[region] = now_s
        if self.cooling:
            self.cooling.difference_update(regions)

    def room_for(self, missing: list[int]) -> bool:
        """Whether one record can name these as well."""
        return len(self.used) + len(missing) <= MAX_REGIONS

    def heat(self, missing: list[int]) -> Step[None]:
        """The record that has to be durable first. It may not name all of `missing` yet: look again after it."""
        self._wanted.update(region for region in missing if region not in self._named)
        if self._record is not None:
            return self._record
        self._look_ahead(missing[0])
        self._named = named = set(sorted(self._wanted)[: MAX_REGIONS - len(self.used)])
        self._wanted.clear()
        staged = self.log.stage(self.used.keys() | named)
        log = self.log

        def settle(_: None) -> None:
            self._record = None
            self._named = set()
            for region in named:
                self.used.setdefault(region, self.now_s)

        self._record = Step(lambda: log.write(staged), settle, self._failed)
        return self._record

    def may_cool(self, *, all_of_them: bool) -> list[int]:
        """Regions to cool now, oldest first, at most MAX_BATCH; none while some are cooling."""
        used = self.used
        if all_of_them:
            return sorted(used, key=used.__getitem__)[:MAX_BATCH]
        if len(used) > COOL_ABOVE:
            return sorted(used, key=used.__getitem__)[:MIN_BATCH]
        idle = [region for region, at_s in used.items() if self.now_s - at_s >= IDLE_S]
        idle.sort(key=used.__getitem__)
        return idle[:MAX_BATCH] if len(idle) >= MIN_BATCH else []

    def cooled(self) -> None:
        """The bits of the regions that were cooling are durable: those not written meanwhile are cold."""
        for region in self.cooling:
            del self.used[region]
        self.cooling.clear()

    def _look_ahead(self, first: int) -> None:
        """A writer that goes on where the last record ended gets some regions ahead, while there is plenty of room."""
        ascending = first == self._next
        self._next = max(self._wanted) + 1
        if ascending and len(self.used) + AHEAD < COOL_ABOVE:
            ahead = range(self._next, min(self._next + AHEAD, self._regions))
            self._wanted.update(self.missing(ahead))
            self._next = ahead.stop if ahead else self._next

    def _failed(self, error: Exception) -> None:
        failure = TrackingFailed(path=self.log.file.path, reason=getattr(error, "reason", str(error)))
        self._fail(failure)
        raise failure from error
