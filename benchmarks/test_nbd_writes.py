"""4 KiB random writes through the NBD export of a protected volume, against servers that track nothing."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.compare.nbd_export import MIB, Workload, make_image, nbdkit_file, qemu_nbd, run_fio
from rig.pair import Pair

SIZE = 1024 * MIB


@contextlib.contextmanager
def leeward_volume(path: Path) -> Iterator[str]:
    """The export of a volume in a group, with its peer connected and everything tracked."""
    with Pair(path.parent, stores=[path]) as pair:
        yield pair.exports()[0]


CONTENDERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "leeward": leeward_volume,
    "nbdkit file": nbdkit_file,
    "qemu-nbd": qemu_nbd,
}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("depth", [1, 32])
def test_random_writes(
    benchmark: BenchmarkFixture, contender: str, depth: int, work: Path, rounds: int, runtime_s: int
) -> None:
    benchmark.group = f"4 KiB random writes, depth {depth}"
    workload = Workload(f"randwrite-{depth}", "randwrite", 4096, depth)
    iops: list[float] = []
    make_image(work / "image", SIZE)
    with CONTENDERS[contender](work / "image") as uri:
        benchmark.pedantic(
            lambda: iops.append(run_fio(uri, workload, size_bytes=SIZE, seconds=runtime_s).iops),
            rounds=rounds,
            warmup_rounds=1,
        )
    # What counts is not how long fio ran but how many writes it got done, the warm-up left out.
    per_second = statistics.median(iops[1:])
    benchmark.extra_info["contender"] = contender
    benchmark.extra_info["cost"] = 1 / per_second
    benchmark.extra_info["note"] = f"{per_second / 1000:.1f}k writes/s"
