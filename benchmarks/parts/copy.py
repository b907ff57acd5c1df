"""The copy path alone: sender and receiver in two processes over loopback, against the quickest copiers.

    PYTHONPATH=tests .venv/bin/python -m benchmarks.parts.copy [--size MIB] [--rounds N] [--folder DIR]

No daemon, no capture, no records: what `engine/transfer` costs. Every contender copies the same image into a new
file on the same disk and flushes it, by turns; the source is in the page cache. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvloop

from benchmarks.compare import nbdcopy, qemu_img
from benchmarks.datasets import build_mixed
from blockstore.blockset import RegionBits
from blockstore.disk import Disk, DiskFile
from blockstore.layer import IncomingLayer
from blockstore.pack import OpenPack
from blockstore.redo import RedoPack
from blockstore.seed import SeedBase
from blockstore.stores.kinds import make_store, open_store
from blockstore.units import BLOCK, BLOCKS_PER_REGION, WHOLE_REGION, Extent, regions_in
from engine.clock import SystemClock
from engine.decide.compression import Chooser
from engine.link.transport import Transport
from engine.pool import DiskPool
from engine.transfer.receiver import ReceiveSession
from engine.transfer.sender import Shipper
from engine.wire.messages import Data, Flush, Flushed, Seal, Sealed, VolumeSeal

T = TypeVar("T")

SEED = 7
SYNC, VOLUME, OWNER, NO_POINT = b"s" * 16, b"v" * 16, b"o" * 16, bytes(16)


class FileSource:
    """All of a file, or `blocks` scattered ones of it, as a ShipSource."""

    knows_holes = False

    def __init__(self, pool: DiskPool, file: DiskFile, scatter: int) -> None:
        self._pool, self._file = pool, file
        regions = regions_in(file.size())
        self._marks = dict.fromkeys(range(regions), WHOLE_REGION)
        if scatter:
            chance = np.random.default_rng(1)
            self._marks = {}
            for block in chance.choice(regions * BLOCKS_PER_REGION, scatter, replace=False).tolist():
                region, at = divmod(block, BLOCKS_PER_REGION)
                self._marks[region] = self._marks.get(region, 0) | 1 << at

    def regions(self) -> Iterator[RegionBits]:
        return iter(sorted(self._marks.items()))

    async def read_runs(self, runs: Sequence[Extent], buffer: memoryview, examine: Callable[[], T]) -> T:
        def work() -> T:
            at = 0
            for first, count in runs:
                self._file.read_into(buffer[at : at + count * BLOCK], first * BLOCK)
                at += count * BLOCK
            return examine()

        return await self._pool.call(work)

    async def blank(self, regions: Sequence[RegionBits]) -> list[RegionBits]:
        return []

    def known_hashes(self, runs: Sequence[Extent]) -> None:
        return None

    def equal(self, region: int, bits: int) -> None: ...

    def landed(self, region: int, bits: int) -> None: ...


class Sender:
    """The sender's end of the connection."""

    def __init__(self) -> None:
        self.shipper: Shipper | None = None
        self.sealed = asyncio.get_running_loop().create_future()

    def place(self, data: Data, length: int) -> Sequence[memoryview]:
        raise AssertionError("the receiver sends no blocks")

    def received(self, message: Any) -> None:
        if isinstance(message, Sealed):
            self.sealed.set_result(None)
        elif self.shipper is not None:
            self.shipper.message(message)

    def ended(self, error: Exception | None) -> None:
        if self.shipper is not None:
            self.shipper.fail(error or ConnectionError("the receiver closed"))


class Receiver:
    """The receiver's end: answers FLUSH and SEAL."""

    def __init__(self) -> None:
        self.session: ReceiveSession
        self.transport: Transport
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    def place(self, data: Data, length: int) -> Sequence[memoryview]:
        return self.session.place(data, length)

    def received(self, message: Any) -> None:
        if isinstance(message, Data):
            self.session.data(message)
        else:
            self._tasks.append(asyncio.get_running_loop().create_task(self._answer(message)))

    async def _answer(self, message: Any) -> None:
        if isinstance(message, Flush):
            await self.session.flush()
            await self.transport.send(Flushed(message.sync))
        elif isinstance(message, Seal):
            await self.session.seal()
            await self.transport.send(Sealed(VOLUME, message.sync, OWNER, 0))

    def ended(self, error: Exception | None) -> None:
        self.over.set_result(None)


def layer_of(kind: str, folder: Path, size: int) -> IncomingLayer:
    disk = Disk()
    if kind == "pack":
        ids = {"volume_id": VOLUME, "layer_id": OWNER, "builds_on": NO_POINT}
        return OpenPack.create(disk, str(folder / "layer.pack"), **ids, image_bytes=size, hash_seed=SEED)
    make_store(disk, str(folder / "base"), size)
    store = open_store(disk, str(folder / "base"))
    return SeedBase.create(disk, store, str(folder), volume_id=VOLUME, owner=OWNER, image_bytes=size, hash_seed=SEED)


def receive(pipe: Connection) -> None:
    """The receiving process: one layer and one connection for each (kind, folder, size) that it is told."""

    async def serve() -> None:
        while (task := await asyncio.to_thread(pipe.recv)) is not None:
            pool, sink = DiskPool(), Receiver()
            layer = layer_of(*task)
            layer.begin_session(SYNC)

            def accept(sink: Receiver = sink, layer: IncomingLayer = layer, pool: DiskPool = pool) -> Transport:
                sink.transport = Transport(sink)
                sink.transport.greeted()
                sink.session = ReceiveSession(sync=SYNC, layers=[layer], pool=pool, send=sink.transport.send)
                return sink.transport

            server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
            pipe.send(server.sockets[0].getsockname()[1])
            await sink.over
            await sink.session.join()
            layer.close()
            server.close()
            await pool.close()
            pipe.send(processor_s())

    uvloop.run(serve())


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def send(source: Path, port: int, redo_path: Path, codecs: Sequence[str], scatter: int) -> tuple[float, Any]:
    """Ship `source` to the receiver at `port`; seconds until it was sealed, and the counts."""
    disk, pool, sink = Disk(), DiskPool(), Sender()
    file = disk.open(str(source), write=False)
    size = file.size()
    _, transport = await asyncio.get_running_loop().create_connection(lambda: Transport(sink), "127.0.0.1", port)
    transport.greeted()
    redo = RedoPack.create(
        disk, str(redo_path), volume_id=VOLUME, sync_id=SYNC, builds_on=NO_POINT, image_bytes=size, hash_seed=SEED
    )
    source_blocks = FileSource(pool, file, scatter)
    began = time.perf_counter()
    window = 8 * ((4 << 20) + (32 << 10))
    shipper = Shipper(transport, pool, SystemClock(), sync=SYNC, window_bytes=window, chooser=Chooser(codecs))
    sink.shipper = shipper
    await shipper.ship(0, source_blocks, image_bytes=size, hash_seed=SEED, redo=redo)
    await shipper.finish()
    receipt = await pool.call(redo.seal)
    await transport.send(Seal(SYNC, 0, (VolumeSeal(VOLUME, receipt.blocks, receipt.digest),)))
    await sink.sealed
    took = time.perf_counter() - began
    transport.close()
    await transport.gone.wait()
    await pool.close()
    redo.close()
    file.close()
    return took, shipper.counts


class Ours:
    """Our sender in this process, our receiver in another one."""

    def __init__(self, kind: str, codecs: Sequence[str] = (), scatter: int = 0) -> None:
        self._kind, self._codecs, self._scatter = kind, codecs, scatter
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=receive, args=(other,), daemon=True)
        self._process.start()
        self.cpu: list[float] = []
        self._receiver_s = 0.0

    def run(self, source: Path, folder: Path) -> float:
        self._pipe.send((self._kind, folder, source.stat().st_size))
        port = self._pipe.recv()
        before = processor_s()
        took, _ = uvloop.run(send(source, port, folder / "redo", self._codecs, self._scatter))
        sender_s, receiver_s = processor_s() - before, self._pipe.recv()
        self.cpu.append(sender_s + receiver_s - self._receiver_s)
        self._receiver_s = receiver_s
        return took

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()


class Peer:
    """A copier of others, as benchmarks/compare runs it."""

    def __init__(self, ready: Callable[[Path, Path], contextlib.AbstractContextManager[Callable[[], object]]]) -> None:
        self._ready = ready
        self.cpu: list[float] = []

    def run(self, source: Path, folder: Path) -> float:
        with self._ready(source, folder) as copy:
            began = time.perf_counter()
            copy()
            return time.perf_counter() - began

    def close(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="MiB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    parser.add_argument("--scatter", type=int, default=0, help="ship so many scattered blocks instead of all")
    parser.add_argument("--codecs", default="", help="lz4,zstd: also with the adaptive codec")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    source = options.folder / f"mixed-{options.size}.raw"
    if not source.exists():
        build_mixed(source, options.size << 20)
    source.read_bytes()
    contenders: dict[str, Ours | Peer] = {"ours, into a pack": Ours("pack", (), options.scatter)}
    if not options.scatter:
        contenders["ours, into a base"] = Ours("seed")
        contenders["nbdcopy to nbdkit"] = Peer(nbdcopy.full_copy)
        contenders["qemu-img to nbdkit"] = Peer(qemu_img.full_copy)
    if options.codecs:
        contenders["ours, adaptive"] = Ours("pack", options.codecs.split(","), options.scatter)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(options.rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            folder = options.folder / "work"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            os.sync()
            seconds[name].append(contenders[name].run(source, folder))
    shutil.rmtree(options.folder / "work", ignore_errors=True)
    report(options.size, contenders, seconds)


def report(size_mib: int, contenders: dict[str, Ours | Peer], seconds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    peers = [medians[name] for name, who in contenders.items() if isinstance(who, Peer)]
    for name, who in contenders.items():
        ratio = f"{medians[name] / min(peers):5.2f} x best peer" if peers else ""
        cpu = f"{statistics.median(who.cpu) * 1024 / size_mib:5.2f} CPU s/GiB" if who.cpu else ""
        print(
            f"{name:22} {medians[name]:7.3f} s  ({min(seconds[name]):.3f} to {max(seconds[name]):.3f})  {ratio}  {cpu}"
        )
        who.close()


if __name__ == "__main__":
    main()
