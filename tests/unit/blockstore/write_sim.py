"""One volume, its hosts, its sender and its cooler on a loop whose pool completes in seeded order; kills, power cuts.

The model knows, for every sector of 512 bytes, all contents in the order in which they were dispatched, how far
they were replied to and how far flushed. What may never happen: a block differs from the newest sealed point and is
not dirty; a frozen block reads other than at the switch; something acknowledged is lost.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random
from typing import Any

from power_disk import SECTOR, Killed, PowerDisk

from blockstore.steps import Step, Wait
from blockstore.stores.kinds import make_store
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION, align_up, blocks_in
from blockstore.volume import Volume
from blockstore.writer import freeze

Task = Generator[Wait, None, None]

REGIONS = 40
SIZE = (REGIONS - 1) * REGION + 3 * BLOCK + SECTOR
VOLUME, TRACKING = b"V" * 16, b"T" * 16
ACTIVE = [0, 1, 2, 3, 29, 30, 31, 32]
"""Regions that are written, on both sides of the border of a page of bits; and the short last one."""
HOT_BLOCKS = [
    *range(6),
    *(region * BLOCKS_PER_REGION + at for region in ACTIVE[1:] for at in (0, 1, 2, 1023)),
    *range((REGIONS - 1) * BLOCKS_PER_REGION, blocks_in(SIZE)),
]
"""The blocks that small writes go to."""


class Violation(AssertionError):
    """The write path broke one of its promises."""


class Loop:
    """Tasks are generators that yield waits; the pool runs the work of a step, and tells of it, whenever it likes."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.weights = random.choice([(1, 1, 1), (4, 1, 1), (1, 4, 4), (8, 1, 3)])
        """How eager tasks, the pool's threads and their reports are."""
        self.ready: list[Task] = []
        self.work: list[tuple[Step[Any], Callable[[], Any]]] = []
        self.results: list[tuple[Step[Any], Any, Exception | None]] = []

    def add(self, task: Task) -> None:
        self.ready.append(task)

    def step(self) -> bool:
        """One event, chosen by the seed. False: nothing can happen any more."""
        kinds = (self.ready, self.work, self.results)
        weights = [weight if kind else 0 for kind, weight in zip(kinds, self.weights, strict=True)]
        if not any(weights):
            return False
        kind: list[Any] = self.random.choices(kinds, weights)[0]
        chosen: Any = kind.pop(self.random.randrange(len(kind)))
        if kind is self.ready:
            self._resume(chosen)
        elif kind is self.work:
            step, work = chosen
            try:
                self.results.append((step, work(), None))
            except Exception as error:
                self.results.append((step, None, error))
        else:
            step, result, error = chosen
            if error is None:
                step.complete(result)
            else:
                step.fail(error)
        return True

    def _resume(self, task: Task) -> None:
        try:
            wait = next(task)
        except StopIteration:
            return
        if isinstance(wait, Step) and not wait.started:
            self.work.append((wait, wait.start()))
        wait.then(lambda: self.ready.append(task))


class Model:
    """All that hosts wrote, by sector; and the newest sealed point, by block."""

    def __init__(self) -> None:
        self.history: dict[int, list[bytes]] = {}
        self.replied: dict[int, int] = {}
        self.flushed: dict[int, int] = {}
        self.sealed: dict[int, bytes] = {}

    def now(self, block: int) -> bytes:
        sectors = range(block * 8, block * 8 + 8)
        return b"".join(self.history[s][-1] if s in self.history else bytes(SECTOR) for s in sectors)

    def write(self, offset: int, data: bytes) -> dict[int, int]:
        """A write is dispatched; returns how far it takes each sector."""
        marks = {}
        for at in range(0, len(data), SECTOR):
            sector = (offset + at) // SECTOR
            history = self.history.setdefault(sector, [bytes(SECTOR)])
            history.append(data[at : at + SECTOR])
            marks[sector] = len(history) - 1
        return marks

    def blocks(self) -> set[int]:
        return {sector // 8 for sector in self.history} | set(self.sealed)

    def restart(self, store: Any, floor: dict[int, int]) -> None:
        """After a crash: what is there must be `floor` or later of each sector; from now on it is all there was."""
        for sector, history in self.history.items():
            found = store.read(SECTOR, sector * SECTOR)
            if found and found not in history[floor.get(sector, 0) :]:
                raise Violation(f"sector {sector} lost what was acknowledged")
            self.history[sector] = [found or bytes(SECTOR)]
        self.replied.clear()
        self.flushed.clear()


class Mood:
    """What a world's people like to do; each world has its own, for some faults need a rare mixture."""

    def __init__(self, random: Random) -> None:
        self.flush = random.choice([0.0, 0.01, 0.1])
        self.durable = random.choice([0.0, 0.1])
        self.zeroes = random.choice([0.02, 0.2])
        self.cool_after = random.choice([10, 40])
        self.blocks = random.choice(
            [HOT_BLOCKS, HOT_BLOCKS, random.sample(HOT_BLOCKS, 5), random.sample(HOT_BLOCKS, 2)]
        )
        self.send_after = random.choice([1, 1, 20])
        self.cold = random.choice([0.0, 0.0, 0.3, 0.8])
        self.sync_after = random.choice([5, 30])
        self.crash = random.choice([0.0003, 0.001, 0.005])
        """How likely an event is a crash."""
        self.cut_short = self.crash * random.choice([1, 5, 20])
        """How likely a write or sync is."""


class World:
    """A volume through several lives. `seal` of a sync is one instant here: the peer's part is not the matter."""

    def __init__(self, seed: int, root: Path, live: Path) -> None:
        self.random = Random(seed)
        self.mood = Mood(self.random)
        self.root, self.live = root, live
        self.boots = 0
        self.model = Model()
        self.disk = PowerDisk()
        self.nonce = bytes(16)
        self.counter = 0
        self.now_s = 0.0
        self.busy: set[int] = set()
        self.pending: dict[int, bytes] | None = None
        """Blocks frozen by a sync that is `sealing`; None: none is."""
        self.syncs = self.checks = 0
        self._new_root()
        make_store(self.disk, self.store_path, SIZE)
        self._open(first=True)

    syncs_at_open = True

    @property
    def store_path(self) -> str:
        return f"{self.folder}/store"

    def _new_root(self) -> None:
        self.boots += 1
        self.folder = str(self.root / str(self.boots))
        Path(self.folder).mkdir()

    def _open(self, *, first: bool = False) -> None:
        self.loop = Loop(self.random)
        self.busy.clear()
        self.volume = Volume.open(
            self.disk,
            name="v",
            volume_id=VOLUME,
            store_path=self.store_path,
            size_bytes=SIZE,
            folder=f"{self.folder}/volume",
            live_folder=str(self.live),
            hash_seed=7,
        )
        if first:
            self.disk.make_dir(f"{self.folder}/volume")
            self.volume.start_tracking(TRACKING, all_dirty=False)
        pending = self.pending is not None
        self.disk.is_deaf = not self.syncs_at_open
        found = self.volume.open_tracking(TRACKING, nonce=self.nonce, clean=True, pending=pending)
        self.disk.is_deaf = False
        if found.lost:
            raise Violation(found.lost)
        if self.random.random() < 0.9:
            self.nonce = found.nonce
        else:  # killed before the records had the new nonce
            self._crash_and_open()
            return
        self.volume.maps_committed()
        self.check()
        if self.pending is not None:
            sealed = self.random.random() < 0.5
            if sealed:
                self.model.sealed.update(self.pending)
            self.volume.settle_pending(sealed)
            self.pending = None
            self.check()
        self.writer = self.volume.open_writer()
        self.disk.is_cold = lambda: self.random.random() < self.mood.cold
        self.disk.hooks["read"] = self._between
        self.disk.hooks["written"] = self.disk.hooks["write"] = self.disk.hooks["sync"] = self._maybe_kill
        for _ in range(4):
            self.loop.add(self.host())
        self.loop.add(self.cooler())
        self.loop.add(self.sender())

    def _between(self, path: str) -> None:
        """A read in the pool is under way: the loop goes on meanwhile."""
        if path == self.store_path:
            for _ in range(self.random.randrange(3)):
                self.loop.step()

    def _maybe_kill(self, path: str) -> None:
        if self.random.random() < self.mood.cut_short:
            raise Killed

    def run(self, events: int) -> None:
        """Let the volume live, die and live again."""
        for event in range(events):
            try:
                self.loop.step()
                if event % 25 == 0:
                    self.check()
            except Killed:
                self._crash_and_open()
            if self.random.random() < self.mood.crash:
                self._crash_and_open()
            elif self.random.random() < self.mood.crash / 3:
                self._stop_and_open()

    # What the volume's people do

    def _call(self, call: Callable[[], Wait | None], dispatched: Callable[[], None]) -> Task:
        while True:
            try:
                wait = call()
            except Killed:  # in the middle of it: it may have been written
                dispatched()
                raise
            if wait is None or wait.final:
                dispatched()
            if wait is None:
                return
            yield wait
            if wait.error is not None:
                raise wait.error
            if wait.final:
                return

    def host(self) -> Task:
        while True:
            kind = self.random.random()
            if kind < self.mood.flush:
                yield from self.flush()
            elif kind < 1 - self.mood.zeroes:
                yield from self.small_write()
            else:
                yield from self.zeroes()
            yield _over()

    def flush(self) -> Task:
        covers = dict(self.model.replied)
        yield from self._call(self.writer.flush, lambda: None)
        for sector, mark in covers.items():
            self.model.flushed[sector] = max(mark, self.model.flushed.get(sector, 0))

    def small_write(self) -> Task:
        block = self.random.choice(self.mood.blocks)
        sectors = self.random.choice([1, 1, 1, 8, 8, 8, 16, 24, 32])
        offset = block * BLOCK + (SECTOR * self.random.randrange(8) if sectors < 8 else 0)
        length = min(sectors * SECTOR, SIZE - offset)
        if length <= 0:
            return
        self.counter += 1
        data = struct.pack("<Q", self.counter) * (length // 8)
        durable = self.random.random() < self.mood.durable
        writer = self.writer
        yield from self._write(offset, data, lambda: writer.write(offset, memoryview(data), durable), durable)

    def zeroes(self) -> Task:
        wide = self.random.random() < 0.3
        first = self.random.choice(HOT_BLOCKS)
        offset = first * BLOCK + SECTOR * self.random.randrange(8)
        length = self.random.randrange(1, 40) * SECTOR if not wide else self.random.randrange(2, 6) * REGION
        length = min(length, SIZE - offset)
        if length <= 0:
            return
        writer, durable = self.writer, self.random.random() < self.mood.durable
        call = writer.discard if self.random.random() < 0.5 else self._zero
        yield from self._write(offset, bytes(length), lambda: call(offset, length, durable), durable)

    def _zero(self, offset: int, length: int, durable: bool) -> Wait | None:
        return self.writer.zero(offset, length, durable, self.random.random() < 0.5)

    def _write(self, offset: int, data: bytes, call: Callable[[], Wait | None], durable: bool) -> Task:
        """One write, alone on its sectors, for the model to know what ends up there."""
        touched = set(range(offset // BLOCK, align_up(offset + len(data)) // BLOCK))
        if len(data) > REGION:  # only blocks that ever had something are looked at
            touched &= self.model.blocks() | set(HOT_BLOCKS)
        sectors = {
            sector
            for block in touched
            for sector in range(block * 8, block * 8 + 8)
            if offset <= sector * SECTOR < offset + len(data)
        }
        if sectors & self.busy:
            return
        self.busy |= sectors
        marks: dict[int, int] = {}

        def dispatched() -> None:
            if len(data) > REGION:
                for block in sorted(touched):
                    start, end = max(offset, block * BLOCK), min(offset + len(data), block * BLOCK + BLOCK)
                    marks.update(self.model.write(start, bytes(end - start)))
            else:
                marks.update(self.model.write(offset, data))

        yield from self._call(call, dispatched)
        for sector, mark in marks.items():
            self.model.replied[sector] = max(mark, self.model.replied.get(sector, 0))
            if durable:
                self.model.flushed[sector] = max(mark, self.model.flushed.get(sector, 0))
        self.busy -= sectors

    def cooler(self) -> Task:
        while True:
            for _ in range(self.random.randrange(self.mood.cool_after)):
                yield _over()
            self.now_s += 30
            step = self.volume.cool(self.now_s, all=True)
            if step is not None:
                yield step
                if step.error is not None:
                    raise step.error

    def sender(self) -> Task:
        while True:
            for _ in range(self.random.randrange(self.mood.sync_after)):
                yield _over()
            volume, model = self.volume, self.model
            sync = self.random.randbytes(16)
            yield Step(lambda: volume.prepare_capture(sync))  # noqa: B023  # run before the next round
            capture = freeze([volume])[0]
            image = {block: model.now(block) for block in model.blocks() | set(HOT_BLOCKS)}
            frozen: dict[int, bytes] = {}
            for region, bits in list(capture.regions()):
                inside = range(region * BLOCKS_PER_REGION, (region + 1) * BLOCKS_PER_REGION)
                known = {
                    block: image[block] for block in inside if bits >> block % BLOCKS_PER_REGION & 1 and block in image
                }
                frozen.update(known)
                # blocks that nobody ever writes bytes to: too many to read one by one
                capture.done(region, bits & ~sum(1 << block % BLOCKS_PER_REGION for block in known))
            yield capture.quiesced
            flush_first = self.random.random() < 0.5
            if flush_first:
                yield capture.flush()
            give_up = self.random.random() < 0.2
            left = list(frozen)
            while left and not (give_up and self.random.random() < 0.1):
                for _ in range(self.random.randrange(self.mood.send_after)):
                    yield _over()
                some = [left.pop(self.random.randrange(len(left))) for _ in range(min(len(left), 5))]
                buffer = memoryview(bytearray(len(some) * BLOCK))
                read = capture.read_runs([(block, 1) for block in some], buffer, lambda: bytes(buffer))  # noqa: B023
                yield read
                if read.error is not None:
                    raise read.error
                for at, block in enumerate(some):
                    if bytes(buffer[at * BLOCK : (at + 1) * BLOCK]) != frozen[block]:
                        raise Violation(f"block {block} is not as it was at the switch")
                yield _over()
                for block in some:
                    capture.done(block // BLOCKS_PER_REGION, 1 << block % BLOCKS_PER_REGION)
            if give_up:
                capture.abandon()
                continue
            if not flush_first:
                yield capture.flush()
            self.pending = frozen  # the record says `sealing`
            for _ in range(self.random.randrange(5)):
                yield _over()
            model.sealed.update(frozen)
            self.pending = None
            step = capture.settle()
            self.check()
            yield step
            self.syncs += 1
            if capture.remaining:
                raise Violation("settled with blocks not done")

    # What must hold

    def check(self) -> None:
        """A block that differs from the sealed point is dirty; while a seal's outcome is open, under both outcomes."""
        self.checks += 1
        dirty = {region: self.volume.dirty_bits(region) for region in range(REGIONS)}
        with open(self.store_path, "rb") as store:
            for block in self.model.blocks():
                store.seek(block * BLOCK)
                content = store.read(BLOCK).ljust(BLOCK, b"\0")
                is_dirty = dirty[block // BLOCKS_PER_REGION] >> block % BLOCKS_PER_REGION & 1
                if not is_dirty and content != self.model.sealed.get(block, bytes(BLOCK)):
                    raise Violation(f"block {block} differs from the sealed point and is not dirty")

    def _crash_and_open(self) -> None:
        """SIGKILL, or power loss, at this very moment; some of what the pool has runs to its end in the kernel."""
        self.disk.hooks.clear()
        for _, work in self.loop.work:
            if self.random.random() < 0.3:
                with contextlib.suppress(Exception):
                    work()
        if self.random.random() < 0.5:
            floor = dict(self.model.replied)
            self.disk.kill()
        else:
            floor = dict(self.model.flushed)
            old = self.folder
            self._new_root()
            self.disk = self.disk.cut_power(self.random, old, self.folder)
            for path in self.live.iterdir():
                path.unlink()
        with open(self.store_path, "rb") as raw:
            self.model.restart(_Reader(raw), floor)
        self._open()

    def _stop_and_open(self) -> None:
        """A clean stop: the writer revoked and drained, every bit saved; then a new process."""
        self.disk.hooks.clear()
        drained = self.volume.revoke_writer()
        self.loop.ready.clear()
        while self.loop.step():
            self.loop.ready.clear()
        if not drained.over:
            raise Violation("a revoked writer never drained")
        while (wait := self.volume.stop_clean()) is not None:
            assert isinstance(wait, Step)
            wait.run()
            if wait.final:
                break
        self.volume.close()
        if list(self.live.iterdir()):
            raise Violation("live maps were left by a clean stop")
        with open(self.store_path, "rb") as raw:
            self.model.restart(_Reader(raw), dict(self.model.replied))
        self._open()


class _Reader:
    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, length: int, offset: int) -> bytes:
        self._file.seek(offset)
        return bytes(self._file.read(length))


def _over() -> Wait:
    wait = Wait()
    wait.fire()
    return wait
