"""What people read of a group: can it fail over now, and how well its RPO was kept. Never better than it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.cli import words
from engine.requests import GroupDoc, PointDoc

POINT = PointDoc("01" * 16, 7, "2026-11-01T00:00:00.000000Z", "2026-11-01T00:00:01.000000Z", 4096, False)
WEST = GroupDoc("shop", "id", "recovery", "ok", "", "east", True, 2, 1.5, 0, None, POINT, ())
EAST = replace(WEST, role="protected", peer="west", backlog_bytes=8 << 20)


@pytest.mark.parametrize(
    ("doc", "said"),
    [
        (WEST, "this site can take over now; what was written in the last 1.5 s would be lost"),
        (
            replace(WEST, peer_connected=False, state="syncing"),
            "this site can take over now; what was written in the last 1.5 s would be lost",
        ),
        (replace(WEST, last_point=None, lag_s=None), "this site CANNOT take over: it has no recovery point yet"),
        (replace(WEST, state="failed", reason="volume data: gone"), "this site CANNOT take over: volume data: gone"),
        (replace(EAST, last_point=None, lag_s=None), "west CANNOT take over: it has no recovery point yet"),
        (EAST, "west can take over now; what was written in the last 1.5 s would be lost, at most 8.0 MiB"),
        (replace(EAST, backlog_bytes=0), "west can take over now; what was written in the last 1.5 s would be lost"),
        (
            replace(EAST, peer_connected=False),
            "no contact with west: as far as is known it can take over;"
            " what was written in the last 1.5 s would be lost",
        ),
        (
            replace(EAST, state="split"),
            "written at both sites: choose one with `leeward reverse` or `leeward restore`",
        ),
    ],
)
def test_a_failover_is_promised_only_where_it_can_be(doc: GroupDoc, said: str) -> None:
    assert words.failover(doc) == said


@pytest.mark.parametrize(
    ("doc", "said"),
    [
        (replace(WEST, rpo_s=None), "none: synced when asked"),
        (WEST, "2.0 s"),
        (replace(WEST, rpo_kept=True, rpo_kept_percent=100.0), "2.0 s, kept; kept 100 % of the last day"),
        (replace(WEST, rpo_kept=False, rpo_kept_percent=99.999), "2.0 s, BROKEN; kept 99.99 % of the last day"),
    ],
)
def test_a_promise_is_never_rounded_up(doc: GroupDoc, said: str) -> None:
    assert words.promise(doc) == said
