"""A store that was prepared at the recovery site and is larger than the volume: the volume's part is the copy."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.daemon import Daemon
from rig.loop import loop_device
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

MIB = 1 << 20
BLOCK = 4096
SIZE = 9 * MIB + 1536
"""No multiple of a block, nor of a region: the volume ends in the middle of both."""


@contextlib.contextmanager
def prepared(folder: Path, kind: str, extra: int, chance: random.Random) -> Iterator[tuple[Path, bytes]]:
    """A store of SIZE + extra bytes, full of what somebody left there; it and what lies behind the volume's part."""
    left = chance.randbytes(SIZE + extra)
    file = folder / "prepared.img"
    file.write_bytes(left)
    if kind == "file":
        yield file, left[SIZE:]
        return
    with loop_device(file, sector_bytes=512) as device:
        yield device, left[SIZE:]


def _read(path: Path, length: int, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


@pytest.mark.parametrize(("kind", "extra"), [("file", 1), ("file", 5 * MIB + 777), ("device", 3 * 512)])
def test_a_larger_prepared_store_holds_the_volume_and_keeps_what_lies_behind_it(
    tmp_path: Path, seed: int, kind: str, extra: int
) -> None:
    chance = random.Random(seed)
    expected = bytearray(SIZE)

    def change(client: NbdClient, offset: int, length: int) -> None:
        expected[offset : offset + length] = data = chance.randbytes(length)
        client.pwrite(data, offset)

    with (
        prepared(tmp_path, kind, extra, chance) as (store, behind),
        Pair(tmp_path, size=str(SIZE), keep=1, recovery_stores=[store]) as pair,
    ):
        with NbdClient(pair.exports()[0]) as client:
            change(client, MIB, 3 * MIB)
            change(client, SIZE - 2000, 2000)
            assert pair.sync()["point"]["sequence"] == 1
            assert _read(store, SIZE, 0) == expected, "the first copy lies in the store itself, from its first byte"
            for number in range(3):  # packs that are folded into the store: data to the last byte, then a discard
                change(client, SIZE - 700 - number, 600)
                client.trim(BLOCK * 8, MIB + number * MIB)
                expected[MIB + number * MIB : MIB + number * MIB + BLOCK * 8] = bytes(BLOCK * 8)
                pair.sync()
        (shown,) = pair.west.run("volume", "list")
        assert shown["size"] == SIZE
        until(lambda: len(pair.points()) == 1, "older points are folded")
        pair.west.restart()
        pair.wait_connected()
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.size == SIZE
            assert look.pread(SIZE, 0) == expected
        pair.east.kill()
        pair.west.run("promote", pair.group, "--force", "--yes")
        with NbdClient(pair.west.exports(pair.group)[0]) as client:
            assert (client.size, client.pread(SIZE, 0)) == (SIZE, expected)
            change(client, SIZE - 5000, 5000)
            assert client.pread(SIZE, 0) == expected
        pair.west.terminate()
        assert _read(store, extra, SIZE) == behind, "nothing behind the volume was touched"


def test_a_prepared_store_that_is_too_small_is_refused_and_left_alone(tmp_path: Path) -> None:
    with Daemon(tmp_path / "east", "east") as east, Daemon(tmp_path / "west", "west") as west:
        small = tmp_path / "small"
        small.write_bytes(b"last year" * 1000)
        west.run("volume", "add", "data0", "--store", str(small), "--recovery")
        east.run("peer", "add", "west", "--address", west.listen, "--fingerprint", west.fingerprint)
        west.run("peer", "add", "east", "--address", east.listen, "--fingerprint", east.fingerprint)
        east.run("volume", "add", "data0", "--store", str(tmp_path / "s"), "--size", "9001")
        east.run("group", "create", "g", "--volume", "data0", "--peer", "west")
        error = east.fails("sync", "g", status=4)
        assert error["details"]["cause"] == "store_too_small"
        assert small.read_bytes() == b"last year" * 1000
        assert west.run("group", "list") == []
        east.run("group", "remove", "g")
        east.run("volume", "remove", "data0")
        east.run("volume", "add", "data0", "--store", str(tmp_path / "s2"), "--size", "9000")
        east.run("group", "create", "g", "--volume", "data0", "--peer", "west")
        assert east.run("sync", "g")["point"]["sequence"] == 1
