"""Verify: what differs is found while everything goes on, and sent again; what does not differ is never called so."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rig.blocks import Record
from rig.load import Load
from rig.nbd import NbdClient
from rig.pair import Pair

BLOCK = 4096
MIB = 1 << 20
GIB = 1 << 30


def _flip(store: Path, at: int) -> None:
    """One bit of a store changes behind everybody's back."""
    with store.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 0x10]))


def _store(pair: Pair, volume: int = 0) -> Path:
    return Path(pair.west.group(pair.group)["volumes"][volume]["store"])


@pytest.mark.parametrize("size", ["64M", pytest.param("8G", marks=pytest.mark.slow)])
@pytest.mark.parametrize("strong", [False, True], ids=["fast", "strong"])
def test_one_flipped_bit_is_found_and_repaired_by_little(tmp_path: Path, size: str, strong: bool, seed: int) -> None:
    chance = random.Random(seed)
    words = ["--strong"] if strong else []
    with Pair(tmp_path, size=size) as pair:
        with NbdClient(pair.exports()[0]) as client:
            for _ in range(16):
                client.pwrite(chance.randbytes(MIB), chance.randrange(client.size // MIB) * MIB)
        pair.sync()
        clean = pair.east.run("verify", pair.group, *words, timeout_s=280)
        assert (clean["mismatched"], clean["skipped"]) == (0, 0)
        (volume,) = pair.east.group(pair.group)["volumes"]
        assert clean["blocks"] * BLOCK == volume["size"]
        assert volume["verified_at"] is not None
        at = chance.randrange(volume["size"])
        store = _store(pair)
        pair.west.kill()
        _flip(store, at)
        pair.west.start()
        pair.wait_connected()
        found = _differs(pair, *words)
        assert found["mismatched"] == 1
        assert found["differences"] == [{"volume": "data0", "offset": at // BLOCK * BLOCK, "length": BLOCK}]
        before = pair.points()[0]["sequence"]
        mended = pair.east.run("verify", pair.group, "--repair", *words, timeout_s=280)
        print(f"{size}: compared in {mended['seconds']:.1f} s with the repair")
        assert (mended["mismatched"], mended["repaired"]) == (1, 1)
        assert pair.points()[0]["sequence"] == before + 1
        (job,) = [job for job in pair.east.run("jobs") if job["kind"] == "sync"][:1]
        assert job["outcome"]["bytes_sent"] <= BLOCK, "zeros are told, not sent"
        assert job["outcome"]["bytes_wire"] < MIB
        assert pair.east.run("verify", pair.group, timeout_s=280)["mismatched"] == 0


def _differs(pair: Pair, *words: str) -> dict[str, object]:
    """A verify that finds something exits 1, and its document says what."""
    running = pair.east.spawn("verify", pair.group, *words)
    out, err = running.communicate(timeout=280)
    assert running.returncode == 1, out + err
    return dict(json.loads(out))


def test_hosts_and_syncs_that_go_on_are_never_called_a_difference(tmp_path: Path, seed: int) -> None:
    record = Record(2, 16 * MIB // BLOCK)
    with Pair(tmp_path, volumes=2, size="16M") as pair:
        pair.sync()
        with Load(record, pair.exports(), seed=seed, threads=4) as load:
            for _ in range(6):
                load.wait_for(100)
                verifying = pair.east.spawn("verify", pair.group)
                pair.sync()
                found = pair.east.finished(verifying)
                assert found["mismatched"] == 0, found
        pair.sync()
        assert pair.east.run("verify", pair.group)["skipped"] == 0


def test_it_says_why_it_cannot(tmp_path: Path) -> None:
    with Pair(tmp_path, size="1M") as pair:
        assert pair.east.fails("verify", "nope", status=1)["code"] == "unknown_name"
        assert pair.east.fails("verify", pair.group, status=4)["code"] == "refused_by_state"
        pair.sync()
        assert pair.west.fails("verify", pair.group, status=4)["code"] == "refused_by_state"
        pair.west.kill()
        assert pair.east.fails("verify", pair.group, status=1)["code"] == "peer_unreachable"
