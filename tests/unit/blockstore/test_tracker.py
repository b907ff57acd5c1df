"""What may be written when, and what is dirty; cooling, epochs, ranges too wide for the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made import SIZE, TRACKING, do, open_volume, tracked, write
from power_disk import PowerDisk

from blockstore.blockset import BlockSet
from blockstore.errors import TrackingFailed, VolumeFailed
from blockstore.steps import Step
from blockstore.tracking.tracker import MAX_LOGGED_REGIONS
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION, blocks_in
from blockstore.volume import Volume
from blockstore.writer import freeze

LOG, PAGES = f"intent.{TRACKING.hex()}", f"dirty.{TRACKING.hex()}.pmap"


@pytest.fixture
def disk() -> PowerDisk:
    return PowerDisk()


@pytest.fixture
def volume(tmp_path: Path, live: Path, disk: PowerDisk) -> Iterator[Volume]:
    volume = tracked(tmp_path, live, disk)
    volume.open_writer()
    disk.syncs.clear()
    yield volume
    volume.close()


def test_a_first_write_costs_one_sync_of_the_log_and_the_next_none(volume: Volume, disk: PowerDisk) -> None:
    assert write(volume, 5) == 1
    assert disk.syncs == [LOG]
    for block in (5, 6, 1023):
        assert write(volume, block) == 0
    assert disk.syncs == [LOG]
    assert volume.dirty() == BlockSet.of_extents((5, 2), (1023, 1))


def test_a_write_over_two_cold_regions_costs_one_sync(volume: Volume, disk: PowerDisk) -> None:
    assert write(volume, 1023, b"x" * 2 * BLOCK) == 1
    assert disk.syncs == [LOG]
    assert volume.dirty_bits(0) == 1 << 1023
    assert volume.dirty_bits(1) == 1


def test_a_partial_block_is_dirty_whole_and_its_neighbours_are_not(volume: Volume) -> None:
    writer = volume._writer
    assert writer is not None
    for offset, length in ((7 * BLOCK + 100, 1), (9 * BLOCK - 1, 2), (20 * BLOCK, BLOCK)):
        for _ in range(2):  # through all questions, and past them
            do(lambda: writer.write(offset, memoryview(bytes(length)), False))  # noqa: B023
    assert volume.dirty() == BlockSet.of_extents((7, 3), (20, 1))


def test_cooling_costs_one_sync_whatever_its_size(volume: Volume, disk: PowerDisk) -> None:
    for region in range(0, 80, 2):
        write(volume, region * BLOCKS_PER_REGION)
    disk.syncs.clear()
    step = volume.cool(0.0, all=True)
    assert step is not None
    step.run()
    assert disk.syncs == [PAGES]
    assert volume.cool(0.0, all=True) is None
    disk.syncs.clear()
    assert write(volume, 0) == 1
    assert disk.syncs == [LOG]


def test_nothing_cools_before_it_was_idle_for_a_minute(volume: Volume) -> None:
    for region in range(0, 200, 2):
        if region < 100:
            write(volume, region * BLOCKS_PER_REGION)
    for region in range(1, 40, 2):
        write(volume, region * BLOCKS_PER_REGION)
    assert volume.cool(59.0) is None
    step = volume.cool(61.0)
    assert step is not None
    step.run()
    assert write(volume, 0) == 1


def test_regions_in_use_are_seen_to_be(volume: Volume) -> None:
    for region in range(100):
        write(volume, region * BLOCKS_PER_REGION)
    for now_s in (30.0, 50.0):
        assert volume.cool(now_s) is None
        for region in range(100):  # every one is written again, past all questions but the first
            for _ in range(3):
                assert write(volume, region * BLOCKS_PER_REGION) == 0
    assert volume.cool(100.0) is None
    assert volume.cool(120.0) is not None


def test_a_write_while_its_region_cools_keeps_it_hot(volume: Volume, disk: PowerDisk) -> None:
    write(volume, 0)
    write(volume, 5000)
    step = volume.cool(0.0, all=True)
    assert step is not None
    work = step.start()
    assert write(volume, 1) == 0
    step.complete(work())
    disk.syncs.clear()
    assert write(volume, 2) == 0
    assert write(volume, 5001) == 1


def test_only_one_batch_cools_at_a_time(volume: Volume) -> None:
    write(volume, 0)
    assert volume.cool(0.0, all=True) is not None
    assert volume.cool(0.0, all=True) is None


def test_a_full_hot_set_makes_cold_writes_wait_for_cooling(
    volume: Volume, disk: PowerDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockstore.tracking.hot.MAX_REGIONS", 4)
    for region in (0, 20, 40, 60):
        assert write(volume, region * BLOCKS_PER_REGION) == 1
    disk.syncs.clear()
    assert write(volume, 80 * BLOCKS_PER_REGION) == 2
    assert disk.syncs == [PAGES, LOG]
    assert len(volume.dirty()) == 5


def test_a_range_wider_than_the_log_goes_by_pages(volume: Volume, disk: PowerDisk) -> None:
    writer = volume._writer
    assert writer is not None
    offset, length = REGION // 2, (MAX_LOGGED_REGIONS + 10) * REGION
    do(lambda: writer.zero(offset, length, False, True))
    assert disk.syncs.count(LOG) <= 2
    assert disk.syncs.count(PAGES) == 1
    first = offset // BLOCK
    assert volume.dirty() == BlockSet.of_extents((first, length // BLOCK))
    disk.syncs.clear()
    do(lambda: writer.zero(offset, length, False, True))
    assert disk.syncs == []  # all of it is durably dirty


def test_pages_that_shrink_do_not_cover_a_wide_range_any_more(volume: Volume, disk: PowerDisk) -> None:
    writer = volume._writer
    assert writer is not None
    whole = lambda: writer.discard(0, SIZE, False)  # noqa: E731
    do(whole)
    volume.prepare_capture(b"s" * 16)
    (capture,) = freeze([volume])
    capture.flush().run()
    capture.settle().run()
    assert not volume.dirty()
    write(volume, 50 * BLOCKS_PER_REGION)
    while (step := volume.cool(0.0, all=True)) is not None:
        step.run()
    disk.syncs.clear()
    do(whole)
    assert PAGES in disk.syncs
    assert len(volume.dirty()) == blocks_in(SIZE)


def test_an_epoch_that_moves_while_pages_are_written_marks_again(volume: Volume) -> None:
    writer = volume._writer
    assert writer is not None
    length = 90 * REGION
    volume.prepare_capture(b"s" * 16)
    while True:
        wait = writer.zero(0, length, False, True)
        assert isinstance(wait, Step)
        if volume._tracker is not None and volume._tracker.pages.busy is wait:
            break
        wait.run()
    work = wait.start()
    (capture,) = freeze([volume])
    assert volume._tracker is not None
    assert volume._tracker.current.count() == 0
    wait.complete(work())
    capture.done(0, (1 << 1024) - 1)
    for region, bits in list(capture.regions()):
        capture.done(region, bits)
    do(lambda: writer.zero(0, length, False, True))
    assert volume._tracker.current.count() == 90 * BLOCKS_PER_REGION


def test_dirty_regions_are_listed_lazily_while_marks_go_on(volume: Volume) -> None:
    write(volume, 0)
    listed = []
    for region, bits in volume.dirty_regions():
        listed.append((region, bits))
        if region < 9:
            write(volume, (region + 3) * BLOCKS_PER_REGION + 1)
    assert listed == [(0, 1), (3, 2), (6, 2), (9, 2)]


def test_dirty_is_the_current_epoch_and_the_frozen_one(volume: Volume) -> None:
    write(volume, 1)
    write(volume, 2)
    volume.prepare_capture(b"s" * 16)
    freeze([volume])
    for block in (2, 3, 5 * BLOCKS_PER_REGION):
        write(volume, block)
    assert volume.dirty() == BlockSet.of_extents((1, 3), (5 * BLOCKS_PER_REGION, 1))
    assert volume.dirty_blocks == 4
    assert [region for region, _ in volume.dirty_regions()] == [0, 5]


def test_marks_without_a_write_survive_a_clean_stop(tmp_path: Path, volume: Volume) -> None:
    volume.mark_blocks(5000, 3000)
    assert volume.revoke_writer().over
    do(volume.stop_clean)
    volume.close()
    again = open_volume(tmp_path, None)
    again.open_tracking(TRACKING, nonce=bytes(16), clean=True, pending=False)
    assert again.dirty() == BlockSet.of_extents((5000, 3000))


def test_marks_without_a_write_are_saved_when_asked(volume: Volume, disk: PowerDisk) -> None:
    volume.mark_blocks(0, blocks_in(SIZE))
    assert do(volume.save_marks) == 1
    assert disk.syncs == [PAGES]
    assert volume.save_marks() is None


def test_starting_afresh_forgets_and_waits_for_what_is_in_flight(volume: Volume) -> None:
    writer = volume._writer
    assert writer is not None
    write(volume, 0)
    big = memoryview(bytes(1 << 20))
    do(lambda: writer.write(REGION, big, False))
    step = writer.write(REGION, big, False)
    assert isinstance(step, Step)
    wait = volume.set_clean_everything()
    assert not volume.dirty()
    assert not wait.over
    step.run()
    assert wait.over
    write(volume, 7)
    assert volume.dirty() == BlockSet.of_extents((7, 1))


def test_pages_that_cannot_be_written_stop_the_volume(volume: Volume) -> None:
    write(volume, 0)
    assert volume._tracker is not None

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    volume._tracker.pages.file.file.write = broken  # type: ignore[method-assign]
    step = volume.cool(0.0, all=True)
    assert step is not None
    with pytest.raises(TrackingFailed):
        step.run()
    assert volume.failed
    assert not volume._tracker.current.is_trusted
    with pytest.raises(VolumeFailed):
        write(volume, 0)
    assert volume.cool(0.0, all=True) is None


def test_writes_are_counted(volume: Volume) -> None:
    for block in (0, 0, 1, 5000):
        write(volume, block)
    assert volume.writes == 4
    volume.prepare_capture(b"s" * 16)
    freeze([volume])
    write(volume, 9000)
    assert volume.writes == 5
