"""A calendar of limits: the last entry that holds applies, also behind midnight; what cannot be meant is refused."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from engine.decide.calendar import NO_LIMIT, applied, parse

M = 1 << 20
OFFICE = parse("20M; mon-fri 08:00-18:00 5M; sat,sun none")
MONDAY = 2
"""2026-11-02 was one."""


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, MONDAY + day, hour, minute)


@pytest.mark.parametrize(
    ("when", "limit", "reason"),
    [
        (at(0, 7, 59), 20 * M, "by '20M'"),
        (at(0, 8), 5 * M, "by 'mon-fri 08:00-18:00 5M'"),
        (at(4, 17, 59), 5 * M, "by 'mon-fri 08:00-18:00 5M'"),
        (at(4, 18), 20 * M, "by '20M'"),
        (at(5, 12), None, "by 'sat,sun none'"),
    ],
)
def test_the_last_entry_that_holds_applies(when: datetime, limit: int | None, reason: str) -> None:
    found = applied(OFFICE, when)
    assert (found.limit, found.reason) == (limit, reason)


def test_nothing_said_is_no_limit() -> None:
    assert applied(parse(""), at(0, 0)) is NO_LIMIT
    assert applied(parse(" ; "), at(0, 0)) is NO_LIMIT
    assert applied(parse("mon 10:00-11:00 1M"), at(1, 10)) is NO_LIMIT


def test_a_time_that_ends_before_it_begins_goes_on_behind_midnight_of_its_day() -> None:
    night = parse("fri 22:00-06:00 1M")
    assert applied(night, at(4, 21, 59)) is NO_LIMIT
    assert applied(night, at(4, 22)).limit == M
    assert applied(night, at(5, 5, 59)).limit == M
    assert applied(night, at(5, 6)) is NO_LIMIT
    assert applied(night, at(4, 3)) is NO_LIMIT, "the night before was no friday's"


def test_days_may_go_round_the_week_and_a_day_to_its_end() -> None:
    assert applied(parse("sat-mon 1M"), at(0, 12)).limit == M
    assert applied(parse("sat-mon 1M"), at(1, 12)) is NO_LIMIT
    assert applied(parse("18:00-24:00 1M"), at(1, 23, 59)).limit == M


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", "no rate"),
        ("-5M", "no rate"),
        ("1", "least is 64K"),
        ("0", "leeward pause"),
        ("5M 20M", "no day"),
        ("monday 5M", "'monday' is no day"),
        ("mon-xyz 5M", "no day"),
        ("mon 25:00-26:00 5M", "no time of day"),
        ("mon 10:70-11:00 5M", "no time of day"),
        ("mon 10:00-10:00 5M", "ends when it begins"),
        ("10:00-11:00 mon 5M", "no day"),
        ("mon 10:00-11:00 12:00-13:00 5M", "neither days nor a time"),
        ("; ".join(["5M"] * 33), "33 entries"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(text)
