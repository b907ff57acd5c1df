"""ChangeTracker: what the write path asks before, and tells when, it lets bytes go. Mark durable before data.

Order of a write (`docs/formats.md`, 2.2): its regions hot (a durable record names them), then its bits set in
the current epoch in the same tick in which the write is dispatched. Dirty is always current | frozen. `quick` names
the regions in which a write may skip every question: hot, not cooling, with memory behind their bits, and
with nothing in them that a capture still has to preserve. This module must never clear a bit of the current epoch
but in `start_afresh`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from blockstore.blockset import RegionBits
from blockstore.errors import TrackingFailed
from blockstore.steps import Step, Wait
from blockstore.tracking.bitmap import LiveMap
from blockstore.tracking.checkpoint import MAX_PAGES, Checkpoint
from blockstore.tracking.hot import HotSet
from blockstore.tracking.inflight import InFlight
from blockstore.tracking.intent import CLEAN_STOP, IntentLog
from blockstore.tracking.pmap import REGIONS_PER_PAGE, PagedBitmap
from blockstore.units import BLOCKS_PER_REGION, run_bits

MAX_LOGGED_REGIONS = 64
"""A request over more regions than this goes by pages instead of the intent log."""


class Guard(Protocol):
    """A capture, as the write path sees it."""

    def preserve(self, first: int, count: int) -> Wait | None:
        """Blocks are about to be written. None: none of them has to be kept, or all are; else ask again after it."""

    def guards(self, region: int) -> bool:
        """Whether writes to the region still have to ask."""


class ChangeTracker:
    """The changed blocks of one volume. Everything on the owner's loop."""

    def __init__(
        self,
        current: LiveMap,
        frozen: LiveMap | None,
        log: IntentLog,
        pages: PagedBitmap,
        blocks: int,
        fail: Callable[[TrackingFailed], None],
    ) -> None:
        regions = len(current.touched)
        last_bits = run_bits(0, blocks - (regions - 1) * BLOCKS_PER_REGION)
        self.blocks = blocks
        self.current = current
        self.frozen = frozen
        """The epoch of the capture under way, or of one whose outcome the peer has yet to tell."""
        self.bits_of = current.bits_of
        self.writes = current.writes
        self.quick: set[int] = set()
        self.hot = HotSet(log, regions, fail)
        self.pages = Checkpoint(pages, self.dirty_bits, last_bits, fail)
        self.in_flight = InFlight()
        self.guard: Guard | None = None
        """The capture under way."""

    # What changed

    def dirty_bits(self, region: int) -> int:
        """The dirty blocks of one region."""
        bits = self.current.bits(region)
        return bits if self.frozen is None else bits | self.frozen.bits(region)

    def dirty_regions(self) -> Iterator[RegionBits]:
        """Regions with dirty blocks, ascending, lazily; marks may go on meanwhile."""
        region = 0
        while True:
            maps = (self.current,) if self.frozen is None else (self.current, self.frozen)
            found = [at for at in (bits.next_region(region) for bits in maps) if at >= 0]
            if not found:
                return
            region = min(found)
            bits = self.dirty_bits(region)
            if bits:
                yield region, bits
            region += 1

    def count(self) -> int:
        """How many blocks are dirty."""
        if self.frozen is None:
            return self.current.count()
        return self.current.count() + self.frozen.count() - self.current.count_common(self.frozen)

    # Before and at a write

    def admit(self, first: int, last: int) -> Wait | None:
        """Let the regions `first` to `last` be written. None: in this tick they may; else ask again after the wait."""
        hot = self.hot
        if first == last and first in hot.used:  # most writes are here
            hot.used[first] = hot.now_s
            hot.cooling.discard(first)
            return None
        if last - first >= MAX_LOGGED_REGIONS:
            return self._admit_wide(first, last)
        return self._admit_logged(range(first, last + 1))

    def mark(self, first: int, count: int) -> None:
        """Blocks are written in this tick. OSError ENOSPC: no memory for their bits; then they must not be written."""
        self.current.mark(first, count)
        self.writes[0] += 1

    def mark_only(self, first: int, count: int) -> None:
        """Set bits without a write, for scans; durable after `save_marks`, or the next cooling or clean stop."""
        self.current.mark(first, count)
        region, last = first // BLOCKS_PER_REGION, (first + count - 1) // BLOCKS_PER_REGION
        self.pages.unsaved.update(range(region // REGIONS_PER_PAGE, last // REGIONS_PER_PAGE + 1))

    # Epochs

    def switch(self, fresh: LiveMap) -> LiveMap:
        """Freeze the current epoch, go on in `fresh`; returns the frozen one. Pointer swaps: nothing here can fail."""
        assert self.frozen is None, "one capture at a time"
        old = self.current
        fresh.writes[0] = old.writes[0]
        fresh.oldest = old.name.epoch
        old.freeze()
        self.frozen, self.current = old, fresh
        self.bits_of, self.writes = fresh.bits_of, fresh.writes
        self.quick.clear()
        return old

    def drop_frozen(self) -> LiveMap | None:
        """What the frozen epoch holds is in a recorded point: its bits are not dirty any more. Returns its map."""
        old, self.frozen = self.frozen, None
        if old is not None:
            self.pages.dropped(old.touched_groups(REGIONS_PER_PAGE))
        self.current.oldest = self.current.name.epoch
        return old

    def merge_frozen(self) -> LiveMap | None:
        """The frozen blocks are as dirty as the current ones again. OSError ENOSPC: they stay apart, as dirty."""
        if self.frozen is not None:
            self.current.merge(self.frozen)
        return self.drop_frozen()

    def start_afresh(self) -> Wait:
        """Forget every dirty block: what follows reads the whole volume, once the wait is over (seeding)."""
        assert self.frozen is None, "no capture may be under way"
        self.current.clear()
        self.quick.clear()
        self.pages.dropped(self.pages.file.shown)
        return self.in_flight.drained()

    # Cooling

    def cool(self, now_s: float, *, all_of_them: bool) -> Step[None] | None:
        """Begin to cool a batch, if there is one and no pages are being written. Regions in use ask again once."""
        self.hot.now_s = now_s
        self.quick.clear()
        if self.pages.busy is not None:
            return None
        batch = self.hot.may_cool(all_of_them=all_of_them)
        return self._cool(batch) if batch or self.pages.unsaved or self.pages.stale else None

    def save_marks(self) -> Step[None] | None:
        """Make marks without a write durable. None: they are; the step under way, if pages are being written."""
        if self.pages.busy is not None:
            return self.pages.busy
        return self._cool([]) if self.pages.unsaved else None

    def stop(self) -> Callable[[], None]:
        """With all writers gone: the blocking work that saves every bit and records a clean stop."""
        assert self.in_flight.is_empty, "writers are gone"
        assert self.pages.busy is None, "nothing cools"
        wanted = {region // REGIONS_PER_PAGE for region in self.hot.used} | self.pages.unsaved | self.pages.stale
        pages = self.pages.save(wanted).start()
        log, record = self.hot.log, self.hot.log.stage((), CLEAN_STOP)

        def work() -> None:
            pages()
            log.write(record)

        return work

    def poison(self) -> None:
        """A mark or a sync failed: no later process may trust these maps."""
        self.quick.clear()
        self.current.poison()
        if self.frozen is not None:
            self.frozen.poison()

    def close(self) -> None:
        """Close all files; the live maps stay for the next process."""
        self.current.close()
        if self.frozen is not None:
            self.frozen.close()
        self.hot.log.close()
        self.pages.file.close()

    def _admit_logged(self, regions: range) -> Wait | None:
        hot = self.hot
        missing = hot.missing(regions)
        if not missing:
            hot.use(regions)
            return None
        if hot.room_for(missing):
            return hot.heat(missing)
        if self.pages.busy is not None:
            return self.pages.busy
        return self._cool([region for region in hot.may_cool(all_of_them=True) if region not in regions])

    def _admit_wide(self, first: int, last: int) -> Wait | None:
        """The regions between the ends by pages that show every block dirty, the ends, which may be partial, by log."""
        for end in (first, last):
            wait = self._admit_logged(range(end, end + 1))
            if wait is not None:
                return wait
        between = range(first + 1, last)
        full, used = self.pages.full, self.hot.used
        short = [region for region in between if region not in full and region not in used]
        if not short:
            self.hot.use([region for region in between if region in used])
            return None
        if self.pages.busy is not None:
            return self.pages.busy
        start = short[0]
        covered = range(start, min(between.stop, (start // REGIONS_PER_PAGE + MAX_PAGES) * REGIONS_PER_PAGE))
        self.current.mark(start * BLOCKS_PER_REGION, len(covered) * BLOCKS_PER_REGION)
        pages = range(start // REGIONS_PER_PAGE, covered[-1] // REGIONS_PER_PAGE + 1)
        return self.pages.save(pages, full=covered)

    def _cool(self, batch: Iterable[int]) -> Step[None]:
        hot = self.hot
        hot.cooling = set(batch)
        self.quick.difference_update(hot.cooling)
        pages = {region // REGIONS_PER_PAGE for region in hot.cooling}
        pages.update(self.pages.due(MAX_PAGES - len(pages)))
        return self.pages.save(pages, hot.cooled)
