"""What does not follow the size of a volume: the way back after a disaster, and a promotion."""

from __future__ import annotations

import json
import random
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from rig.daemon import Daemon
from rig.nbd import NbdClient
from rig.pair import Pair

BLOCK = 4096
MIB = 1 << 20
TIB = 1 << 40
LAYERS = 20
MOST_S = 0.5
"""A promotion, until its export serves."""


def test_failback_ships_only_what_differs(tmp_path: Path, seed: int) -> None:
    """8 GiB, 100 blocks changed at one side and 50 at the other after a forced promotion: 2 MiB at most go back."""
    chance = random.Random(seed)
    size = 8192 * MIB
    base = {chance.randrange(size // BLOCK): chance.randbytes(BLOCK) for _ in range(400)}
    lost = {chance.randrange(size // BLOCK): chance.randbytes(BLOCK) for _ in range(100)}
    won = {chance.randrange(size // BLOCK): chance.randbytes(BLOCK) for _ in range(50)}
    with Pair(tmp_path, size="8G") as pair:
        east, west, group = pair.east, pair.west, pair.group
        _write(east, group, base)
        pair.sync()
        _write(east, group, lost)
        east.kill()
        west.run("promote", group, "--force")
        _write(west, group, won)
        east.start()
        pair.wait_connected()
        kept = east.run("reverse", group, "--discard-local-changes", "--yes")
        assert kept["set_aside_blocks"] == len(lost)
        back = west.run("sync", group)
        print(f"failback of 8 GiB: {back['bytes_wire'] / MIB:.2f} MiB on the wire, {back['seconds']:.2f} s")
        assert back["bytes_wire"] <= 2 * MIB
        west.run("demote", group)
        east.run("promote", group)
        west.run("reverse", group)
        expected = {**base, **won}
        with NbdClient(east.exports(group)[0]) as client:
            for block in {*base, *lost, *won}:
                assert client.pread(BLOCK, block * BLOCK) == expected.get(block, bytes(BLOCK)), f"block {block}"


def _write(side: Daemon, group: str, blocks: dict[int, bytes]) -> None:
    with NbdClient(side.exports(group)[0]) as client:
        for block, data in blocks.items():
            client.pwrite(data, block * BLOCK)
        client.flush()


@pytest.mark.parametrize("volumes", [1, pytest.param(16, marks=pytest.mark.slow)])
def test_a_promotion_of_tebibytes_under_layers_takes_no_time(tmp_path: Path, volumes: int) -> None:
    """Each volume 1 TiB, sparse, under 20 layers; a host reads the newest layer's data as soon as it is told."""
    with Pair(tmp_path, size="1T", volumes=volumes, keep=LAYERS + 4) as pair:
        for layer in range(1, LAYERS + 2):
            for uri in pair.exports():
                with NbdClient(uri) as client:
                    client.pwrite(bytes([layer]) * BLOCK, 0)
                    client.pwrite(bytes([layer]) * BLOCK, layer * (TIB // 32))
            pair.sync()
        pair.east.kill()
        began = time.monotonic()
        done = pair.west.run("promote", pair.group, "--force")
        seconds = time.monotonic() - began
        job = next(job for job in pair.west.run("jobs") if job["id"] == done["operation"])
        inside = (_at(job["finished_at"]) - _at(job["created_at"])).total_seconds()
        for uri in pair.west.exports(pair.group):
            with NbdClient(uri) as client:
                assert client.pread(BLOCK, 0) == bytes([LAYERS + 1]) * BLOCK
                assert client.pread(BLOCK, 5 * (TIB // 32)) == bytes([5]) * BLOCK
        print(f"promotion of {volumes} x 1 TiB under {LAYERS} layers: {inside:.3f} s, {seconds:.3f} s with the command")
        assert inside < MOST_S


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


PAUSE_S = 0.005
"""What captures of a group of 16 may add to the slowest hundredth of a host's writes."""


@pytest.mark.slow
def test_captures_of_sixteen_volumes_hardly_delay_writes(tmp_path: Path) -> None:
    """fio at depth 16, without syncs and with syncs one after the other."""
    with Pair(tmp_path, size="64M", volumes=16) as pair:
        pair.sync()
        alone = _p99_s(_fio(pair.exports()[0]))
        running = _fio(pair.exports()[0])
        syncs = 0
        while running.poll() is None:
            for uri in pair.exports()[1:]:
                with NbdClient(uri) as client:
                    client.pwrite(bytes([syncs % 255]) * BLOCK, 0)
            pair.sync()
            syncs += 1
        beside = _p99_s(running)
        print(f"p99 of writes: {alone * 1e3:.2f} ms alone, {beside * 1e3:.2f} ms beside {syncs} captures of 16 volumes")
        assert syncs >= 5
        assert beside - alone < PAUSE_S


def _fio(uri: str) -> subprocess.Popen[str]:
    words = ["fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k", "--iodepth=16"]
    words += ["--size=64M", "--time_based", "--runtime=10", "--rate_iops=2000", "--output-format=json"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _p99_s(running: subprocess.Popen[str]) -> float:
    out, _ = running.communicate(timeout=120)
    found = json.loads(out[out.index("{") :])["jobs"][0]
    assert found["error"] == 0
    return float(found["write"]["clat_ns"]["percentile"]["99.000000"]) / 1e9
