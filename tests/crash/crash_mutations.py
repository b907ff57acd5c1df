"""Each rule of the block store that concerns one host, broken by a patch; what the checker must find out.

The rules stand in `docs/formats.md`, "Order". `MUTATIONS` names for each patch the script whose crashes show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from crash_explore import Script
from crash_mutations_layers import (
    bad_frame_skipped,
    durable_claimed_before_its_sync,
    fold_before_its_sync,
    fold_by_walking,
    fold_past_a_pin,
    gap_kept,
    named_behind_a_gap,
    noted_after_the_sync,
    pin_removed_first,
    presence_copied_after_the_sync,
    presence_stated_before_the_sync,
    presence_written_before_the_data,
    region_by_halves,
    reset_unlinks_before_it_is_recorded,
    sealed_before_the_sync,
    seed_head_before_the_base,
    sync_id_without_a_transaction,
    tail_trusted_unhashed,
    unconfirmed_regions_sealed,
    writers_not_joined,
)
from crash_mutations_merge import (
    merge_across_a_point,
    merge_before_its_sync,
    merge_inputs_unlinked_first,
    merge_old_wins,
    merge_region_wise,
    merge_zeros_lost,
    pinned_point_dropped,
)
from crash_protected import Captured, CaptureGivenUp, Lost, WritePath
from crash_recovery import Folded, Merged, Promoted, Seeded, Snapshots, Staging
from crash_site import Site
from crash_yield import GaveWay, nothing_is_set_aside

from blockstore import writer
from blockstore.capture import Capture
from blockstore.redo import RedoPack
from blockstore.steps import Step, Wait
from blockstore.tracking import recovery
from blockstore.tracking.hot import HotSet
from blockstore.tracking.intent import IntentLog
from blockstore.tracking.pmap import KIND_DIRTY, PagedBitmap, pages_for
from blockstore.tracking.tracker import ChangeTracker
from blockstore.units import BLOCK
from blockstore.writer import Writer
from engine.operations import capture as capturing

Patch = pytest.MonkeyPatch


def over() -> Wait:
    wait = Wait()
    wait.fire()
    return wait


# Marks and writes


def bits_after_data(patch: Patch) -> None:
    write = Writer.write

    def mutant(self: Writer, offset: int, data: memoryview, durable: bool) -> Wait | None:
        self._quick = frozenset()
        tracker: Any = self._tracker
        later: list[tuple[int, int]] = []
        tracker.mark = lambda first, count: later.append((first, count))
        wait = write(self, offset, data, durable)
        del tracker.mark
        for first, count in later:
            if wait is None:
                tracker.mark(first, count)
            else:
                wait.then(lambda first=first, count=count: tracker.mark(first, count))
        return wait

    patch.setattr(Writer, "write", mutant)


def no_wait_for_heat(patch: Patch) -> None:
    def mutant(self: HotSet, missing: list[int]) -> None:
        self.used.update(dict.fromkeys(missing, 0.0))

    patch.setattr(HotSet, "heat", mutant)


def record_not_synced(patch: Patch) -> None:
    patch.setattr(IntentLog, "write", lambda self, staged: self.file.write(staged[1], staged[0]))


def bit_set_before_an_await(patch: Patch) -> None:
    before, mark = Writer._before, ChangeTracker.mark
    marked: set[tuple[int, int]] = set()

    def mutant(self: Writer, offset: int, length: int) -> Wait | None:
        self._quick = frozenset()
        if length and (offset, length) not in marked:
            marked.add((offset, length))
            first = offset // BLOCK
            mark(self._tracker, first, (offset + length - 1) // BLOCK - first + 1)
        wait = before(self, offset, length)
        if wait is None:
            marked.discard((offset, length))
        return wait

    patch.setattr(Writer, "_before", mutant)
    patch.setattr(ChangeTracker, "mark", lambda self, first, count: None)


def flush_joins_a_running_one(patch: Patch) -> None:
    patch.setattr(writer._Flush, "has_begun", property(lambda self: False, lambda self, value: None), raising=False)


def hot_set_emptied_at_open(patch: Patch) -> None:
    make = HotSet.__init__

    def mutant(self: HotSet, *parts: Any) -> None:
        make(self, *parts)
        self.used.clear()

    patch.setattr(HotSet, "__init__", mutant)


def write_to_a_cooling_region_ignored(patch: Patch) -> None:
    class Sticky(set[int]):
        """Regions that go on cooling whatever happens."""

        def discard(self, region: int) -> None:
            pass

        def difference_update(self, *others: Any) -> None:
            pass

    cool = ChangeTracker._cool

    def mutant(self: ChangeTracker, batch: Any) -> Step[None]:
        step = cool(self, batch)
        self.hot.cooling = Sticky(self.hot.cooling)
        return step

    patch.setattr(ChangeTracker, "_cool", mutant)


def log_made_before_the_pages(patch: Patch) -> None:
    """A crash then leaves a log that may be believed beside pages without a bit."""

    def mutant(place: Any, *, all_dirty: bool) -> None:
        disk, ids = place.disk, {"volume_id": place.volume_id, "owner": place.tracking_id}
        IntentLog.create(disk, place.intent_path, **ids).close()
        pages = PagedBitmap.create(disk, place.dirty_path, kind=KIND_DIRTY, regions=place.regions, allocate=True, **ids)
        if all_dirty:
            numbers = range(pages_for(place.regions))
            pages.write([pages.stage(page, recovery._page_of(place, page)) for page in numbers])
        disk.sync_dir(place.folder)

    patch.setattr(recovery, "make_tracking", mutant)


def no_sync_at_open(patch: Patch) -> None:
    boot = Site.boot

    async def mutant(self: Site) -> Any:
        self.disk.is_deaf = True
        try:
            return await boot(self)
        finally:
            self.disk.is_deaf = False

    patch.setattr(Site, "boot", mutant)


# Captures


def no_quiesce(patch: Patch) -> None:
    make = Capture.__init__

    def mutant(self: Capture, *parts: Any) -> None:
        make(self, *parts)
        self.quiesced = over()

    patch.setattr(Capture, "__init__", mutant)


def done_at_send(patch: Patch) -> None:
    """The rule is the sender's: blocks are done when they have landed, not when they left."""
    patch.setattr(Captured, "sent", lambda self, part, region, bits: part.done(region, bits))


def frozen_dropped_without_the_flush(patch: Patch) -> None:
    def mutant(self: Capture) -> Step[Any]:
        self.flushed = True
        return Step(lambda: None, final=True)

    patch.setattr(Capture, "flush", mutant)


def hashes_written_before_sealed(patch: Patch) -> None:
    make, append = capturing._make_redo, RedoPack.append

    def making(ctx: Any, volume: Any, point: Any, parent: bytes) -> RedoPack:
        redo: Any = make(ctx, volume, point, parent)
        redo.mutant_hashes = volume.require_open().hashes
        return redo

    def appending(self: Any, head: bytes) -> None:
        append(self, head)
        self.mutant_hashes.store_head(head)
        self.mutant_hashes.flush()

    patch.setattr(capturing, "_make_redo", making)
    patch.setattr(RedoPack, "append", appending)


FIRST_ORDER = {
    noted_after_the_sync: 2,
    no_quiesce: 45,
    no_sync_at_open: 2,
    done_at_send: 4,
    gap_kept: 3,
    writers_not_joined: 8,
    presence_copied_after_the_sync: 10,
}
"""Orders known to show what few do: they are tried first. Any other order may be asked for with --seed."""

MUTATIONS: list[tuple[Callable[[Patch], None], type[Script]]] = [
    (bits_after_data, WritePath),
    (no_wait_for_heat, WritePath),
    (record_not_synced, WritePath),
    (bit_set_before_an_await, Captured),
    (flush_joins_a_running_one, WritePath),
    (hot_set_emptied_at_open, WritePath),
    (write_to_a_cooling_region_ignored, WritePath),
    (no_sync_at_open, WritePath),
    (log_made_before_the_pages, Lost),
    (no_quiesce, Captured),
    (done_at_send, Captured),
    (frozen_dropped_without_the_flush, Captured),
    (hashes_written_before_sealed, CaptureGivenUp),
    (tail_trusted_unhashed, Staging),
    (durable_claimed_before_its_sync, Staging),
    (noted_after_the_sync, Staging),
    (named_behind_a_gap, Staging),
    (gap_kept, Staging),
    (writers_not_joined, Staging),
    (bad_frame_skipped, Staging),
    (presence_stated_before_the_sync, Staging),
    (region_by_halves, Staging),
    (unconfirmed_regions_sealed, Staging),
    (sync_id_without_a_transaction, Staging),
    (sealed_before_the_sync, Staging),
    (fold_before_its_sync, Folded),
    (fold_by_walking, Folded),
    (fold_past_a_pin, Folded),
    (merge_old_wins, Merged),
    (merge_zeros_lost, Merged),
    (merge_region_wise, Merged),
    (merge_before_its_sync, Merged),
    (merge_across_a_point, Merged),
    (merge_inputs_unlinked_first, Merged),
    (pinned_point_dropped, Merged),
    (pin_removed_first, Snapshots),
    (reset_unlinks_before_it_is_recorded, Snapshots),
    (presence_copied_after_the_sync, Snapshots),
    (presence_written_before_the_data, Promoted),
    (nothing_is_set_aside, GaveWay),
    (seed_head_before_the_base, Seeded),
]
