"""Test copies: several at once, of different points, written, reset, limited in time, and quick to delete."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

MIB = 1 << 20


def copies(pair: Pair) -> dict[str, dict[str, Any]]:
    return {doc["name"]: doc for doc in pair.west.run("snapshot", "list")}


def overlays(pair: Pair) -> list[Path]:
    """The files of overlays that are there."""
    return [path for ending in ("data", "pmap") for path in (pair.west.data / "volumes").glob(f"*/layers/*.{ending}")]


def create(pair: Pair, name: str, *words: str) -> list[str]:
    made = pair.west.run("snapshot", "create", pair.group, "--name", name, *words)
    return [volume["export"] for volume in made["volumes"]]


def three_points(pair: Pair, client: NbdClient) -> None:
    for number in (b"1", b"2", b"3"):
        client.pwrite(number * MIB, 0)
        pair.sync()


def test_copies_of_different_points_are_written_side_by_side_while_syncs_and_folds_go_on(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M", keep=2) as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"1" * MIB, 0)
        pair.sync()
        first = create(pair, "first", "--point", "1")[0]
        client.pwrite(b"2" * MIB, 0)
        pair.sync()
        second = create(pair, "second", "--point", pair.points()[0]["id"].upper())[0]
        again = create(pair, "again", "--point", "2")[0]
        for uri, text in ((first, b"one"), (second, b"two"), (again, b"zwei")):
            with NbdClient(uri) as host:
                host.pwrite(text, 4096)
                host.flush()
        for number in (b"3", b"4", b"5"):
            client.pwrite(number * MIB, 0)
            pair.sync()
        assert [point["sequence"] for point in pair.points()][-2:] == [2, 1], "pinned points stay beyond --keep"
        pair.west.restart()
        for uri, text, below in ((first, b"one", b"1"), (second, b"two", b"2"), (again, b"zwei", b"2")):
            with NbdClient(uri) as host:
                assert host.pread(len(text) + 1, 4096) == text + below
        assert {name: doc["point"]["sequence"] for name, doc in copies(pair).items()} == {
            "first": 1,
            "second": 2,
            "again": 2,
        }
        assert [doc["name"] for doc in pair.west.run("status")["snapshots"]] == ["first", "second", "again"]
        assert all(doc["bytes"] >= 4096 and doc["expires_at"] is None for doc in copies(pair).values())
        for name in ("first", "second", "again"):
            pair.west.run("snapshot", "delete", pair.group, name)
        until(lambda: len(pair.points()) == 2, "what they held is folded away")
        until(lambda: overlays(pair) == [], "their files are gone")


def test_a_reset_shows_the_point_again_and_takes_its_hosts_off_first(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M", volumes=2) as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"1" * MIB, 0)
        pair.sync()
        uris = create(pair, "drill", "--for", "4h")
        before = copies(pair)["drill"]
        with NbdClient(uris[0]) as host, NbdClient(uris[1]) as other:
            host.pwrite(b"test", 4094)
            other.pwrite(b"test", 0)
            host.flush()
            done = pair.west.run("snapshot", "reset", pair.group, "drill")
            with pytest.raises((OSError, EOFError)):
                host.pread(4, 4094)
        assert {**done, "bytes": 0} == {**before, "bytes": 0}
        for _ in range(2):
            with NbdClient(uris[0]) as host, NbdClient(uris[1]) as other:
                assert host.pread(4, 4094) == b"1111"
                assert other.pread(4, 0) == bytes(4)
                host.pwrite(b"more", 4094)
            pair.west.run("snapshot", "reset", pair.group, "drill")
        until(lambda: len(overlays(pair)) == 4, "two files of each of two volumes are left")
        pair.west.restart()
        with NbdClient(uris[0]) as host:
            assert host.pread(4, 4094) == b"1111"


@pytest.mark.parametrize("files", [4, 5, 7, 8])
def test_a_kill_in_the_middle_of_a_reset_leaves_the_point_or_what_was_written(tmp_path: Path, files: int) -> None:
    """The daemon is killed as soon as so many files of old and new overlays are there, or the reset is over."""
    with Pair(tmp_path, size="16M", volumes=2) as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"1" * MIB, 0)
        pair.sync()
        uris = create(pair, "drill")
        for uri in uris:
            with NbdClient(uri) as host:
                host.pwrite(b"test", 4096)
                host.flush()
        running = pair.west.spawn("snapshot", "reset", pair.group, "drill")
        until(lambda: len(overlays(pair)) >= files or running.poll() is not None, "it is under way")
        pair.west.kill()
        running.communicate(timeout=60)
        pair.west.start()
        found = []
        for uri, below in zip(uris, (b"1111", bytes(4)), strict=True):
            with NbdClient(uri) as host:
                found.append(host.pread(4, 4096) == below)
                host.pwrite(b"more", 4096)
        assert found in ([True, True], [False, False]), "all volumes of the copy or none"
        pair.west.run("snapshot", "reset", pair.group, "drill")
        with NbdClient(uris[0]) as host:
            assert host.pread(4, 4096) == b"1111"
        until(lambda: len(overlays(pair)) == 4, "nothing of a reset is left over")


def test_a_copy_goes_by_itself_when_its_time_is_over_also_while_the_daemon_is_down(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M", keep=1) as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"1" * MIB, 0)
        pair.sync()
        create(pair, "stays", "--for", "1d")
        uri = create(pair, "short", "--for", "1s")[0]
        with NbdClient(uri) as host:
            until(lambda: "short" not in copies(pair), "it is gone")
            with pytest.raises((OSError, EOFError)):
                host.pread(4, 0)
        create(pair, "short", "--for", "1s")
        over = datetime.fromisoformat(copies(pair)["short"]["expires_at"]) if "short" in copies(pair) else None
        pair.west.kill()
        until(lambda: over is None or datetime.now(UTC) > over, "its time is over while the daemon is down")
        pair.west.start()
        assert list(copies(pair)) == ["stays"]
        told = [event for event in pair.west.events() if event["code"] == "snapshot_expired"]
        assert len(told) == 2
        assert all("short" in event["message"] for event in told)
        until(lambda: len(overlays(pair)) == 2, "only the files of the other one are left")


def test_a_large_copy_is_deleted_at_once_and_its_name_is_free(tmp_path: Path) -> None:
    """Its files go later: the caller is not kept, and can make the next one of the same name meanwhile."""
    with Pair(tmp_path, size="1G", volumes=1) as pair:
        pair.sync()
        with NbdClient(create(pair, "big")[0]) as host:
            for at in range(0, 512 * MIB, 2 * MIB):
                host.pwrite(b"x" * MIB, at)
            host.flush()
        assert copies(pair)["big"]["bytes"] >= 256 * MIB
        began = time.monotonic()
        pair.west.run("snapshot", "delete", pair.group, "big")
        took = time.monotonic() - began
        create(pair, "big")
        print(f"an overlay of 256 MiB in 256 extents is deleted in {took:.2f} s for the caller")
        assert took < 2
        until(lambda: len(overlays(pair)) == 2, "the files of the first are gone")


def test_a_copy_that_cannot_be_opened_is_down_alone_and_a_reset_brings_it_back(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"1" * MIB, 0)
        pair.sync()
        uri = create(pair, "drill")[0]
        pair.west.kill()
        for path in overlays(pair):
            if path.suffix == ".data":
                path.unlink()
        pair.west.start()
        assert copies(pair)["drill"]["state"] == "failed"
        assert "missing" in copies(pair)["drill"]["reason"]
        assert "layer_damaged" in [event["code"] for event in pair.west.events()]
        client.pwrite(b"2" * MIB, 0)
        pair.sync()
        pair.west.run("snapshot", "reset", pair.group, "drill")
        with NbdClient(uri) as host:
            assert host.pread(4, 0) == b"1111"


def test_what_is_asked_wrongly_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        assert pair.west.fails("snapshot", "create", pair.group, status=4)["code"] == "refused_by_state"
        pair.sync()
        create(pair, "drill")
        wrong = [
            (["create", pair.group, "--point", "7"], 1, "unknown_name"),
            (["create", pair.group, "--point", "ab" * 16], 1, "unknown_name"),
            (["create", pair.group, "--name", "a@b"], 2, "bad_value"),
            (["create", pair.group, "--name", ""], 2, "bad_value"),
            (["create", pair.group, "--name", "drill"], 4, "name_taken"),
            (["create", pair.group, "--for", "0s"], 2, "usage"),
            (["create", pair.group, "--for", "soon"], 2, "usage"),
            (["create", pair.group, "--for", "4000d"], 2, "bad_value"),
            (["create", "none"], 1, "unknown_name"),
            (["reset", pair.group, "none"], 1, "unknown_name"),
            (["reset", pair.group], 2, "usage"),
            (["delete", pair.group, "none"], 1, "unknown_name"),
        ]
        for words, status, code in wrong:
            error = pair.west.fails("snapshot", *words, status=status)
            assert error["code"] == code, words
            assert error["remedy"], words
            assert "\n" not in error["message"], words
        assert list(copies(pair)) == ["drill"]


def test_a_group_is_removed_right_after_its_last_copy(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        create(pair, "drill")
        assert pair.west.fails("group", "remove", pair.group, status=4)["code"] == "refused_by_state"
        pair.west.run("snapshot", "delete", pair.group, "drill")
        pair.west.run("group", "remove", pair.group)
        assert overlays(pair) == []


def test_copies_asked_for_all_at_once_are_all_there(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair, NbdClient(pair.exports()[0]) as client:
        three_points(pair, client)
        threads = [
            threading.Thread(target=create, args=(pair, f"copy{n}", "--point", str(n % 3 + 1))) for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name, doc in copies(pair).items():
            with NbdClient(doc["volumes"][0]["export"]) as host:
                assert host.pread(1, 0) == str(int(name[-1]) % 3 + 1).encode()
        assert len(copies(pair)) == 6
