"""What a role change set aside can be read, byte for byte as it was, whatever replication does meanwhile.

Both kinds: the image of an old protected side, which stands in its store; and the writes of a promoted side, which
lie in a layer over the common point.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rig.daemon import Daemon
from rig.nbd import NbdClient, NbdError
from rig.pair import Pair
from rig.sides import BLOCK, BLOCKS, SIZE, Sides


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    with Pair(tmp_path, volumes=2, size=str(SIZE), keep=2) as pair:
        yield Sides(pair)


def image(blocks: dict[int, int]) -> bytes:
    return b"".join(bytes([blocks[block]]) * BLOCK for block in range(BLOCKS))


def shown(doc: dict[str, Any]) -> set[bytes]:
    """What the exports of a set-aside show; one value if all volumes show the same."""
    found = set()
    for volume in doc["volumes"]:
        with NbdClient(volume["export"]) as client:
            found.add(bytes(client.pread(BLOCKS * BLOCK, 0)))
    return found


def only(side: Daemon, group: str) -> dict[str, Any]:
    (kept,) = side.run("set-aside", "list", group)
    assert isinstance(kept, dict)
    return kept


def restart(sides: Sides, side: Daemon) -> None:
    side.kill()
    side.start()
    sides.pair.wait_connected()


def test_the_image_of_an_old_side_stays_readable_through_syncs_restarts_and_a_failback(sides: Sides) -> None:
    sides.part_ways()
    lost = image(sides.expected["east"])
    east, west, group = sides.east, sides.west, sides.group
    east.run("reverse", group, "--discard-local-changes", "--yes")
    exported = east.run("set-aside", "export", group, "aside-1")
    assert shown(exported) == {lost}
    for turn in range(4):  # more than are kept: nothing may be folded into the store
        sides.write(west, 30 + turn, 30 + turn)
        sides.sync(west, moved=None)
    assert shown(only(east, group)) == {lost}
    restart(sides, east)
    assert shown(only(east, group)) == {lost}
    west.run("demote", group)
    sides.sync(west, moved=None)
    sides.promote(east)
    sides.write(east, 5, 55)
    assert shown(only(east, group)) == {lost}
    sides.check_live(east)


def test_the_writes_of_a_promoted_side_are_read_over_their_point(sides: Sides) -> None:
    sides.write(sides.east, 9, 99)
    sides.sync(sides.east, moved=1)
    sides.part_ways()
    lost = image(sides.expected["west"])
    east, west, group = sides.east, sides.west, sides.group
    east.run("restore", group, "--yes")
    sides.expected["west"] = {}
    assert only(west, group)["volumes"] == []
    assert shown(west.run("set-aside", "export", group, "aside-1")) == {lost}
    for turn in range(4):
        sides.write(east, 30 + turn, 30 + turn)
        sides.sync(east, moved=None)
    assert shown(only(west, group)) == {lost}
    restart(sides, west)
    assert shown(only(west, group)) == {lost}
    copy = west.run("snapshot", "create", group, "--name", "aside-1")  # the name of another kind of export
    assert {volume["export"] for volume in copy["volumes"]}.isdisjoint(
        v["export"] for v in only(west, group)["volumes"]
    )
    west.run("snapshot", "delete", group, "aside-1")
    west.run("set-aside", "drop", group, "aside-1")
    assert [export["kind"] for export in west.run("export", "list")] == []
    sides.check_point(west)


def test_nobody_writes_to_a_set_aside(sides: Sides) -> None:
    sides.part_ways()
    east, group = sides.east, sides.group
    east.run("reverse", group, "--discard-local-changes", "--yes")
    exported = east.run("set-aside", "export", group, "aside-1")
    listed = east.run("export", "list")
    assert [(export["kind"], export["read_only"]) for export in listed] == [("set-aside", True)] * 2
    assert {export["uri"] for export in listed} == {volume["export"] for volume in exported["volumes"]}
    assert len({export["wwn"] for export in listed}) == 2
    uri = exported["volumes"][0]["export"]
    said = subprocess.run(["nbdinfo", "--is", "read-only", uri], check=False)
    assert said.returncode == 0
    with NbdClient(uri) as client, pytest.raises(NbdError):
        client.pwrite(b"\x07" * BLOCK, 0)
    assert shown(exported) == {image(sides.expected["east"])}


def test_export_unexport_and_drop_can_be_repeated_and_name_what_they_do_not_know(sides: Sides) -> None:
    sides.part_ways()
    east, west, group = sides.east, sides.west, sides.group
    east.run("reverse", group, "--discard-local-changes", "--yes")
    for words in (("export", "nothing"), ("unexport", "nothing"), ("drop", "nothing")):
        refused = east.fails("set-aside", words[0], group, words[1], status=1)
        assert refused["code"] == "unknown_name"
    assert west.fails("set-aside", "export", group, "aside-1", status=1)["code"] == "unknown_name"
    first = east.run("set-aside", "export", group, "aside-1")
    assert east.run("set-aside", "export", group, "aside-1") == first
    refused = east.fails("group", "remove", group, status=4)
    assert "set-aside aside-1" in refused["message"]
    assert shown(first) == {image(sides.expected["east"])}
    for _ in range(2):
        assert east.run("set-aside", "unexport", group, "aside-1")["volumes"] == []
        assert east.run("export", "list") == []
    restart(sides, east)
    assert east.run("export", "list") == [], "what was unexported stays so"
    east.run("set-aside", "export", group, "aside-1")
    east.run("set-aside", "drop", group, "aside-1")
    assert east.run("export", "list") == east.run("set-aside", "list", group) == []


def test_a_reopened_volume_shows_its_set_aside_again(sides: Sides) -> None:
    sides.part_ways()
    lost = image(sides.expected["east"])
    east, group = sides.east, sides.group
    east.run("reverse", group, "--discard-local-changes", "--yes")
    east.run("set-aside", "export", group, "aside-1")
    for volume in sides.pair.volumes:
        east.run("volume", "reopen", volume)
    assert shown(only(east, group)) == {lost}
