"""An overlay under random requests, kills and power cuts, against a model that keeps plain bytes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from plans import VOLUME
from stacks import Stack

from blockstore.errors import LayerDamaged, StoreFlushFailed
from blockstore.image import Image
from blockstore.overlay import Overlay
from blockstore.overlay_io import OverlayIO
from blockstore.steps import Step, Wait
from blockstore.units import BLOCK

LAYER = b"O" * 16


def carry_out(call: Callable[[], Wait | None]) -> object:
    """The driver loop of who waits: run a step, ask again unless it was final; the last step's result."""
    while (wait := call()) is not None:
        assert isinstance(wait, Step), "nothing else runs, so nothing is waited for"
        result = wait.run()
        if wait.final:
            return result
    return None


class Machine:
    """An overlay on the newest point of a stack; `live` is None where there is no tmpfs."""

    def __init__(self, folder: Path, live: Path | None, seed: int) -> None:
        self.random = Random(seed)
        self.stack = Stack(folder, self.random)
        self.stack.add_pack()
        self.stack.add_pack()
        self.live = live
        self.names = {
            "layer_id": LAYER,
            "volume_id": VOLUME,
            "image_bytes": self.stack.size,
            "live_folder": str(live) if live else None,
        }
        self.overlay = Overlay.create(self.stack.disk, str(folder), **self.names)  # type: ignore[arg-type]
        self.model = bytearray(self.stack.model)
        self.flushed = bytes(self.model)
        self.bind()

    def bind(self) -> None:
        image = Image(self.stack.base, self.stack.packs, self.stack.size, 0)
        self.io = OverlayIO(self.overlay, image)

    def act(self) -> None:
        offset, length = self.random.choice(self.stack.ranges(1)[1:])
        what = self.random.random()
        durable = self.random.random() < 0.1
        if what < 0.45:
            data = self.random.randbytes(length)
            carry_out(lambda: self.io.write(offset, memoryview(data), durable))
            self.model[offset : offset + length] = data
        elif what < 0.6:
            carry_out(lambda: self.io.zero(offset, length, durable, True))
            self.model[offset : offset + length] = bytes(length)
        elif what < 0.7:
            carry_out(lambda: self.io.discard(offset, length, durable))
            self.model[offset : offset + length] = bytes(length)
        elif what < 0.8:
            carry_out(self.io.flush)
            durable = True
        else:
            durable = False
            self.check(offset, length)
        if durable or (self.live is None and what < 0.8):
            self.flushed = bytes(self.model)

    def check(self, offset: int, length: int) -> None:
        buffer = bytearray(length)
        carry_out(lambda: self.io.read_into(offset, memoryview(buffer)))
        assert buffer == self.model[offset : offset + length]

    def kill(self) -> None:
        """SIGKILL: the page cache and the live map stay, nothing else."""
        self.overlay.close()
        self.overlay = Overlay.open(self.stack.disk, str(self.stack.folder), **self.names)  # type: ignore[arg-type]
        self.bind()


@pytest.mark.parametrize("seed", range(5))
def test_what_was_acknowledged_survives_kills_with_the_live_map(tmp_path: Path, live: Path, seed: int) -> None:
    machine = Machine(tmp_path, live, seed)
    for step in range(250):
        machine.act()
        if step % 40 == 39:
            machine.kill()
            machine.check(0, machine.stack.size)
    machine.check(0, machine.stack.size)


@pytest.mark.parametrize("seed", range(3))
def test_without_tmpfs_every_acknowledged_write_survives_a_kill(tmp_path: Path, seed: int) -> None:
    machine = Machine(tmp_path, None, seed)
    for step in range(120):
        machine.act()
        if step % 30 == 29:
            machine.kill()
            machine.check(0, machine.stack.size)


@pytest.mark.parametrize("seed", range(4))
def test_after_the_live_map_is_lost_each_block_is_flushed_or_newer(tmp_path: Path, live: Path, seed: int) -> None:
    """As after a power cut in which the data file kept everything: bits decide, and flushed ones are there."""
    machine = Machine(tmp_path, live, seed)
    for _ in range(150):
        machine.act()
    machine.overlay.close()
    shutil.rmtree(live)
    live.mkdir()
    machine.overlay = Overlay.open(machine.stack.disk, str(tmp_path), **machine.names)  # type: ignore[arg-type]
    machine.bind()
    found = bytearray(machine.stack.size)
    carry_out(lambda: machine.io.read_into(0, memoryview(found)))
    for at in range(0, machine.stack.size, BLOCK):
        here = bytes(found[at : at + BLOCK])
        now, flushed = bytes(machine.model[at : at + BLOCK]), machine.flushed[at : at + BLOCK]
        is_partly_newer = now != flushed  # bits of one flush cover a block, the data file may be newer
        assert here == flushed or is_partly_newer, f"block {at // BLOCK} lost what was flushed"
        below = bytes(machine.stack.model[at : at + BLOCK])
        assert flushed == below or here != below or below in (now, flushed), f"block {at // BLOCK} fell through"


class Failing:
    """Stands before a file's sync or write and raises, once."""

    def __init__(self, call: Callable[..., object], error: OSError | StoreFlushFailed) -> None:
        self.call, self.error, self.is_armed = call, error, True

    def __call__(self, *args: object, **named: object) -> object:
        if self.is_armed:
            self.is_armed = False
            raise self.error
        return self.call(*args, **named)


def test_a_flush_that_failed_is_final(tmp_path: Path, live: Path) -> None:
    machine = Machine(tmp_path, live, 1)
    told: list[StoreFlushFailed] = []
    machine.overlay.on_failure = told.append
    carry_out(lambda: machine.io.write(0, memoryview(b"d" * BLOCK), False))
    machine.overlay.data.datasync = Failing(  # type: ignore[method-assign,assignment]
        machine.overlay.data.datasync, StoreFlushFailed(path="data", reason="Input/output error")
    )
    with pytest.raises(StoreFlushFailed):
        carry_out(machine.io.flush)
    assert len(told) == 1
    for call in (machine.io.flush, lambda: machine.io.write(BLOCK, memoryview(b"e" * BLOCK), False)):
        with pytest.raises(StoreFlushFailed):
            carry_out(call)


def test_a_flush_that_found_no_space_is_tried_again(tmp_path: Path, live: Path) -> None:
    machine = Machine(tmp_path, live, 1)
    carry_out(lambda: machine.io.write(0, memoryview(b"d" * BLOCK), False))
    pages = machine.overlay._pages.file
    pages.write = Failing(pages.write, OSError(errno.ENOSPC, "No space left on device"))  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError, match="No space"):
        carry_out(machine.io.flush)
    carry_out(machine.io.flush)
    for path in live.iterdir():
        path.unlink()  # as after a power cut: only what was flushed is there
    machine.kill()
    buffer = bytearray(BLOCK)
    carry_out(lambda: machine.io.read_into(0, memoryview(buffer)))
    assert buffer == b"d" * BLOCK


def test_a_flush_that_comes_while_another_runs_waits_for_a_new_one(tmp_path: Path, live: Path) -> None:
    machine = Machine(tmp_path, live, 1)
    first = machine.io.flush()
    assert isinstance(first, Step)
    work = first.start()
    machine.io.write(0, memoryview(b"x" * BLOCK), False)
    second = machine.io.flush()
    assert not second.final, "it is asked again, and then begins a flush of its own"
    first.complete(work())
    assert second.over
    third = machine.io.flush()
    assert isinstance(third, Step)
    assert third.final
    third.run()


def test_what_overlaps_a_copy_up_waits_for_it(tmp_path: Path, live: Path) -> None:
    machine = Machine(tmp_path, live, 2)
    copy_up = machine.io.write(100, memoryview(b"a" * 50), False)
    assert isinstance(copy_up, Step)
    assert machine.io.write(0, memoryview(b"b" * BLOCK), False) is copy_up
    assert machine.io.write(4 * BLOCK, memoryview(b"c" * BLOCK), False) is None, "elsewhere nothing waits"
    copy_up.run()
    assert machine.io.write(0, memoryview(b"b" * BLOCK), False) is None


def test_a_lost_or_short_file_is_refused(tmp_path: Path, live: Path) -> None:
    machine = Machine(tmp_path, live, 3)
    machine.overlay.close()
    (tmp_path / f"{LAYER.hex()}.data").write_bytes(b"short")
    with pytest.raises(LayerDamaged):
        Overlay.open(machine.stack.disk, str(tmp_path), **machine.names)  # type: ignore[arg-type]
    Overlay.remove(machine.stack.disk, str(tmp_path), LAYER, str(live))
    assert not list(tmp_path.glob(f"{LAYER.hex()}*"))
    assert not list(live.iterdir())
    with pytest.raises(LayerDamaged, match="missing"):
        Overlay.open(machine.stack.disk, str(tmp_path), **machine.names)  # type: ignore[arg-type]
