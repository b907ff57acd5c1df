"""Turns of a promise: in order, a day of them, gone with their group."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from records_build import GROUP, Records, add_group

from engine.decide.schedule import DAY, Turn
from engine.records import groups, promises

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_turns_come_back_in_order_and_what_held_a_day_ago_stays(records: Records) -> None:
    records(add_group)
    old = [Turn(NOON - 3 * DAY, True), Turn(NOON - 2 * DAY, False)]
    records(promises.add, GROUP, old)
    assert records(promises.of_group, GROUP) == tuple(old)
    new = [Turn(NOON - timedelta(hours=1), None), Turn(NOON, True)]
    records(promises.add, GROUP, new)
    assert records(promises.of_group, GROUP) == (old[1], *new)
    records(promises.add, GROUP, [])
    assert records(promises.of_group, GROUP) == (old[1], *new)


def test_they_go_with_their_group(records: Records) -> None:
    records(add_group)
    records(promises.add, GROUP, [Turn(NOON, True)])
    records(groups.delete, GROUP)
    assert records(promises.of_group, GROUP) == ()


def test_a_group_that_went_meanwhile_leaves_nothing_and_ends_nothing(records: Records) -> None:
    promises_before = records(promises.of_group, GROUP)
    records(promises.add, GROUP, [Turn(NOON, True)])
    assert records(promises.of_group, GROUP) == promises_before == ()
