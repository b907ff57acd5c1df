"""How fast this site may send to its peers, by day and time: a limit that an operator writes on one line. Pure.

    20M; mon-fri 08:00-18:00 5M; sat,sun none

Entries are separated by ";". Each is days and a time of day, either of which may be left out, and a rate in bytes a
second (K, M, G are powers of 1024) or "none". The last entry that holds at a moment is the one that applies; where
none does, there is no limit. A time that ends before it begins goes on behind midnight.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LEAST_BYTES_PER_S = 64 << 10
"""A slower link would never finish a frame in time; `leeward pause` sends nothing at all."""
MOST_ENTRIES = 32
MIDNIGHT = 24 * 60

_RATE = re.compile(r"([0-9]{1,12})([KMG]?)")
_TIMES = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Entry:
    """`words` as they were written. `begin`, `end` in minutes of the day; `limit` in bytes a second, None: none."""

    words: str
    days: frozenset[int]
    begin: int
    end: int
    limit: int | None

    def holds(self, at: datetime) -> bool:
        """At this local time."""
        minute = at.hour * 60 + at.minute
        if self.begin < self.end:
            return at.weekday() in self.days and self.begin <= minute < self.end
        yesterday = (at - timedelta(days=1)).weekday()
        return (at.weekday() in self.days and minute >= self.begin) or (yesterday in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Applied:
    """What holds now, and the entry that says so in the operator's own words."""

    limit: int | None
    reason: str


NO_LIMIT = Applied(None, "no limit is set")


def parse(text: str) -> tuple[Entry, ...]:
    """Empty: no limit ever. Raises ValueError with what is wrong in words."""
    entries = [" ".join(entry.split()) for entry in text.split(";")]
    entries = [entry for entry in entries if entry]
    if len(entries) > MOST_ENTRIES:
        raise ValueError(f"there are {len(entries)} entries, and {MOST_ENTRIES} is the most")
    return tuple(_entry(entry) for entry in entries)


def applied(entries: tuple[Entry, ...], at: datetime) -> Applied:
    """`at` in the local time of the site."""
    holding = [entry for entry in entries if entry.holds(at)]
    return Applied(holding[-1].limit, f"by {holding[-1].words!r}") if holding else NO_LIMIT


def _entry(text: str) -> Entry:
    *when, rate = text.lower().split()
    days, begin, end = frozenset(range(7)), 0, MIDNIGHT
    for index, word in enumerate(when):
        if (times := _TIMES.fullmatch(word)) is not None and index == len(when) - 1:
            begin, end = _minute(times[1], times[2], text), _minute(times[3], times[4], text)
            if begin == end:
                raise ValueError(f"{text!r}: the time ends when it begins")
        elif index == 0:
            days = _days(word, text)
        else:
            raise ValueError(f"{text!r}: {word!r} is neither days nor a time such as 08:00-18:00")
    return Entry(text, days, begin, end, _limit(rate.upper(), text))


def _days(word: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{text!r}: {part!r} is no day; days are {', '.join(DAYS)}, and mon-fri")
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
        found |= {(begin + day) % 7 for day in range(length)}
    return frozenset(found)


def _minute(hours: str, minutes: str, text: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > MIDNIGHT:
        raise ValueError(f"{text!r}: {hours}:{minutes} is no time of day")
    return minute


def _limit(word: str, text: str) -> int | None:
    if word == "NONE":
        return None
    match = _RATE.fullmatch(word)
    if match is None:
        raise ValueError(f"{text!r}: {word!r} is no rate such as 20M or none")
    limit = int(match[1]) * UNITS[match[2]]
    if limit < LEAST_BYTES_PER_S:
        raise ValueError(f"{text!r}: the least is 64K a second; `leeward pause` sends nothing at all")
    return limit
