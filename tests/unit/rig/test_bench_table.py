"""The table of the benchmarks: ratios, the best peer, and a promise that is missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.datasets import BLOCK, SEGMENT, build_mixed, scattered
from benchmarks.table import Row, best_peer, render, rows, verdicts

MIB = 1 << 20


def row(group: str, name: str, cost: float) -> Row:
    return Row(group, name, cost, 3, "")


def test_our_best_is_compared_with_the_best_peer() -> None:
    found = [
        row("full copy", "leeward TLS", 3.0),
        row("full copy", "leeward --plain", 2.0),
        row("full copy", "nbdcopy", 1.0),
        row("full copy", "rsync", 4.0),
    ]
    ((promise, ratio, whom),) = verdicts(found)
    assert (promise.group, ratio, whom) == ("full copy", 2.0, "leeward --plain : nbdcopy")
    assert "MISSED" in render(found)


def test_a_promise_may_be_about_one_peer_only() -> None:
    found = [row("1 % increment", "leeward", 0.05), row("1 % increment", "rsync", 1.0), row("1 % increment", "x", 0.01)]
    ((_, ratio, _),) = verdicts(found)
    assert ratio == pytest.approx(0.05)
    assert "holds" in render(found)


def test_a_group_without_a_peer_promises_nothing() -> None:
    assert verdicts([row("full copy", "leeward", 1.0)]) == []
    assert best_peer([row("full copy", "leeward", 1.0)]) is None


def test_a_contender_that_measures_by_itself_brings_its_cost() -> None:
    stats = {"median": 5.0, "rounds": 3}
    timed = {"group": "g", "stats": stats, "extra_info": {"contender": "a"}}
    counted = {"group": "g", "stats": stats, "extra_info": {"contender": "b", "cost": 0.5}}
    assert [one.cost for one in rows([timed, counted])] == [5.0, 0.5]


def test_the_mixed_image_is_half_noise_and_a_fifth_holes(tmp_path: Path) -> None:
    build_mixed(tmp_path / "one", 10 * SEGMENT)
    build_mixed(tmp_path / "two", 10 * SEGMENT)
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    segments = [data[at : at + SEGMENT] for at in range(0, len(data), SEGMENT)]
    assert sum(not any(segment) for segment in segments) == 2
    assert sum(segment.isascii() and any(segment) for segment in segments) == 3
    assert (tmp_path / "one").stat().st_blocks * 512 < 8.5 * SEGMENT


def test_scattered_changes_touch_each_block_once() -> None:
    changes = list(scattered(64 * MIB, 0.01, 1))
    assert len({offset for offset, _ in changes}) == len(changes) == 64 * MIB // BLOCK // 100
    assert all(offset % BLOCK == 0 and len(content) == BLOCK for offset, content in changes)
