"""Role changes meet everything else: set-asides and removal, reopened volumes, promised RPOs, clean stops."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.daemon import Daemon
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

BLOCK = 4096
BLOCKS = 64


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path, volumes=2, size=str(BLOCKS * BLOCK + 512)) as made:
        for block in range(BLOCKS):
            write(made, made.east, block, 1)
        made.sync()
        yield made


def write(pair: Pair, side: Daemon, block: int, value: int) -> None:
    for uri in side.exports(pair.group):
        with NbdClient(uri) as client:
            client.pwrite(bytes([value]) * BLOCK, block * BLOCK)


def shown(uris: list[str], block: int) -> set[int]:
    found = set()
    for uri in uris:
        with NbdClient(uri) as client:
            found.update(bytes(client.pread(BLOCK, block * BLOCK)))
    return found


def point_shows(pair: Pair, side: Daemon, block: int) -> set[int]:
    made = side.run("snapshot", "create", pair.group, "--name", "look")
    try:
        return shown([volume["export"] for volume in made["volumes"]], block)
    finally:
        side.run("snapshot", "delete", pair.group, "look")


def split(pair: Pair) -> None:
    """East wrote block 2, west was promoted and wrote block 3."""
    write(pair, pair.east, 2, 22)
    pair.east.kill()
    pair.west.run("promote", pair.group)
    write(pair, pair.west, 3, 33)
    pair.east.start()
    pair.wait_connected()


def test_dropping_what_a_promotion_wrote_leaves_the_common_point_alone(pair: Pair) -> None:
    write(pair, pair.east, 1, 11)
    pair.sync()  # a point that lies in a layer of its own
    split(pair)
    pair.east.run("restore", pair.group, "--yes")
    (kept,) = pair.west.run("set-aside", "list", pair.group)
    pair.west.run("set-aside", "drop", pair.group, kept["name"])
    assert point_shows(pair, pair.west, 1) == {11}
    left = [path.name for path in pair.west.folder.rglob("*.data")]
    assert left == [], "the overlay that was set aside is gone"
    pair.west.kill()
    pair.west.start()
    pair.wait_connected()
    assert point_shows(pair, pair.west, 1) == {11}


def test_a_group_with_a_set_aside_can_be_removed_or_says_why_not(pair: Pair) -> None:
    split(pair)
    pair.east.run("reverse", pair.group, "--discard-local-changes", "--yes")
    failed = pair.east.fails("group", "remove", pair.group, status=4)
    assert "set-aside" in failed["message"]
    assert pair.east.group(pair.group)["role"] == "recovery"
    (kept,) = pair.east.run("set-aside", "list", pair.group)
    pair.east.run("set-aside", "drop", pair.group, kept["name"])
    pair.east.run("group", "remove", pair.group)


def test_a_volume_reopened_where_it_gave_way_still_says_what_it_changed(pair: Pair) -> None:
    split(pair)
    pair.east.run("reverse", pair.group, "--discard-local-changes", "--yes")
    for volume in pair.volumes:
        pair.east.run("volume", "reopen", volume)
    pair.west.run("sync", pair.group)
    assert (point_shows(pair, pair.east, 2), point_shows(pair, pair.east, 3)) == ({1}, {33})


def test_a_volume_reopened_where_it_was_promoted_shows_what_lies_below(pair: Pair) -> None:
    write(pair, pair.east, 1, 11)
    pair.sync()
    split(pair)
    for volume in pair.volumes:
        pair.west.run("volume", "reopen", volume)
    uris = pair.west.exports(pair.group)
    assert [shown(uris, block) for block in (1, 2, 3)] == [{11}, {1}, {33}]


def test_a_token_from_before_a_clean_stop_is_stale_after_a_write(pair: Pair) -> None:
    split(pair)
    token = pair.east.fails("reverse", pair.group, status=4)["details"]["token"]
    pair.east.terminate()
    pair.east.start()
    pair.wait_connected()
    for value in range(BLOCKS + 1):  # as many writes as before the stop
        write(pair, pair.east, 2, value)
    failed = pair.east.fails("reverse", pair.group, "--discard-local-changes", "--token", token, status=4)
    assert failed["code"] == "token_stale"


def test_a_snapshot_goes_on_when_a_volume_under_it_is_reopened(pair: Pair) -> None:
    with pair.snapshot() as uris:
        with NbdClient(uris[0]) as client:
            client.pwrite(b"\x07" * BLOCK, 0)
        for volume in pair.volumes:
            pair.west.run("volume", "reopen", volume)
        assert (shown(uris[:1], 0), shown(uris, 1)) == ({7}, {1})


def test_what_a_failed_volume_holds_counts_as_changed(pair: Pair) -> None:
    write(pair, pair.east, 2, 22)
    pair.east.kill()
    pair.west.run("promote", pair.group)
    pair.east.start()
    pair.wait_connected()
    pair.east.run("reverse", pair.group, "--discard-local-changes", "--yes")
    pair.east.kill()
    stores = [pair.east.folder / f"{name}.store" for name in pair.volumes]
    for store in stores:
        store.rename(store.with_suffix(".away"))
    pair.east.start()
    pair.wait_connected()
    pair.west.fails("sync", pair.group, status=4)  # not "in sync": east holds writes that nobody can read now
    pair.east.kill()
    for store in stores:
        store.with_suffix(".away").rename(store)
    pair.east.start()
    pair.wait_connected()
    pair.west.run("sync", pair.group)
    assert point_shows(pair, pair.east, 2) == {1}


def test_a_busy_promoted_side_can_be_restored_when_the_operator_has_said_so(pair: Pair) -> None:
    split(pair)
    stop, answered = threading.Event(), 0

    def busy() -> None:
        nonlocal answered
        with contextlib.suppress(OSError, EOFError), NbdClient(pair.west.exports(pair.group)[0]) as client:
            while not stop.is_set():
                client.pwrite(b"\x2c" * BLOCK, answered % BLOCKS * BLOCK)
                answered += 1

    host = threading.Thread(target=busy)
    host.start()
    try:
        until(lambda: answered > 100, "the host is busy")
        done = pair.east.run("restore", pair.group, "--yes")
    finally:
        stop.set()
        host.join(30)
    assert done["role"] == "protected"
    assert done["set_aside_blocks"] > 2, "all that was written by then is kept"
    assert point_shows(pair, pair.west, 3) == {1}
