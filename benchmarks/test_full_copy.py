"""A full copy of 2 GiB over loopback: the first sync of a volume, against the quickest copiers there are."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.compare import nbdcopy, qemu_img, rsync
from benchmarks.conductor import Task, measure
from rig.pair import Pair

pytestmark = pytest.mark.benchmark(group="full copy")


def leeward(image: Path, *, plain: bool) -> Callable[[Path], AbstractContextManager[Task]]:
    """The first sync of a group whose volume holds the image."""

    @contextlib.contextmanager
    def ready(folder: Path) -> Iterator[Task]:
        store = folder / "store"
        shutil.copyfile(image, store)
        with Pair(folder, stores=[store], plain=plain) as pair:
            yield lambda: pair.sync(timeout_s=600)

    return ready


@pytest.mark.parametrize("name", ["leeward --plain", "leeward TLS"])
def test_leeward(benchmark: BenchmarkFixture, name: str, image: Path, work: Path, rounds: int) -> None:
    measure(benchmark, name, rounds, leeward(image, plain=name.endswith("plain")), work)


def test_nbdcopy(benchmark: BenchmarkFixture, image: Path, work: Path, rounds: int) -> None:
    measure(benchmark, "nbdcopy to nbdkit", rounds, lambda folder: nbdcopy.full_copy(image, folder), work)


def test_qemu_img(benchmark: BenchmarkFixture, image: Path, work: Path, rounds: int) -> None:
    measure(benchmark, "qemu-img convert to nbdkit", rounds, lambda folder: qemu_img.full_copy(image, folder), work)


def test_rsync(benchmark: BenchmarkFixture, image: Path, work: Path, rounds: int) -> None:
    measure(benchmark, "rsync to its daemon", rounds, lambda folder: rsync.copy(image, folder, "--whole-file"), work)
