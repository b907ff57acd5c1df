"""When a group must be synced so that it keeps its RPO, and how well the promise was kept. Pure.

A point that was captured at C is all that the recovery site has until the next one is sealed: the promise holds
while that happens before C + RPO. So the next sync begins by then less what it is thought to take. Times are
aware datetimes, durations seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest

MARGIN = 1.25
"""A sync is thought to take so much longer than what was seen says."""
RESERVE = 0.1
"""Of the RPO, for what no forecast knows: a busy host, a lost packet."""
REMEMBERED = 8
"""Syncs that a forecast is made from."""
DAY = timedelta(days=1)
LONGEST_PAUSE_S = 60.0
"""Between two tries of a sync that fails."""


class Forecast:
    """How long the next sync takes: what an empty one takes, more for each byte, and the worst recent surprise.

    It looks at the last few syncs only, so a link that grew slower or faster is known after as many.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=REMEMBERED)
        """(bytes that waited when it began, seconds, seconds more than was forecast)"""

    def note(self, waiting_bytes: int, seconds: float) -> None:
        """A sync is over: so many bytes waited when it began, and so long it took."""
        expected = self._model(waiting_bytes)
        self._seen.append((waiting_bytes, seconds, 0.0 if expected is None else max(0.0, seconds - expected)))

    def seconds(self, waiting_bytes: int) -> float | None:
        """What a sync of so many bytes is thought to take, on the safe side; None: nothing was seen yet."""
        expected = self._model(waiting_bytes)
        if expected is None:
            return None
        return MARGIN * expected + max(surprise for _, _, surprise in self._seen)

    def _model(self, waiting_bytes: int) -> float | None:
        if not self._seen:
            return None
        fixed = min(seconds for _, seconds, _ in self._seen)
        most, seconds, _ = max(self._seen)
        return fixed + waiting_bytes * ((seconds - fixed) / most if most else 0.0)


def begin_in(rpo_s: float, lag_s: float | None, takes_s: float | None) -> float:
    """Seconds until the next sync must begin; 0: now. `lag_s` None: there is no point yet.

    With nothing seen yet, half of the RPO is left for the sync.
    """
    if lag_s is None:
        return 0.0
    return max(0.0, rpo_s - lag_s - (rpo_s / 2 if takes_s is None else takes_s + RESERVE * rpo_s))


def pause_after(failures: int) -> float:
    """Seconds before a sync that failed so many times in a row is tried again; 0 after none."""
    return min(LONGEST_PAUSE_S, 2.0 ** min(failures - 1, 10)) if failures else 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """From this moment on a promise is kept, or broken; None: nothing is promised."""

    at: datetime
    kept: bool | None


class Promise:
    """Whether the RPO of one group is kept, found out from looks at it now and then.

    Breaks are dated to the moment at which they happened, also one that was over before the next look.
    """

    def __init__(self, last: Turn | None = None) -> None:
        """`last`: the newest turn that was recorded, by a daemon before this one too."""
        self.last = last
        self._fresh_as_of: datetime | None = None

    def look(self, now: datetime, rpo_s: int | None, fresh_as_of: datetime | None) -> list[Turn]:
        """The turns since the last look, ascending. `fresh_as_of`: what the recovery copy stands for now.

        Nothing is promised without an RPO, or before there is a point.
        """
        turns: list[Turn] = []
        if rpo_s is None or fresh_as_of is None:
            self._turn(turns, now, None)
        else:
            before, allowed = self._fresh_as_of, timedelta(seconds=rpo_s)
            if before is not None and before < fresh_as_of and now > before + allowed:
                self._turn(turns, before + allowed, False)
            if now > fresh_as_of + allowed:
                self._turn(turns, fresh_as_of + allowed, False)
            else:
                self._turn(turns, now, True)
        self._fresh_as_of = fresh_as_of if rpo_s is not None else None
        return turns

    def _turn(self, turns: list[Turn], at: datetime, kept: bool | None) -> None:
        before = self.last
        if kept == (before.kept if before is not None else None):
            return
        self.last = Turn(max(at, before.at) if before is not None else at, kept)
        turns.append(self.last)


def kept_percent(turns: Sequence[Turn], now: datetime) -> float | None:
    """Of the last 24 hours, as far as something was promised in them, the part in which it was kept.

    `turns` ascending. None: nothing was promised.
    """
    begin = now - DAY
    seconds = {True: 0.0, False: 0.0}
    for turn, following in zip_longest(turns, turns[1:]):
        end = now if following is None else following.at
        if turn.kept is not None:
            seconds[turn.kept] += max(0.0, (end - max(turn.at, begin)).total_seconds())
    whole = sum(seconds.values())
    return 100 * seconds[True] / whole if whole else None
