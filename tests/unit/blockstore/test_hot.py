"""Which regions are hot, who waits for which record, what may cool."""

from __future__ import annotations

from pathlib import Path

import pytest
from power_disk import PowerDisk

from blockstore.errors import TrackingFailed
from blockstore.tracking.hot import AHEAD, COOL_ABOVE, IDLE_S, MAX_BATCH, MIN_BATCH, HotSet
from blockstore.tracking.intent import MAX_REGIONS, IntentLog


class Failures(list[TrackingFailed]):
    """What the owner was told."""


@pytest.fixture
def disk() -> PowerDisk:
    return PowerDisk()


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def hot(live: Path, disk: PowerDisk, failures: Failures) -> HotSet:
    log = IntentLog.create(disk, str(live / "i"), volume_id=b"v" * 16, owner=b"t" * 16)
    disk.syncs.clear()
    return HotSet(log, 10_000, failures.append)


def recorded(hot: HotSet) -> tuple[int, ...]:
    path = hot.log.file.path
    return IntentLog.open(PowerDisk(), path, volume_id=b"v" * 16, owner=b"t" * 16).newest.regions


def test_a_region_is_hot_when_its_record_is_durable_and_not_before(hot: HotSet, disk: PowerDisk) -> None:
    step = hot.heat([7])
    work = step.start()
    assert hot.missing([7]) == [7]
    work()
    assert disk.syncs == ["i"]
    assert hot.missing([7]) == [7]
    step.complete(None)
    assert hot.missing([7]) == []
    assert recorded(hot) == (7,)


def test_those_who_come_while_a_record_is_written_share_the_next(hot: HotSet, disk: PowerDisk) -> None:
    first = hot.heat([1])
    work = first.start()
    assert hot.heat([20]) is first
    assert hot.heat([50]) is first
    assert hot.heat([1]) is first
    work()
    first.complete(None)
    second = hot.heat(hot.missing([20]))
    second.run()
    assert hot.missing([1, 20, 50]) == []
    assert disk.syncs == ["i", "i"]
    assert recorded(hot) == (1, 20, 50)


def test_a_record_names_everything_that_is_hot(hot: HotSet) -> None:
    for region in (9, 4, 700):
        hot.heat([region]).run()
    assert recorded(hot) == (4, 9, 700)


def test_an_ascending_writer_is_heated_ahead(hot: HotSet) -> None:
    hot.heat([10]).run()
    assert len(hot.used) == 1
    hot.heat([11]).run()
    assert sorted(hot.used) == [*range(10, 12 + AHEAD)]
    hot.heat([12 + AHEAD]).run()
    assert len(hot.used) == 3 + 2 * AHEAD


def test_scattered_writes_are_not_heated_ahead(hot: HotSet) -> None:
    for region in (10, 12, 11, 100, 5):
        hot.heat([region]).run()
    assert sorted(hot.used) == [5, 10, 11, 12, 100]


def test_nothing_is_heated_behind_the_end(hot: HotSet) -> None:
    hot.heat([9998]).run()
    hot.heat([9999]).run()
    assert sorted(hot.used) == [9998, 9999]


def test_a_record_never_names_more_than_fit(hot: HotSet) -> None:
    hot.used.update(dict.fromkeys(range(MAX_REGIONS - 2), 0.0))
    assert hot.room_for([8000, 8001])
    assert not hot.room_for([8000, 8001, 8002])
    hot.heat([8000, 8001, 8002]).run()
    assert len(hot.used) == MAX_REGIONS
    assert hot.missing([8000, 8001, 8002]) == [8002]


def test_few_idle_regions_are_left_alone(hot: HotSet) -> None:
    hot.used.update(dict.fromkeys(range(MIN_BATCH - 1), 0.0))
    hot.now_s = IDLE_S
    assert hot.may_cool(all_of_them=False) == []
    assert len(hot.may_cool(all_of_them=True)) == MIN_BATCH - 1


def test_idle_regions_cool_oldest_first_and_in_bounded_batches(hot: HotSet) -> None:
    hot.used.update({region: float(1000 - region) for region in range(1000)})
    hot.now_s = 700.0 + IDLE_S
    batch = hot.may_cool(all_of_them=False)
    assert batch == [*range(999, 999 - MAX_BATCH, -1)]


def test_regions_in_use_do_not_cool(hot: HotSet) -> None:
    hot.used.update(dict.fromkeys(range(200), 0.0))
    hot.now_s = 1000.0
    hot.use(range(150))
    assert hot.may_cool(all_of_them=False) == []
    hot.use(range(100, 200))
    hot.now_s += IDLE_S
    assert len(hot.may_cool(all_of_them=False)) == 200


def test_a_nearly_full_set_cools_the_oldest_whether_idle_or_not(hot: HotSet) -> None:
    hot.used.update({region: float(region) for region in range(COOL_ABOVE + 1)})
    hot.now_s = float(COOL_ABOVE)
    assert hot.may_cool(all_of_them=False) == [*range(MIN_BATCH)]


def test_a_region_written_while_it_cools_stays_hot_without_a_record(hot: HotSet, disk: PowerDisk) -> None:
    hot.used.update(dict.fromkeys(range(3), 0.0))
    hot.cooling = {0, 1, 2}
    hot.use([1])
    hot.cooled()
    assert hot.missing([0, 1, 2]) == [0, 2]
    assert disk.syncs == []


def test_a_cold_region_leaves_with_the_next_record(hot: HotSet) -> None:
    hot.heat([1, 50]).run()
    hot.cooling = {1}
    hot.cooled()
    assert recorded(hot) == (1, 50)
    hot.heat([90]).run()
    assert recorded(hot) == (50, 90)


def test_a_record_that_fails_fails_all_who_wait_and_the_volume(hot: HotSet, failures: Failures) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    hot.log.file.write = broken  # type: ignore[method-assign]
    step = hot.heat([1])
    with pytest.raises(TrackingFailed):
        step.run()
    assert len(failures) == 1
    assert hot.missing([1]) == [1]


def test_what_the_record_of_an_earlier_run_names_is_hot(live: Path, hot: HotSet) -> None:
    hot.heat([3, 900]).run()
    log = IntentLog.open(PowerDisk(), str(live / "i"), volume_id=b"v" * 16, owner=b"t" * 16)
    assert sorted(HotSet(log, 10_000, lambda _: None).used) == [3, 900]
