"""Role changes between two real daemons: the planned move and back, the disaster and back, and the mistakes.

Numbers in brackets name the worked histories of the lineage rules. After each resolution both sides must show the
same image, byte for byte, and what moved is only what changed at either side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.daemon import Daemon
from rig.pair import Pair
from rig.sides import BLOCK, SIZE, Sides


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    with Pair(tmp_path, volumes=3, size=str(SIZE)) as pair:
        yield Sides(pair)


def test_planned_move_and_back_twice(sides: Sides) -> None:
    """[10], [20] Nothing is set aside, nothing but changes moves, and points made on the way can be opened."""
    here, there = sides.east, sides.west
    for turn in range(4):
        sides.write(here, turn, 10 + turn)
        here.run("demote", sides.group)
        assert sides.exports(here) == []  # hosts are gone; what they wrote is flushed
        sides.sync(here, moved=1)
        sides.promote(there)
        sides.write(there, 20 + turn, 20 + turn)
        done = here.run("reverse", sides.group)
        assert (done["role"], done["set_aside"]) == ("recovery", None)
        sides.sync(there, moved=1)
        sides.check_live(there)
        here, there = there, here
    for point in sides.west.run("points", sides.group) if here is sides.east else sides.east.run("points", sides.group):
        assert point["sequence"] >= 1


def test_restarts_at_every_stage_of_a_move(sides: Sides) -> None:
    """Roles hold through kills: a demoted side stays demoted, one that gave way stays recovery."""
    east, west = sides.east, sides.west
    sides.write(east, 1, 11)
    east.run("demote", sides.group)
    _restart(east)
    assert (sides.role(east), sides.exports(east)) == ("demoted", [])
    sides.pair.wait_connected()
    sides.sync(east, moved=1)
    sides.promote(west)
    sides.write(west, 2, 22)
    _restart(west)
    sides.check_live(west)
    sides.pair.wait_connected()
    east.run("reverse", sides.group)
    _restart(east)
    assert sides.role(east) == "recovery"
    sides.pair.wait_connected()
    sides.sync(west, moved=1)
    west.run("demote", sides.group)
    sides.promote(east)
    west.run("reverse", sides.group)
    _restart(west)
    _restart(east)
    sides.pair.wait_connected()
    sides.write(east, 3, 33)
    sides.sync(east, moved=1)
    _restart(west)
    sides.check_point(west)


def test_disaster_split_brain_discard_and_failback(sides: Sides) -> None:
    """[6] Both sides wrote: nothing moves until the loser is named, and what it wrote is kept under a name."""
    east, west, group = sides.east, sides.west, sides.group
    sides.part_ways()
    assert east.fails("sync", group, status=4)["code"] == "refused_by_state"
    refused = east.fails("reverse", group, status=4)
    assert refused["code"] == "would_discard"
    assert refused["details"]["blocks"] == len(sides.pair.volumes)
    sides.check_live(west)
    token = refused["details"]["token"]
    assert (
        east.fails("reverse", group, "--discard-local-changes", "--token", "0" * 16, status=4)["code"] == "token_stale"
    )
    assert sides.role(east) == "protected"
    sides.write(west, 3, 33)  # the winner may go on
    done = east.run("reverse", group, "--discard-local-changes", "--token", token)
    assert (done["role"], done["set_aside_blocks"]) == ("recovery", len(sides.pair.volumes))
    (kept,) = east.run("set-aside", "list", group)
    assert kept["bytes"] == len(sides.pair.volumes) * BLOCK
    sides.sync(west, moved=3)
    west.run("demote", group)
    sides.promote(east)
    west.run("reverse", group)
    sides.write(east, 4, 44)
    sides.sync(east, moved=1)
    east.run("set-aside", "drop", group, kept["name"])
    assert east.run("set-aside", "list", group) == []


def test_a_write_after_the_refusal_makes_its_token_stale(sides: Sides) -> None:
    east, west, group = sides.east, sides.west, sides.group
    sides.write(east, 1, 11)
    east.kill()
    sides.promote(west)
    east.start()
    sides.pair.wait_connected()
    token = east.fails("reverse", group, status=4)["details"]["token"]
    sides.write(east, 1, 12)
    failed = east.fails("reverse", group, "--discard-local-changes", "--token", token, status=4)
    assert failed["code"] == "token_stale"
    assert sides.role(east) == "protected"
    sides.check_live(east)


def test_restore_after_an_unwanted_promotion(sides: Sides) -> None:
    """[7], [9] The promoted side gives way, is promotable at once, and what it wrote is set aside."""
    east, west, group = sides.east, sides.west, sides.group
    point = dict(sides.expected["west"])
    sides.part_ways()
    token = east.fails("restore", group, status=4)["details"]["token"]
    assert west.fails("restore", group, status=4)["code"] == "refused_by_state"
    done = east.run("restore", group, "--token", token)
    assert (done["role"], done["set_aside_blocks"]) == ("protected", len(sides.pair.volumes))
    assert sides.role(west) == "recovery"
    sides.expected["west"] = point
    sides.check_point(west)
    sides.sync(east, moved=1)
    (kept,) = west.run("set-aside", "list", group)
    _restart(west)
    sides.check_point(west)
    west.run("set-aside", "drop", group, kept["name"])
    sides.check_point(west)


def test_a_side_that_gave_way_with_writes_is_promoted_on_its_own_image(sides: Sides) -> None:
    """[12] The first sync back was never whole: both histories are still there, and nothing is called in step."""
    east, west, group = sides.east, sides.west, sides.group
    sides.part_ways()
    east.run("reverse", group, "--discard-local-changes", "--yes")
    west.kill()
    assert "gave way" in east.fails("promote", group, status=4)["message"]
    sides.promote(east, "--force")
    sides.write(east, 5, 55)
    _restart(east)
    sides.check_live(east)
    west.start()
    sides.pair.wait_connected()
    assert west.fails("sync", group, status=4)["code"] == "refused_by_state"
    west.run("reverse", group, "--discard-local-changes", "--yes")
    sides.sync(east, moved=2)
    sides.check_live(east)


def test_a_promotion_that_wrote_nothing_is_no_split(sides: Sides) -> None:
    """[8] SAME: either side may give way, and nothing is set aside or moved."""
    east, west, group = sides.east, sides.west, sides.group
    east.kill()
    sides.promote(west)
    east.start()
    sides.pair.wait_connected()
    assert east.run("reverse", group)["set_aside"] is None
    sides.write(west, 2, 22)
    sides.sync(west, moved=1)


def test_commands_twice_and_at_the_wrong_site(sides: Sides) -> None:
    east, west, group = sides.east, sides.west, sides.group
    assert west.fails("demote", group, status=4)["code"] == "refused_by_state"
    assert west.run("reverse", group)["role"] == "recovery"
    assert east.fails("reverse", group, status=4)["code"] == "refused_by_state"
    assert east.run("restore", group)["role"] == "protected"  # nobody was promoted: nothing to undo
    assert east.fails("set-aside", "drop", group, "none", status=1)["code"] == "unknown_name"
    assert "protected" in west.fails("promote", group, status=4)["message"]
    for _ in range(2):
        assert east.run("demote", group)["role"] == "demoted"
    for _ in range(2):
        assert east.run("promote", group)["role"] == "protected"
    sides.check_live(east)
    sides.write(east, 1, 11)
    east.run("demote", group)
    assert "not synced" in west.fails("promote", group, status=4)["message"]
    sides.sync(east, moved=1)
    for _ in range(2):
        sides.promote(west)
    for _ in range(2):
        assert east.run("reverse", group)["role"] == "recovery"
    west.kill()
    west.start()
    sides.pair.wait_connected()
    sides.write(west, 9, 99)
    sides.sync(west, moved=1)


def test_a_demote_with_consent_lets_a_reverse_set_aside(sides: Sides) -> None:
    """[16] What SRM asks after a disaster: prepare the old side, reverse, and nothing is lost without a name."""
    east, west, group = sides.east, sides.west, sides.group
    sides.part_ways()
    east.run("demote", group)
    assert east.fails("reverse", group, status=4)["code"] == "would_discard"
    east.run("demote", group, "--consent")
    done = west.run("reverse", group)  # asked at the new side: the old one gives way
    assert done["set_aside_blocks"] == len(sides.pair.volumes)
    sides.sync(west, moved=2)


def _restart(side: Daemon) -> None:
    side.kill()
    side.start()
