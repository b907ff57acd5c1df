"""A recovery site whose disk fills in the middle of a sync: at each stage one clear failure, and nothing is lost by it.

The disks are small tmpfs mounts that a test fills to the page, so that the write that finds no space is the one meant.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rig.loop import SmallDisk, run, small_disk
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

MIB = 1 << 20
PAGE = 4096
SIZE = 16 * MIB
CHANGE = 2 * MIB


@contextmanager
def pair_on(folder: Path, place: str, size_bytes: int, *, keep: int = 24) -> Iterator[tuple[Pair, SmallDisk]]:
    """A pair whose recovery site has the folder `place` of its data directory on a small disk of its own."""
    with Pair(folder, size="16M", keep=keep) as pair:
        pair.west.terminate()
        home, aside = pair.west.data / place, folder / "aside"
        home.rename(aside)
        with small_disk(home, size_bytes) as disk:
            run("cp", "--archive", "--sparse=always", f"{aside}/.", home)
            try:
                pair.west.start()
                pair.wait_connected()
                yield pair, disk
            finally:
                pair.west.kill()  # so that the disk can be unmounted


def _change(pair: Pair, chance: random.Random, expected: bytearray, length: int = CHANGE) -> None:
    """Write noise over the first `length` bytes: every sync of it makes a pack of the same length."""
    expected[:length] = data = chance.randbytes(length)
    with NbdClient(pair.exports()[0]) as client:
        client.pwrite(data, 0)


def _fails_for_space(pair: Pair, *causes: str) -> dict[str, Any]:
    """The sync fails for want of space over there; the remedy says to make some. The number of points is the same."""
    before = pair.points()
    error = pair.east.fails("sync", pair.group, status=4)
    assert error["code"] == "peer_refused"
    assert error["details"]["cause"] in causes, error
    assert "space" in error["remedy"].lower()
    assert pair.points() == before
    return error


def _shows(pair: Pair, expected: bytes | bytearray) -> None:
    with pair.snapshot() as exports, NbdClient(exports[0]) as look:
        assert look.pread(SIZE, 0) == expected


def _told(pair: Pair, words: str) -> bool:
    return any(words in event["message"] for event in pair.west.events())


def _pack_bytes(pair: Pair) -> int:
    """The length of the newest pack at the recovery site."""
    packs = (pair.west.data / "volumes").glob("*/layers/*.pack")
    return max(packs, key=lambda path: path.stat().st_mtime_ns).stat().st_size


STAGES = {
    "making the pack": 0,
    "receiving": CHANGE // 2,
    "sealing": -PAGE,
}
"""Bytes that are free when the sync begins; a negative number: of the finished pack so many are missing."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_during_a_sync_costs_that_sync_and_the_next_one_completes(
    tmp_path: Path, seed: int, stage: str
) -> None:
    chance, expected = random.Random(seed), bytearray(SIZE)
    with pair_on(tmp_path, "volumes", 64 * MIB) as (pair, disk):
        pair.sync()
        _change(pair, chance, expected)
        pair.sync()
        old, free = bytes(expected), STAGES[stage]
        _change(pair, chance, expected)
        disk.leave(free if free >= 0 else _pack_bytes(pair) + free)
        error = _fails_for_space(pair, "layer_space")
        assert "Free space in the data directory" in error["remedy"]
        assert _told(pair, "Receiving a sync") == (stage == "receiving"), "else a question of the peer is answered so"
        _fails_for_space(pair, "layer_space")
        pair.west.restart()
        pair.wait_connected()
        disk.make_room()
        _shows(pair, old)
        done = pair.sync()
        assert done["point"]["sequence"] == 3
        if stage == "sealing":
            assert done["bytes_sent"] == 0, "it resumes from what has landed: all of it"
        _shows(pair, expected)


def test_the_point_before_a_full_disk_is_promoted_once_there_is_room_for_its_top(tmp_path: Path, seed: int) -> None:
    chance, expected = random.Random(seed), bytearray(SIZE)
    with pair_on(tmp_path, "volumes", 64 * MIB) as (pair, disk):
        pair.sync()
        _change(pair, chance, expected)
        pair.sync()
        old = bytes(expected)
        _change(pair, chance, expected)
        disk.leave(_pack_bytes(pair) - PAGE)
        _fails_for_space(pair, "layer_space")
        pair.east.kill()
        disk.make_room()
        disk.leave(MIB)
        assert pair.west.run("promote", pair.group, "--force", "--yes")["role"] == "protected"
        with NbdClient(pair.west.exports(pair.group)[0]) as client:
            assert client.pread(SIZE, 0) == old
            client.pwrite(b"x" * PAGE, 0, fua=True)


def test_a_store_that_has_no_room_for_the_first_copy_gets_it_once_there_is(tmp_path: Path, seed: int) -> None:
    chance, expected = random.Random(seed), bytearray(SIZE)
    with pair_on(tmp_path, "stores", 32 * MIB) as (pair, disk):
        _change(pair, chance, expected, 12 * MIB)
        disk.leave(6 * MIB)
        _fails_for_space(pair, "layer_space")
        error = pair.west.fails("promote", pair.group, "--force", "--yes", status=4)
        assert "first copy" in error["message"]
        disk.make_room()
        assert pair.sync()["point"]["sequence"] == 1
        _shows(pair, expected)


def test_a_first_copy_completes_wherever_the_folder_of_its_journal_and_hashes_was_full(
    tmp_path: Path, seed: int
) -> None:
    """One page more in each try, until there is room for all: the journal, then the hashes find none."""
    chance, expected = random.Random(seed), bytearray(SIZE)
    with pair_on(tmp_path, "volumes", 32 * MIB) as (pair, disk):
        _change(pair, chance, expected, 12 * MIB)
        disk.leave(0)
        found = [_fails_for_space(pair, "layer_space")["message"]]
        for _ in range(64):
            disk.make_room()
            disk.leave(len(found) * PAGE)
            command = pair.east.spawn("sync", pair.group)
            if command.wait(120) == 0:
                break
            found.append(_fails_for_space(pair, "layer_space")["message"])
        assert any(".seed" in message for message in found)
        assert any("/hashes" in message for message in found)
        (point,) = pair.points()
        assert (point["sequence"], point["bytes"]) == (1, 12 * MIB)
        disk.make_room()
        _shows(pair, expected)


def test_a_store_that_has_no_room_for_a_fold_keeps_every_point_until_there_is(tmp_path: Path, seed: int) -> None:
    chance, expected = random.Random(seed), bytearray(SIZE)
    with pair_on(tmp_path, "stores", 32 * MIB, keep=2) as (pair, disk):
        pair.sync()
        disk.leave(CHANGE // 2)
        for _ in range(3):
            _change(pair, chance, expected)
            pair.sync()
        until(lambda: _told(pair, "Letting old points"), "the fold was tried")
        _shows(pair, expected)
        disk.make_room()
        _change(pair, chance, expected)
        pair.sync()
        until(lambda: len(pair.points()) == 2, "older points are folded")
        _shows(pair, expected)


def test_a_full_data_directory_stops_a_sync_between_any_two_steps_and_the_reserve_lets_it_be_told(
    tmp_path: Path, seed: int
) -> None:
    """Pack and records grow on one full disk: it is full for the pack, then for the records, then just large enough."""
    chance, expected, seen = random.Random(seed), bytearray(SIZE), set[str]()
    store = tmp_path / "prepared.img"
    store.write_bytes(bytes(SIZE))
    with (
        small_disk(tmp_path / "west" / "data", 128 * MIB) as disk,
        Pair(tmp_path, size="16M", keep=99, recovery_stores=[store]) as pair,
    ):
        pair.sync()
        _change(pair, chance, expected)
        pair.sync()
        for left in (0, 8, 11, 24):
            old, before = bytes(expected), pair.points()
            _change(pair, chance, expected)
            pair.west.restart()  # the log of the records is empty again: every commit needs new pages of the disk
            pair.wait_connected()
            disk.leave(_pack_bytes(pair) + left * PAGE)
            command = pair.east.spawn("sync", pair.group)
            out, _ = command.communicate(timeout=120)
            code = "done" if command.returncode == 0 else json.loads(out)["error"]["details"]["cause"]
            seen.add(code)
            if code == "metadata_space":
                assert pair.points() == before
                assert not (pair.west.data / "ballast").exists(), "the reserve is used up now, for what comes next"
                assert pair.sync()["point"]["sequence"] == before[0]["sequence"] + 1
            disk.make_room()
            if code == "layer_space":
                assert pair.points() == before
                _shows(pair, old)
                pair.sync()
            _shows(pair, expected)
        assert seen == {"layer_space", "metadata_space", "done"}
