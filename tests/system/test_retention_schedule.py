"""Which points stay, by count and schedule; what goes from the middle is merged, and nobody reads anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

MIB = 1 << 20
BLOCK = 4096


def sequences(pair: Pair) -> list[int]:
    return [point["sequence"] for point in pair.points()]


def packs(pair: Pair) -> list[Path]:
    return list((pair.west.data / "volumes").glob("*/layers/*.pack"))


class Images:
    """Points of scattered blocks, zeros among them, and what each of them must read as."""

    def __init__(self, pair: Pair, client: NbdClient, size: int, seed: int) -> None:
        self.pair, self.client, self.random = pair, client, random.Random(seed)
        self.now = bytearray(size)
        self.of: dict[int, bytes] = {}

    def point(self) -> int:
        for _ in range(60):
            at = self.random.randrange(len(self.now) // BLOCK) * BLOCK
            length = self.random.choice([BLOCK, 3 * BLOCK]) if at + 3 * BLOCK <= len(self.now) else BLOCK
            if self.random.random() < 0.25:
                self.client.zero(length, at)
                self.now[at : at + length] = bytes(length)
            else:
                data = self.random.randbytes(length)
                self.client.pwrite(data, at)
                self.now[at : at + length] = data
        sequence = int(self.pair.sync()["point"]["sequence"])
        self.of[sequence] = bytes(self.now)
        return sequence

    def check(self) -> None:
        """Every point that is there reads as it was captured."""
        for sequence in sequences(self.pair):
            with self.pair.snapshot(str(sequence), name=f"look{sequence}") as uris, NbdClient(uris[0]) as look:
                assert look.pread(len(self.now), 0) == self.of[sequence], sequence


def test_points_go_from_the_middle_and_every_other_one_reads_as_before(tmp_path: Path, seed: int) -> None:
    with Pair(tmp_path, size="16M", keep=24) as pair, NbdClient(pair.exports()[0]) as client:
        images = Images(pair, client, 16 * MIB, seed)
        for _ in range(7):
            images.point()
        held = pair.west.run("snapshot", "create", pair.group, "--point", "2", "--name", "held")["volumes"][0]["export"]
        with NbdClient(held) as host:
            host.pwrite(b"mine" * 1024, 0)
            pair.west.run("group", "set", pair.group, "--keep", "2")
            until(lambda: len(packs(pair)) == 2, "four layers became one, one was folded, one was left alone")
            assert sequences(pair) == [7, 6, 2]
            assert host.pread(16 * MIB, 0) == b"mine" * 1024 + images.of[2][BLOCK:], "a reader noticed nothing"
        images.check()
        pair.west.restart()
        images.check()
        images.point()
        until(lambda: sequences(pair) == [8, 7, 2], "retention goes on")
        images.check()
        shown = pair.west.group(pair.group)
        listed = pair.points()
        assert shown["points"] == 3
        assert shown["points_bytes"] == sum(point["space_bytes"] for point in listed) > 0
        assert listed[-1]["space_bytes"] == 0, "the oldest point is the store itself"


@pytest.mark.parametrize("files", [6, 5, 4])
def test_a_kill_while_layers_are_merged_costs_nothing(tmp_path: Path, files: int, seed: int) -> None:
    """Killed as soon as so many packs are there: before, while, or after the new one takes the place of the others."""
    with Pair(tmp_path, size="16M", keep=24) as pair, NbdClient(pair.exports()[0]) as client:
        images = Images(pair, client, 16 * MIB, seed)
        for _ in range(6):
            images.point()
        pair.west.run("snapshot", "create", pair.group, "--point", "1", "--name", "held")
        pair.west.run("group", "set", pair.group, "--keep", "1", "--no-wait")
        until(lambda: len(packs(pair)) >= files or sequences(pair) == [6, 1], "it is under way")
        pair.west.kill()
        pair.west.start()
        until(lambda: sequences(pair) == [6, 1] and len(packs(pair)) == 1, "one layer is left above the held point")
        images.check()


def test_a_schedule_of_the_protected_site_is_kept_at_the_recovery_site(tmp_path: Path, seed: int) -> None:
    with Pair(tmp_path, size="16M", keep=1) as pair, NbdClient(pair.exports()[0]) as client:
        pair.east.run("volume", "add", "other", "--store", str(tmp_path / "other"), "--size", "16M")
        words = ["--volume", "other", "--peer", "west", "--keep", "1", "--retain", "weekly:4w"]
        made = pair.east.run("group", "create", "timed", *words)
        assert (made["keep"], made["retain"]) == (1, "weekly:4w")
        until(lambda: "timed" in [group["name"] for group in pair.west.run("group", "list")], "the peer made it too")
        assert pair.west.group("timed")["retain"] == "weekly:4w"
        assert "weekly:4w" in pair.west.text("group", "show", "timed")
        images = Images(pair, client, 16 * MIB, seed)
        pair.west.run("group", "set", pair.group, "--retain", "weekly:4w")
        for _ in range(4):
            images.point()
        until(lambda: sequences(pair) in ([4, 1], [4, 2, 1], [4, 3, 1]), "the first of the week stays, and the newest")
        images.check()
        pair.west.run("group", "set", pair.group, "--retain", "")
        until(lambda: sequences(pair) == [4], "without a schedule the count alone holds")
        images.check()
        assert "POINTS" in pair.west.text("status")


def test_a_wrong_schedule_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        before = pair.west.group(pair.group)
        wrong = [
            (["set", pair.group, "--retain", "yearly:1d"], 2, "bad_value"),
            (["set", pair.group, "--retain", "all:1h,all:2h"], 2, "bad_value"),
            (["set", pair.group, "--retain", "hourly"], 2, "bad_value"),
            (["set", pair.group, "--keep", "0"], 2, "usage"),
            (["set", pair.group, "--keep", "1000000"], 2, "bad_value"),
            (["set", pair.group, "--keep", "3", "--retain", "x"], 2, "bad_value"),
            (["set", pair.group], 2, "bad_value"),
            (["set", "none", "--keep", "3"], 1, "unknown_name"),
        ]
        for words, status, code in wrong:
            error = pair.west.fails("group", *words, status=status)
            assert error["code"] == code, words
            assert "\n" not in error["message"], words
        pair.east.run("volume", "add", "v", "--store", str(tmp_path / "v"), "--size", "1M")
        words = ["create", "g", "--volume", "v", "--peer", "west", "--retain", "never"]
        assert pair.east.fails("group", *words, status=2)["code"] == "bad_value"
        assert pair.west.group(pair.group) == before
