"""Which recovery points stay: by count, and by a schedule such as "all:1h,hourly:1d,daily:30d".

A point stays if the count or the schedule wants it, if something pins it, and if it is the newest or the common one.
A tier of the schedule wants the *oldest* point of each of its hours, days or weeks (UTC) for as long as it says: what
is the first of its hour stays so, and the first of a day is the first of an hour too, so that whoever looks more
often never keeps less. Ages are differences of capture times of points, newest minus other, never the time of day
here (durability.md 3). Where captures run backwards no time passes, and what comes after them has hours of its own: a
clock that jumps back makes more points stay, never fewer. This module must never do I/O or read a clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from engine.model import Point, PointId

WIDTHS_S = {"all": 0, "hourly": 3600, "daily": 86400, "weekly": 7 * 86400}
"""The tiers that there are, and how many seconds a bucket of each is wide."""
UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
LONGEST_S = 36500 * 86400
_EPOCH = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday: weeks begin there."""


@dataclass(frozen=True, slots=True)
class Tier:
    """The oldest point of each `width_s` seconds stays while it is `span_s` seconds old at most; width 0: every one."""

    width_s: int
    span_s: int


Schedule = tuple[Tier, ...]


def parse(text: str) -> Schedule:
    """The schedule that an operator wrote; empty: none. Raises ValueError with the reason."""
    tiers: dict[str, Tier] = {}
    for part in text.split(",") if text.strip() else []:
        found = re.fullmatch(r"\s*([a-z]+):([0-9]{1,9})([mhdw])\s*", part, re.ASCII)
        if found is None:
            raise ValueError(f"'{part.strip()}' is not of the form daily:30d (a number, and m, h, d or w)")
        name, span_s = found[1], int(found[2]) * UNITS_S[found[3]]
        if name not in WIDTHS_S:
            raise ValueError(f"there is no tier '{name}': use {', '.join(WIDTHS_S)}")
        if name in tiers:
            raise ValueError(f"'{name}' stands twice")
        if not max(1, WIDTHS_S[name]) <= span_s <= LONGEST_S:
            raise ValueError(f"'{part.strip()}' is shorter than one bucket of it, or longer than a hundred years")
        tiers[name] = Tier(WIDTHS_S[name], span_s)
    return tuple(tiers.values())


def going(points: Sequence[Point], *, keep: int, schedule: Schedule, common: PointId | None) -> tuple[Point, ...]:
    """The points that may go now, oldest first. `points` newest first, as the records give them; `keep` at least 1.

    Without a schedule the newest `keep` stay. With one, they and what it wants.
    """
    oldest_first = tuple(reversed(points))
    stay = {point.id for point in points[: max(1, keep)]}
    stay |= {point.id for point in points if point.pins or point.id == common}
    stay |= _wanted(oldest_first, schedule)
    return tuple(point for point in oldest_first if point.id not in stay)


def runs_backwards(points: Sequence[Point]) -> bool:
    """True if the newest point claims to be older than the one before it. `points` newest first."""
    return len(points) > 1 and points[0].captured_at < points[1].captured_at


def _wanted(points: Sequence[Point], schedule: Schedule) -> set[PointId]:
    """What the tiers want of `points`, oldest first."""
    ages, runs = _ages(points), _runs(points)
    wanted: set[PointId] = set()
    for tier in schedule:
        seen: set[tuple[int, int]] = set()
        for point, age, run in zip(points, ages, runs, strict=True):
            passed = (point.captured_at - _EPOCH) // timedelta(seconds=tier.width_s or 1)
            is_first = (run, passed) not in seen or not tier.width_s
            seen.add((run, passed))
            if is_first and age <= timedelta(seconds=tier.span_s):
                wanted.add(point.id)
    return wanted


def _ages(points: Sequence[Point]) -> list[timedelta]:
    """How long before the newest each was captured; where captures run backwards no time passes."""
    ages = [timedelta(0)] * len(points)
    for at in range(len(points) - 2, -1, -1):
        ages[at] = ages[at + 1] + max(timedelta(0), points[at + 1].captured_at - points[at].captured_at)
    return ages


def _runs(points: Sequence[Point]) -> list[int]:
    """The number of the run of ascending capture times that each belongs to."""
    runs, number = [], 0
    for at, point in enumerate(points):
        if at and point.captured_at < points[at - 1].captured_at:
            number += 1
        runs.append(number)
    return runs
