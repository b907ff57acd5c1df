"""1 % of 2 GiB changed in scattered 4 KiB blocks: what an increment costs, against rsync's delta in place."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.compare import rsync
from benchmarks.conductor import Task, measure
from benchmarks.datasets import scattered
from rig.nbd import NbdClient
from rig.pair import Pair

SHARE = 0.01

pytestmark = pytest.mark.benchmark(group="1 % increment")


@pytest.mark.parametrize("name", ["leeward --plain", "leeward TLS"])
def test_leeward(benchmark: BenchmarkFixture, name: str, image: Path, work: Path, rounds: int) -> None:
    seeds = iter(range(1, rounds + 1))
    shutil.copyfile(image, work / "store")
    with Pair(work / "pair", stores=[work / "store"], plain=name.endswith("plain")) as pair:
        pair.sync(timeout_s=600)
        wire: list[float] = []

        @contextlib.contextmanager
        def ready(_: Path) -> Iterator[Task]:
            with NbdClient(pair.exports()[0]) as client:
                for offset, content in scattered(image.stat().st_size, SHARE, next(seeds)):
                    client.pwrite(content, offset)

            def sync() -> None:
                document = pair.sync()
                wire.append(document["bytes_wire"] / document["bytes_changed"])

            yield sync

        measure(benchmark, name, rounds, ready, work)
        benchmark.extra_info["note"] = f"{max(wire):.3f} x the change on the wire"


def test_rsync_in_place(benchmark: BenchmarkFixture, image: Path, work: Path, rounds: int) -> None:
    seeds = iter(range(1, rounds + 1))
    source = work / "source"
    shutil.copyfile(image, source)
    with rsync.copy(source, work, "--whole-file") as copy:
        copy()

    @contextlib.contextmanager
    def ready(_: Path) -> Iterator[Task]:
        with source.open("r+b") as file:
            for offset, content in scattered(image.stat().st_size, SHARE, next(seeds)):
                file.seek(offset)
                file.write(content)
        with rsync.copy(source, work, *rsync.IN_PLACE) as copy:
            yield copy

    measure(benchmark, "rsync --inplace --no-whole-file", rounds, ready, work)
