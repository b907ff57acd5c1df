"""Our NBD export against `nbdkit file` and `qemu-nbd`: start each, drive it with fio, return figures.

A small library for the benchmarks, and a program:

    python benchmarks/compare/nbd_export.py [--rounds 3] [--seconds 2] [--size-mib 1024] [--folder DIR]
                                            [--one-cpu] [--only NAME ...]

Every contender serves a file of its own on the same file system, allocated and in the page cache, over TCP on
loopback, one connection. Runs are interleaved (round by round, workload by workload, the order of contenders
turned by one each time), because a shared host changes its speed between minutes; only ratios within a run count.

At depth 1 on a virtual machine the figure is two wake-ups and little else, and it has two modes, whoever serves:
client and server on one CPU (25 to 40 us a request) or each on its own, where each wake-up pulls a halted CPU out
of the hypervisor (80 to 130 us). The scheduler picks, and stays with it for seconds. `one_cpu` takes the choice
away: server and fio share the first CPU, so what is compared is the work done for a request.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

from rig.ports import free_port, wait_for_port  # noqa: E402

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Workload:
    """`pattern` is fio's --rw; `block_bytes` a request's size; `depth` requests in flight on the one connection."""

    name: str
    pattern: str
    block_bytes: int
    depth: int
    extra: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        return "write" in self.pattern


WORKLOADS = (
    Workload("randwrite-4k-qd1", "randwrite", 4096, 1),
    Workload("randwrite-4k-qd32", "randwrite", 4096, 32),
    Workload("randread-4k-qd1", "randread", 4096, 1),
    Workload("randread-4k-qd32", "randread", 4096, 32),
    Workload("write-1m-qd8", "write", MIB, 8),
    Workload("read-1m-qd8", "read", MIB, 8),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What fio measured. `p99_us` is the completion latency in microseconds."""

    iops: float
    bytes_per_s: float
    p99_us: float


Contender = Callable[[Path], "contextmanager[str]"]  # type: ignore[valid-type]


@contextmanager
def _process(arguments: Sequence[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A child that is ended with the block."""
    process = subprocess.Popen(arguments, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()  # our server ends with its standard input
        else:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """This process, and what it starts meanwhile for good, runs on that CPU alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def leeward_file(path: Path) -> Iterator[str]:
    """Our NBD server over a plain file (no tracking): its URI."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    command = [sys.executable, "-m", "rig.nbd_file_server", str(path)]
    with _process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        uri = process.stdout.readline().strip() if process.stdout else ""
        if not uri:
            raise RuntimeError("our NBD server did not start")
        yield uri


@contextmanager
def nbdkit_file(path: Path) -> Iterator[str]:
    """`nbdkit file`, as installed: its URI."""
    port = free_port()
    with _process(["nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", str(port), "file", str(path)]):
        wait_for_port(port)
        yield f"nbd://127.0.0.1:{port}/"


@contextmanager
def qemu_nbd(path: Path) -> Iterator[str]:
    """`qemu-nbd`, write-back cache, as many clients as it likes: its URI."""
    port = free_port()
    command = ["qemu-nbd", "--persistent", "--shared=8", "--bind=127.0.0.1", f"--port={port}", "--format=raw"]
    with _process([*command, "--cache=writeback", "--discard=unmap", "--export-name=vol", str(path)]):
        wait_for_port(port)
        yield f"nbd://127.0.0.1:{port}/vol"


CONTENDERS: Mapping[str, Contender] = {"leeward": leeward_file, "nbdkit": nbdkit_file, "qemu-nbd": qemu_nbd}


def make_image(path: Path, size_bytes: int) -> None:
    """A file of random bytes: every block allocated, nothing to compress, all of it in the page cache."""
    with path.open("wb") as image:
        left = size_bytes
        while left:
            left -= image.write(os.urandom(min(left, 16 * MIB)))
        image.flush()
        os.fsync(image.fileno())


def run_fio(uri: str, workload: Workload, *, size_bytes: int, seconds: float, warm_up_s: float = 0.3) -> Figures:
    """Drive `uri` with one fio job on one connection. Raises RuntimeError with fio's words if it fails."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        command = [
            *("fio", f"--name={workload.name}", "--ioengine=nbd", f"--uri={uri}", f"--rw={workload.pattern}"),
            *(f"--bs={workload.block_bytes}", f"--iodepth={workload.depth}", f"--size={size_bytes}"),
            *("--time_based", f"--runtime={seconds}s", f"--ramp_time={warm_up_s}s", "--randrepeat=1"),
            *("--output-format=json", f"--output={answer.name}", *workload.extra),
        ]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        text = answer.read()
    if ran.returncode:
        raise RuntimeError(f"fio failed on {uri}: {ran.stderr.strip()} {text[:500]}")
    job = json.loads(text[text.index("{") :])["jobs"][0]
    side = job["write" if workload.writes else "read"]
    p99_us = side["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1000
    return Figures(iops=float(side["iops"]), bytes_per_s=float(side["bw_bytes"]), p99_us=float(p99_us))


def compare(
    contenders: Mapping[str, Contender],
    workloads: Sequence[Workload] = WORKLOADS,
    *,
    folder: Path,
    rounds: int = 3,
    seconds: float = 2.0,
    size_bytes: int = 1024 * MIB,
    one_cpu: bool = False,
) -> dict[str, dict[str, list[Figures]]]:
    """Run every contender on every workload, interleaved: {workload: {contender: one entry a round}}."""
    results: dict[str, dict[str, list[Figures]]] = {w.name: {name: [] for name in contenders} for w in workloads}
    with ExitStack() as stack:
        if one_cpu:
            stack.enter_context(on_cpu(min(os.sched_getaffinity(0))))
        uris: dict[str, str] = {}
        for name, start in contenders.items():
            image = folder / f"{name}.img"
            make_image(image, size_bytes)
            stack.callback(image.unlink)
            uris[name] = stack.enter_context(start(image))
        turn = 0
        for _ in range(rounds):
            for workload in workloads:
                names = list(contenders)
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    figures = run_fio(uris[name], workload, size_bytes=size_bytes, seconds=seconds)
                    results[workload.name][name].append(figures)
                turn += 1
    return results


def median_iops(figures: Sequence[Figures]) -> float:
    return statistics.median(one.iops for one in figures)


def ratio_to_best_peer(results: Mapping[str, Sequence[Figures]], ours: str = "leeward") -> float:
    """Our median over the best peer's median, in requests per second: above 1 we are faster."""
    return median_iops(results[ours]) / max(median_iops(them) for name, them in results.items() if name != ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=None, help="where the images go (default: a temporary folder)")
    parser.add_argument("--one-cpu", action="store_true", help="server and client share one CPU")
    parser.add_argument("--only", nargs="*", default=[], help="names of workloads")
    arguments = parser.parse_args()
    workloads = [w for w in WORKLOADS if not arguments.only or w.name in arguments.only]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="leeward-nbd-") as folder:
        results = compare(
            CONTENDERS,
            workloads,
            folder=Path(folder),
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            size_bytes=arguments.size_mib * MIB,
            one_cpu=arguments.one_cpu,
        )
    for workload, by_name in results.items():
        columns = "  ".join(
            f"{name} {median_iops(runs) / 1000:7.2f}k ({statistics.median(r.bytes_per_s for r in runs) / 1e9:.2f} GB/s)"
            for name, runs in by_name.items()
        )
        print(f"{workload:20s} {columns}  ours / best peer {ratio_to_best_peer(by_name):.2f}", flush=True)


if __name__ == "__main__":
    main()
