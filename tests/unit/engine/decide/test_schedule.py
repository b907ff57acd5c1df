"""The schedule: begun in time to keep an RPO, learnt from what syncs took; a promise is dated to when it broke."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.decide.schedule import DAY, RESERVE, Forecast, Promise, Turn, begin_in, kept_percent, pause_after

MIB = 1 << 20
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def forecast(*seen: tuple[int, float]) -> Forecast:
    made = Forecast()
    for waiting, seconds in seen:
        made.note(waiting, seconds)
    return made


def test_nothing_seen_is_nothing_forecast_and_half_of_the_rpo_is_left_for_the_sync() -> None:
    assert Forecast().seconds(MIB) is None
    assert begin_in(10, 3, None) == pytest.approx(2)


def test_a_first_sync_begins_at_once_and_one_that_cannot_fit_too() -> None:
    assert begin_in(10, None, 1) == 0
    assert begin_in(10, 2, 9) == 0
    assert begin_in(10, 11, 1) == 0


def test_a_sync_begins_so_that_it_ends_before_the_promise_does() -> None:
    assert begin_in(10, 2, 1.5) == pytest.approx(10 - 2 - 1.5 - RESERVE * 10)


def test_more_bytes_take_longer_in_proportion_to_what_was_seen() -> None:
    seen = forecast((0, 0.1), (10 * MIB, 1.1))
    empty, full, double = [seen.seconds(count) for count in (0, 10 * MIB, 20 * MIB)]
    assert empty is not None
    assert full is not None
    assert double is not None
    assert full - empty == pytest.approx(1.25)
    assert double - full == pytest.approx(1.25)
    assert full >= 1.1, "what took so long once is thought to take as long again"


def test_a_burst_is_forecast_as_longer_than_any_sync_that_was_seen() -> None:
    seen = forecast(*[(MIB, 0.1 + 0.01 * n) for n in range(8)])
    assert (seen.seconds(100 * MIB) or 0) > (seen.seconds(MIB) or 0) * 10


def test_a_link_that_grew_slow_is_known_after_one_sync_and_forgotten_after_eight_quick_ones() -> None:
    seen = forecast((0, 0.05), *[(MIB, 0.1)] * 6)
    quick = seen.seconds(MIB)
    seen.note(MIB, 2.0)
    assert (seen.seconds(MIB) or 0) >= 2.0
    for _ in range(8):
        seen.note(MIB, 0.1)
    assert (seen.seconds(MIB) or 0) <= (quick or 0) + 0.05


def test_failures_are_tried_again_ever_later_but_each_minute() -> None:
    assert [pause_after(n) for n in (0, 1, 2, 3, 7, 1000)] == [0, 1, 2, 4, 60, 60]


def test_a_promise_is_broken_at_the_moment_not_at_the_look() -> None:
    promise = Promise()
    assert promise.look(at(1), 2, at(0)) == [Turn(at(1), True)]
    assert promise.look(at(1.9), 2, at(0)) == []
    assert promise.look(at(5), 2, at(0)) == [Turn(at(2), False)]
    assert promise.look(at(6), 2, at(0)) == [], "broken is said once"
    assert promise.look(at(7), 2, at(6.5)) == [Turn(at(7), True)]


def test_a_break_that_was_over_before_the_look_is_not_missed() -> None:
    promise = Promise()
    promise.look(at(1), 2, at(0))
    assert promise.look(at(2.5), 2, at(1.8)) == [Turn(at(2), False), Turn(at(2.5), True)]


def test_a_daemon_that_was_away_dates_the_break_to_when_it_happened() -> None:
    promise = Promise(Turn(at(0), True))
    assert promise.look(at(1000), 2, at(10)) == [Turn(at(12), False)]


def test_nothing_is_promised_without_an_rpo_or_a_point() -> None:
    promise = Promise()
    assert promise.look(at(0), None, at(0)) == []
    assert promise.look(at(0), 2, None) == []
    promise.look(at(1), 2, at(0))
    assert promise.look(at(9), None, at(0)) == [Turn(at(9), None)]


def test_turns_never_go_back_in_time() -> None:
    promise = Promise(Turn(at(100), True))
    (turn,) = promise.look(at(101), 2, at(0))
    assert turn == Turn(at(100), False)


def test_the_part_of_the_day_counts_what_was_promised_alone() -> None:
    assert kept_percent([], NOON) is None
    assert kept_percent([Turn(at(0), True)], at(10)) == 100
    assert kept_percent([Turn(at(0), True), Turn(at(6), False)], at(8)) == 75
    paused = [Turn(at(0), True), Turn(at(3), None), Turn(at(50), False)]
    assert kept_percent(paused, at(51)) == 75


def test_what_is_older_than_a_day_counts_no_more() -> None:
    old = [Turn(NOON - 3 * DAY, False), Turn(NOON - DAY / 2, True)]
    assert kept_percent(old, NOON) == 50
    assert kept_percent(old, NOON + DAY) == 100
