"""What retention promises: nothing that a count, a schedule, a pin or the newest point holds ever goes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.retention import Schedule, Tier, going, parse, runs_backwards
from engine.model import GroupId, Point, PointId

START = datetime(2026, 11, 23, tzinfo=UTC)
USUAL = parse("all:1h,hourly:1d,daily:30d")

gaps = st.lists(st.integers(0, 200_000), min_size=1, max_size=60)
"""Seconds between captures."""
tiers = st.sampled_from(
    [(), USUAL, parse("hourly:2h"), parse("daily:3d,weekly:4w"), parse("all:10m,hourly:6h"), parse("all:1h,weekly:2w")]
)
keeps = st.integers(1, 6)


def made(seconds: Sequence[int], pinned: frozenset[int] = frozenset()) -> tuple[Point, ...]:
    """Points captured at these seconds, newest first."""
    return tuple(
        Point(
            PointId(number.to_bytes(16, "big")),
            GroupId(bytes(16)),
            number,
            START + timedelta(seconds=at),
            START,
            None,
            b"",
            0,
            int(number in pinned),
        )
        for number, at in reversed(list(enumerate(seconds)))
    )


def times(gaps: Sequence[int]) -> list[int]:
    total, found = 0, []
    for gap in gaps:
        total += gap
        found.append(total)
    return found


def left(points: Sequence[Point], keep: int, schedule: Schedule) -> tuple[Point, ...]:
    gone = {point.id for point in going(points, keep=keep, schedule=schedule, common=None)}
    return tuple(point for point in points if point.id not in gone)


def promised(points: Sequence[Point], keep: int, schedule: Schedule) -> set[int]:
    """Sequences that must be there, by the words of the documentation alone; captures ascend."""
    stay = {point.sequence for point in points[:keep]}
    for tier in schedule:
        firsts: dict[int, Point] = {}
        for point in reversed(points):
            second = int((point.captured_at - datetime(1970, 1, 5, tzinfo=UTC)).total_seconds())
            key = second // tier.width_s if tier.width_s else point.sequence
            firsts.setdefault(key, point)
        for point in firsts.values():
            if points[0].captured_at - point.captured_at <= timedelta(seconds=tier.span_s):
                stay.add(point.sequence)
    return stay


@given(gaps, keeps, tiers, st.frozensets(st.integers(0, 59)))
def test_exactly_what_is_promised_stays_and_what_is_pinned(
    gaps: list[int], keep: int, schedule: Schedule, pinned: frozenset[int]
) -> None:
    points = made(times(gaps), pinned)
    stay = {point.sequence for point in left(points, keep, schedule)}
    assert stay == promised(points, keep, schedule) | (pinned & {point.sequence for point in points})
    assert points[0].sequence in stay


@given(gaps, keeps, tiers)
def test_looking_after_every_point_keeps_all_that_looking_once_at_the_end_keeps(
    gaps: list[int], keep: int, schedule: Schedule
) -> None:
    points = made(times(gaps))
    kept: tuple[Point, ...] = ()
    for point in reversed(points):
        kept = left((point, *kept), keep, schedule)
    assert promised(points, keep, schedule) <= {point.sequence for point in kept}
    again = left(kept, keep, schedule)
    assert again == kept, "looking again at once lets nothing more go"


@given(gaps, gaps, st.integers(1, 3_000_000), keeps, tiers)
def test_a_clock_that_jumps_back_never_lets_more_go(
    before: list[int], after: list[int], back: int, keep: int, schedule: Schedule
) -> None:
    straight = times([*before, *after])
    jumped = [*straight[: len(before)], *(at - back for at in straight[len(before) :])]
    if jumped[len(before)] >= jumped[len(before) - 1]:
        return  # it did not jump behind a point: nobody could tell
    stay = {point.sequence for point in left(made(jumped), keep, schedule)}
    old = {point.sequence for point in left(made(straight), keep, schedule) if point.sequence < len(before)}
    assert old <= stay, "of what was captured before the jump all stays that would stay without it"
    new = made(jumped)[: len(after)]
    assert promised(new, keep, schedule) <= stay, "what came after it has hours and days of its own"


@given(gaps, keeps, tiers, st.integers(0, 59))
def test_the_common_point_stays(gaps: list[int], keep: int, schedule: Schedule, which: int) -> None:
    points = made(times(gaps))
    common = points[which % len(points)]
    assert common not in going(points, keep=keep, schedule=schedule, common=common.id)


def test_the_newest_few_stay_whatever_a_clock_says() -> None:
    points = made([0, 10, 20, 10**9])
    assert [point.sequence for point in left(points, 3, USUAL)] == [3, 2, 1]


def test_points_of_a_wrong_future_go_once_enough_time_has_passed() -> None:
    """A clock was ten years ahead for an hour; what was captured then does not stay for ten years."""
    ahead = 10 * 365 * 86400
    points = made([0, ahead, ahead + 1800, *range(3600, 40 * 86400, 43200)])
    assert {point.sequence for point in left(points, 1, USUAL)} & {0, 1, 2} == set()
    assert runs_backwards(made([ahead, 0]))
    assert not runs_backwards(points)


def test_a_month_of_five_minutes_is_kept_as_written() -> None:
    points = made(range(0, 40 * 86400, 300))
    stay = left(points, 1, USUAL)
    assert 13 + 23 + 29 <= len(stay) <= 13 + 25 + 31


@pytest.mark.parametrize(
    "wrong",
    ["all", "all:", "all:1", "hourly:30m", "yearly:1d", "all:1h,all:2h", "all:0h", "daily:1s", "daily:99999w", ","],
)
def test_what_is_no_schedule_is_refused_with_a_reason(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(wrong)


def test_a_schedule_reads_as_it_is_written() -> None:
    assert parse(" all:90m, weekly:1w ") == (Tier(0, 5400), Tier(604800, 604800))
    assert parse("") == ()
