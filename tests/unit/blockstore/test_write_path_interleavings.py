"""Seeded schedules of writes, captures, a sender, a cooler, kills and power cuts: nothing is lost, nothing leaks in."""

from __future__ import annotations

from pathlib import Path

import pytest
from write_sim import World


@pytest.mark.parametrize("run", range(12))
def test_no_change_is_lost_and_none_leaks_into_a_point(
    run: int, seed: int, quick_root: Path, live: Path, small: None
) -> None:
    world = World(seed * 1000 + run, quick_root, live)
    world.run(8000)
    assert world.checks > 300
