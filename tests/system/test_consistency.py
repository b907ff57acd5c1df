"""Points under load: each sealed point is the image of one instant across all volumes of its group."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rig.blocks import BLOCK, Record
from rig.load import Load
from rig.nbd import NbdClient
from rig.pair import Pair

SYNCS = 12


def check_point(pair: Pair, record: Record, point: str, after: int, before: int) -> tuple[int, int]:
    """Every block of every volume of a snapshot of the point fits one instant between `after` and `before`."""
    with pair.snapshot(point) as exports:
        clients = [NbdClient(uri) for uri in exports]
        try:
            readers = [lambda offset, length, c=client: c.pread(length, offset) for client in clients]
            found = record.instant(readers, after=after, before=before)
        finally:
            for client in clients:
                client.close()
    return found.after, found.before


@pytest.mark.parametrize("volumes", [1, 3])
def test_every_point_sealed_under_load_is_one_instant_of_the_whole_group(
    tmp_path: Path, volumes: int, pytestconfig: pytest.Config
) -> None:
    seed = int(pytestconfig.getoption("--seed"))
    blocks = (16 << 20) // BLOCK
    record = Record(volumes, blocks)
    with Pair(tmp_path, volumes=volumes, size="16M", keep=SYNCS + 2) as pair:
        asked: list[tuple[str, int, int]] = []
        with Load(record, pair.exports(), seed=seed, threads=4) as load:
            for _ in range(SYNCS):
                load.wait_for(150)
                after = record.now()
                done = pair.sync()
                asked.append((done["point"]["id"], after, record.now()))
        for point, after, before in asked:
            check_point(pair, record, point, after, before)
        assert load.writes > SYNCS * 100


def test_fio_verifies_its_writes_at_depth_16_while_syncs_run_back_to_back(tmp_path: Path) -> None:
    with Pair(tmp_path, size="256M") as pair:
        fio = subprocess.Popen(
            [
                "fio", "--name=job", "--ioengine=nbd", f"--uri={pair.exports()[0]}", "--rw=randwrite", "--bs=4k",
                "--verify_state_save=0",
                "--iodepth=16", "--size=256M", "--io_size=96M", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
                "--randrepeat=1", "--end_fsync=1", "--output-format=terse",
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        syncs = 0
        while fio.poll() is None:
            pair.sync()
            syncs += 1
        assert fio.returncode == 0, fio.communicate()[0]
        pair.sync()
        with pair.snapshot() as exports:
            compared = subprocess.run(
                ["qemu-img", "compare", "-f", "raw", "-F", "raw", exports[0], pair.exports()[0]],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert compared.returncode == 0, compared.stdout + compared.stderr
        assert syncs >= 2
