"""4 KiB random writes through the NBD export of a protected volume, against servers that track nothing.

At depth 1 the promise is about servers and client held on a CPU each, as if they were two hosts. Left to the
scheduler the same pair runs in one of two modes whose speeds differ twofold (`compare/nbd_export.py` says why),
and who gets which is luck: those figures are shown, beside the others, and nothing is promised about them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.compare.nbd_export import MIB, Workload, make_image, nbdkit_file, on_cpu, qemu_nbd, run_fio
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


CPUS = sorted(os.sched_getaffinity(0))
SERVER, CLIENT = CPUS[0], CPUS[-1]


@pytest.mark.parametrize("contender", CONTENDERS)
def test_depth_1(benchmark: BenchmarkFixture, contender: str, work: Path, rounds: int, runtime_s: int) -> None:
    make_image(work / "image", SIZE)
    with contextlib.ExitStack() as stack:
        with on_cpu(SERVER):
            uri = stack.enter_context(CONTENDERS[contender](work / "image"))
        stack.enter_context(on_cpu(CLIENT))
        _measure(benchmark, contender, uri, "4 KiB random writes, depth 1", 1, rounds, runtime_s)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("depth", [1, 32])
def test_any_cpu(
    benchmark: BenchmarkFixture, contender: str, depth: int, work: Path, rounds: int, runtime_s: int
) -> None:
    make_image(work / "image", SIZE)
    group = f"4 KiB random writes, depth {depth}" + (" on any CPU" if depth == 1 else "")
    with CONTENDERS[contender](work / "image") as uri:
        _measure(benchmark, contender, uri, group, depth, rounds, runtime_s)


def _measure(
    benchmark: BenchmarkFixture, contender: str, uri: str, group: str, depth: int, rounds: int, runtime_s: int
) -> None:
    """What counts is not how long fio ran but how many writes it got done, the warm-up left out."""
    benchmark.group = group
    workload = Workload(f"randwrite-{depth}", "randwrite", 4096, depth)
    iops: list[float] = []
    benchmark.pedantic(
        lambda: iops.append(run_fio(uri, workload, size_bytes=SIZE, seconds=runtime_s).iops),
        rounds=rounds,
        warmup_rounds=1,
    )
    per_second = statistics.median(iops[1:])
    benchmark.extra_info["contender"] = contender
    benchmark.extra_info["cost"] = 1 / per_second
    benchmark.extra_info["note"] = f"{per_second / 1000:.1f}k writes/s"
