"""Each rule of the write path, broken: the seeded schedules must notice, or they prove nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from write_sim import Violation, World

from blockstore import writer
from blockstore.blockset import split_by_region
from blockstore.capture import Capture
from blockstore.errors import LeewardError
from blockstore.steps import Step, Wait
from blockstore.tracking.bitmap import LiveMap
from blockstore.tracking.checkpoint import Checkpoint
from blockstore.tracking.hot import HotSet
from blockstore.tracking.intent import CLEAN_STOP, IntentLog
from blockstore.tracking.pmap import PagedBitmap
from blockstore.tracking.tracker import ChangeTracker
from blockstore.units import BLOCK
from blockstore.writer import Writer

Patch = pytest.MonkeyPatch
SEEDS = 300
EVENTS = 6000


def over() -> Wait:
    wait = Wait()
    wait.fire()
    return wait


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


def no_quiesce(patch: Patch) -> None:
    make = Capture.__init__

    def mutant(self: Capture, *parts: Any) -> None:
        make(self, *parts)
        self.quiesced = over()

    patch.setattr(Capture, "__init__", mutant)


def frozen_dropped_without_flush(patch: Patch) -> None:
    def mutant(self: Capture) -> Step[Any]:
        self.flushed = True
        return Step(lambda: None, final=True)

    patch.setattr(Capture, "flush", mutant)


def flush_joins_a_running_one(patch: Patch) -> None:
    patch.setattr(writer._Flush, "has_begun", property(lambda self: False, lambda self, value: None), raising=False)


def write_to_a_cooling_region_ignored(patch: Patch) -> None:
    admit = ChangeTracker.admit

    def mutant(self: ChangeTracker, first: int, last: int) -> Wait | None:
        cooling = set(self.hot.cooling)
        wait = admit(self, first, last)
        self.hot.cooling |= cooling
        return wait

    patch.setattr(ChangeTracker, "admit", mutant)


def quick_kept_while_cooling(patch: Patch) -> None:
    class Sticky(set):  # type: ignore[type-arg]
        def difference_update(self, *others: Any) -> None:
            pass

        def clear(self) -> None:
            pass

    make = ChangeTracker.__init__

    def mutant(self: ChangeTracker, *parts: Any) -> None:
        make(self, *parts)
        self.quick = Sticky()

    patch.setattr(ChangeTracker, "__init__", mutant)


def hot_set_emptied_at_open(patch: Patch) -> None:
    make = HotSet.__init__

    def mutant(self: HotSet, *parts: Any) -> None:
        make(self, *parts)
        self.used.clear()

    patch.setattr(HotSet, "__init__", mutant)


def nothing_synced_at_open(patch: Patch) -> None:
    patch.setattr(World, "syncs_at_open", False)


def pages_not_synced_before_cold(patch: Patch) -> None:
    def mutant(self: PagedBitmap, staged: Any) -> None:
        for _, offset, image in staged:
            self.file.write(image, offset)

    patch.setattr(PagedBitmap, "write", mutant)


class _Current:
    """The bits of the current epoch alone, whichever it is by then."""

    def __init__(self, tracker: ChangeTracker) -> None:
        self._tracker = tracker

    def __call__(self, region: int) -> int:
        return self._tracker.current.bits(region)


def pages_without_frozen_bits(patch: Patch) -> None:
    make = Checkpoint.__init__

    def mutant(self: Checkpoint, file: PagedBitmap, bits_of: Any, *rest: Any) -> None:
        make(self, file, _Current(bits_of.__self__), *rest)

    patch.setattr(Checkpoint, "__init__", mutant)


def nothing_preserved(patch: Patch) -> None:
    patch.setattr(Capture, "preserve", lambda self, first, count: None)


def kept_before_it_is_copied(patch: Patch) -> None:
    copy = Capture._copy_in_pool

    def mutant(self: Capture, region: int, need: int) -> Step[Any]:
        step = copy(self, region, need)
        self._parts.kept.add(region, need)
        return step

    patch.setattr(Capture, "_copy_in_pool", mutant)
    patch.setattr(Capture, "_copy_cached", lambda self, region, need, left: False)


def kept_asked_before_the_read(patch: Patch) -> None:
    def mutant(self: Capture, runs: Any, buffer: memoryview, examine: Callable[[], Any]) -> Any:
        kept = {
            region: self._parts.kept.bits(region)
            for first, count in runs
            for region, _ in split_by_region(first, count)
        }
        for at, (first, count) in enumerate(runs):
            place = buffer[at * BLOCK : (at + count) * BLOCK]
            if kept[first // 1024] >> first % 1024 & 1:
                self._parts.file.read_into(place, first * BLOCK)
            else:
                self._surface.read_blocking(first * BLOCK, place)
        return examine()

    patch.setattr(Capture, "_read", mutant)


def copies_under_way_not_asked_for(patch: Patch) -> None:
    class Blind(dict):  # type: ignore[type-arg]
        def get(self, key: Any, default: Any = ()) -> Any:
            return default

        def __contains__(self, key: Any) -> bool:
            return False

    make = Capture.__init__

    def mutant(self: Capture, *parts: Any) -> None:
        make(self, *parts)
        self._copying = Blind()

    patch.setattr(Capture, "__init__", mutant)


def abandoned_bits_dropped(patch: Patch) -> None:
    patch.setattr(ChangeTracker, "merge_frozen", ChangeTracker.drop_frozen)


def settled_bits_of_the_current_epoch_too(patch: Patch) -> None:
    drop = ChangeTracker.drop_frozen

    def mutant(self: ChangeTracker) -> LiveMap | None:
        if self.frozen is not None:
            for region, bits in self.frozen.regions():
                left = self.current.bits(region) & ~bits
                self.current._store(region, left) if self.current.touched[region] else None
        return drop(self)

    patch.setattr(ChangeTracker, "drop_frozen", mutant)


def wide_ranges_without_pages(patch: Patch) -> None:
    patch.setattr(ChangeTracker, "_admit_wide", lambda self, first, last: self._admit_logged(range(first, first + 1)))


def clean_stop_without_pages(patch: Patch) -> None:
    def mutant(self: ChangeTracker) -> Callable[[], None]:
        record = self.hot.log.stage((), CLEAN_STOP)
        return lambda: self.hot.log.write(record)

    patch.setattr(ChangeTracker, "stop", mutant)


MUTATIONS = [
    bits_after_data,
    no_wait_for_heat,
    record_not_synced,
    bit_set_before_an_await,
    no_quiesce,
    frozen_dropped_without_flush,
    flush_joins_a_running_one,
    write_to_a_cooling_region_ignored,
    quick_kept_while_cooling,
    hot_set_emptied_at_open,
    nothing_synced_at_open,
    pages_not_synced_before_cold,
    pages_without_frozen_bits,
    nothing_preserved,
    kept_before_it_is_copied,
    kept_asked_before_the_read,
    copies_under_way_not_asked_for,
    abandoned_bits_dropped,
    settled_bits_of_the_current_epoch_too,
    wide_ranges_without_pages,
    clean_stop_without_pages,
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_the_schedules_notice_when_a_rule_is_broken(
    mutation: Callable[[Patch], None], quick_root: Path, live: Path, small: None, monkeypatch: Patch
) -> None:
    mutation(monkeypatch)
    for seed in range(SEEDS):
        for path in live.iterdir():
            path.unlink()
        root = quick_root / str(seed)
        root.mkdir()
        try:
            World(seed, root, live).run(EVENTS)
        except (Violation, LeewardError):
            return
        shutil.rmtree(root)
    pytest.fail(f"{SEEDS} schedules saw nothing")
