"""Sparse volumes: a first copy costs what the data costs, however large the holes are."""

from __future__ import annotations

import os
import random
from pathlib import Path

from rig.nbd import NbdClient
from rig.pair import Pair

MIB = 1 << 20
TIB = 1 << 40


def test_a_sparse_tebibyte_is_copied_in_seconds_and_stays_sparse(tmp_path: Path, seed: int) -> None:
    """A few MiB of data far apart, some in the short last block, and a host that writes into holes meanwhile."""
    size = TIB + 1536
    chance = random.Random(seed)
    pieces = {0: b"first", size - 1000: b"z" * 1000}
    pieces |= {
        chance.randrange(1, TIB // MIB) * MIB + chance.randrange(4096): chance.randbytes(MIB // 2) for _ in range(8)
    }
    with (tmp_path / "big.img").open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            os.pwrite(file.fileno(), data, offset)
    with Pair(tmp_path, stores=[tmp_path / "big.img"]) as pair, NbdClient(pair.exports()[0]) as client:
        syncing = pair.east.spawn("sync", pair.group)
        written = {chance.randrange(1, TIB // MIB) * MIB + MIB // 2: chance.randbytes(12_000) for _ in range(200)}
        for offset, data in written.items():
            client.pwrite(data, offset)
        done = pair.east.finished(syncing)
        assert done["seconds"] < 60
        assert done["bytes_wire"] < 60 * MIB
        pair.sync()
        store = Path(pair.west.group(pair.group)["volumes"][0]["store"])
        assert store.stat().st_blocks * 512 < 60 * MIB, "the copy is not sparse"
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.size == size
            for offset, data in {**pieces, **written}.items():
                assert look.pread(len(data), offset) == data
            for _ in range(50):
                hole = chance.randrange(1, TIB // MIB) * MIB + 3 * MIB // 4
                assert look.pread(4096, hole) == bytes(4096)
        for path in tmp_path.glob("*/data/volumes/*/hashes"):
            assert path.stat().st_blocks * 512 < 16 * MIB, "the table of hashes is not sparse"
