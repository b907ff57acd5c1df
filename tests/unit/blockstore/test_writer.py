"""The write path as a host meets it: content, refusals, flushes, errors, and what it costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from made import SIZE, TRACKING, do, tracked, write
from power_disk import PowerDisk

from blockstore.blockset import BlockSet
from blockstore.errors import StoreFlushFailed, VolumeFailed, WriteRefused
from blockstore.layer import BlockIO, Surface
from blockstore.steps import Step, Wait
from blockstore.stores.surface import INLINE_BYTES, StoreSurface
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION
from blockstore.volume import Volume
from blockstore.writer import Writer

LOG = f"intent.{TRACKING.hex()}"


@pytest.fixture
def disk() -> PowerDisk:
    return PowerDisk()


@pytest.fixture
def volume(tmp_path: Path, live: Path, disk: PowerDisk) -> Iterator[Volume]:
    volume = tracked(tmp_path, live, disk)
    yield volume
    volume.close()


@pytest.fixture
def writer(volume: Volume, disk: PowerDisk) -> Writer:
    writer = volume.open_writer()
    disk.syncs.clear()
    return writer


def read(writer: Writer, offset: int, length: int) -> bytes:
    buffer = memoryview(bytearray(length))
    do(lambda: writer.read_into(offset, buffer))
    return bytes(buffer)


def test_a_writer_is_block_io_and_a_store_is_a_surface(writer: Writer, volume: Volume) -> None:
    io: BlockIO = writer
    surface: Surface = StoreSurface(volume.store, lambda _: None)
    assert io.size_bytes == surface.size_bytes == SIZE


def test_content_is_what_a_disk_would_hold(writer: Writer, volume: Volume, seed: int) -> None:
    random = Random(seed)
    window = 3 * REGION
    model = bytearray(window)
    for _ in range(400):
        offset = random.randrange(window)
        length = min(random.choice([1, 512, 4096, 5000, 70_000, INLINE_BYTES + 1]), window - offset)
        kind, durable = random.randrange(4), random.random() < 0.2
        data = random.randbytes(length)
        if kind == 0:
            do(lambda: writer.zero(offset, length, durable, random.random() < 0.5))  # noqa: B023
            data = bytes(length)
        elif kind == 1:
            do(lambda: writer.discard(offset, length, durable))  # noqa: B023
            data = bytes(length)
        else:
            do(lambda: writer.write(offset, memoryview(data), durable))  # noqa: B023
        model[offset : offset + length] = data
        at, size = random.randrange(window), random.randrange(1, 100_000)
        assert read(writer, at, min(size, window - at)) == model[at : at + min(size, window - at)]
    assert read(writer, 0, window) == model


def test_every_changed_block_is_dirty_and_no_other(writer: Writer, volume: Volume, seed: int) -> None:
    random, model = Random(seed), BlockSet()
    for _ in range(300):
        offset = random.randrange(20 * REGION)
        length = random.choice([1, 512, 4096, 12288, 100_000, 2 << 20])
        call = random.choice([writer.write, writer.zero, writer.discard])
        if call == writer.write:
            do(lambda: writer.write(offset, memoryview(bytes(length)), False))  # noqa: B023
        elif call == writer.zero:
            do(lambda: writer.zero(offset, length, False, True))  # noqa: B023
        else:
            do(lambda: writer.discard(offset, length, False))  # noqa: B023
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        model |= BlockSet.of_extents((first, last - first + 1))
    assert volume.dirty() == model


def test_empty_requests_do_nothing(writer: Writer, volume: Volume, disk: PowerDisk) -> None:
    for offset in (0, 5, SIZE):
        assert writer.write(offset, memoryview(b""), False) is None
        assert writer.zero(offset, 0, False, True) is None
        assert writer.discard(offset, 0, False) is None
    assert not volume.dirty()
    assert disk.syncs == []


def test_a_range_behind_the_end_is_never_written(writer: Writer, volume: Volume) -> None:
    do(lambda: writer.write(SIZE - 512, memoryview(bytes(512)), False))
    for _ in range(2):
        with pytest.raises(AssertionError):
            writer.write(SIZE - 511, memoryview(bytes(512)), False)
    with pytest.raises(AssertionError):
        writer.discard(0, SIZE + 1, False)


def test_syncs_per_operation(writer: Writer, disk: PowerDisk) -> None:
    """A cold write one, a hot one none, with FUA none of its own but the write's, a flush one, a durable punch one."""

    def cost(call: Any) -> list[str]:
        disk.syncs.clear()
        do(call)
        return list(disk.syncs)

    data = memoryview(bytes(BLOCK))
    assert cost(lambda: writer.write(0, data, False)) == [LOG]
    assert cost(lambda: writer.write(0, data, False)) == []
    assert cost(lambda: writer.write(BLOCK, data, True)) == []
    assert cost(lambda: writer.write(0, memoryview(bytes(INLINE_BYTES)), False)) == []
    assert cost(lambda: writer.zero(0, BLOCK, False, True)) == []
    assert cost(lambda: writer.discard(0, BLOCK, False)) == []
    assert cost(lambda: writer.zero(0, BLOCK, True, True)) == ["store"]
    assert cost(lambda: writer.discard(0, BLOCK, True)) == ["store"]
    assert cost(writer.flush) == ["store"]


def test_a_durable_write_is_on_the_disk_when_it_is_over(writer: Writer, disk: PowerDisk) -> None:
    state = next(state for path, state in disk.files.items() if path.endswith("/store"))
    do(lambda: writer.write(BLOCK, memoryview(b"F" * 512), True))
    assert state.durable[8] == b"F" * 512


def test_small_hot_writes_are_inline_and_large_ones_go_to_the_pool(writer: Writer) -> None:
    do(lambda: writer.write(0, memoryview(b"1"), False))
    assert writer.write(0, memoryview(bytes(INLINE_BYTES - 1)), False) is None
    step = writer.write(0, memoryview(bytes(INLINE_BYTES)), False)
    assert isinstance(step, Step)
    assert step.final


def test_a_cached_read_is_inline_and_an_uncached_one_goes_to_the_pool(writer: Writer, volume: Volume) -> None:
    do(lambda: writer.write(0, memoryview(b"x" * BLOCK), False))
    assert writer.read_into(0, memoryview(bytearray(BLOCK))) is None
    volume.store.read_cached = lambda buffer, offset: False  # type: ignore[method-assign]
    step = writer.read_into(0, memoryview(bytearray(BLOCK)))
    assert isinstance(step, Step)
    assert step.final


def test_allocation_tells_holes_from_data(writer: Writer) -> None:
    do(lambda: writer.write(REGION, memoryview(b"x" * BLOCK), False))
    assert writer.allocated(0, 3 * REGION).run() == [
        (0, REGION, False),
        (REGION, BLOCK, True),
        (REGION + BLOCK, 2 * REGION - BLOCK, False),
    ]


# Flushes


def test_a_flush_that_comes_while_one_runs_waits_for_the_next(writer: Writer, disk: PowerDisk) -> None:
    first = writer.flush()
    assert isinstance(first, Step)
    assert writer.flush() is first  # its work has not begun
    work = first.start()
    seen: list[Wait | None] = []
    disk.hooks["sync"] = lambda path: seen.extend([writer.flush(), writer.flush()])
    result = work()
    disk.hooks.clear()
    assert seen[0] is seen[1]
    assert seen[0] is not None
    assert not seen[0].final
    assert not seen[0].over
    first.complete(result)
    assert seen[0].over
    second, third = writer.flush(), writer.flush()
    assert second is third
    assert second is not first
    disk.syncs.clear()
    assert isinstance(second, Step)
    second.run()
    assert disk.syncs == ["store"]


def test_a_failed_flush_fails_everybody_and_the_volume_for_good(writer: Writer, volume: Volume) -> None:
    write(volume, 0)
    datasync = volume.store.file.datasync

    def broken() -> None:
        raise StoreFlushFailed(path="store", reason="Input/output error")

    volume.store.file.datasync = broken  # type: ignore[method-assign]
    with pytest.raises(StoreFlushFailed):
        do(writer.flush)
    volume.store.file.datasync = datasync  # type: ignore[method-assign]
    assert "Input/output error" in volume.failed
    assert volume._tracker is not None
    assert not volume._tracker.current.is_trusted
    data = memoryview(bytes(BLOCK))
    refused: list[Any] = [
        lambda: writer.write(0, data, False),
        lambda: writer.zero(0, BLOCK, False, True),
        lambda: writer.discard(0, BLOCK, False),
        writer.flush,
        lambda: volume.prepare_capture(b"s" * 16),
        volume.open_writer,
        volume.stop_clean,
    ]
    for call in refused:
        with pytest.raises(VolumeFailed):
            call()
    assert volume.dirty() == BlockSet.of_extents((0, 1))


def test_a_durable_write_that_fails_is_a_failed_flush(writer: Writer, volume: Volume) -> None:
    write(volume, 0)

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    volume.store.file.write = broken  # type: ignore[method-assign]
    with pytest.raises(StoreFlushFailed):
        do(lambda: writer.write(0, memoryview(bytes(BLOCK)), True))
    assert volume.failed


# Errors of the store


@pytest.mark.parametrize("number", [5, 28])
def test_a_write_that_fails_leaves_its_bits_and_the_volume_up(
    tmp_path: Path, live: Path, disk: PowerDisk, number: int
) -> None:
    volume = tracked(tmp_path, live, disk)
    writer = volume.open_writer()
    write(volume, 0)

    def broken(path: str) -> None:
        if path.endswith("/store"):
            raise OSError(number, "injected")

    disk.hooks["write"] = broken
    for length in (BLOCK, INLINE_BYTES):
        with pytest.raises(OSError, match="injected"):
            do(lambda: writer.write(8 * BLOCK, memoryview(bytes(length)), False))  # noqa: B023
    disk.hooks.clear()
    assert not volume.failed
    assert volume.dirty() == BlockSet.of_extents((0, 1), (8, 256))
    assert volume._tracker is not None
    assert volume._tracker.in_flight.is_empty
    write(volume, 8)


def test_no_memory_for_a_bit_means_no_write(writer: Writer, volume: Volume) -> None:
    assert volume._tracker is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    volume._tracker.current._live.back = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space"):
        do(lambda: writer.write(50 * REGION, memoryview(b"x" * BLOCK), False))
    assert read(writer, 50 * REGION, BLOCK) == bytes(BLOCK)


def test_a_log_that_cannot_be_written_stops_the_volume(writer: Writer, volume: Volume, disk: PowerDisk) -> None:
    def broken(path: str) -> None:
        raise OSError(5, "injected")

    disk.hooks["sync"] = broken
    with pytest.raises(Exception, match="injected"):
        do(lambda: writer.write(0, memoryview(b"x" * BLOCK), False))
    disk.hooks.clear()
    with pytest.raises(VolumeFailed):
        writer.write(0, memoryview(b"x" * BLOCK), False)
    assert read(writer, 0, BLOCK) == bytes(BLOCK)


# The right to write


def test_a_revoked_writer_writes_nothing_and_still_reads(writer: Writer, volume: Volume) -> None:
    write(volume, 0, b"1" * BLOCK)
    assert volume.revoke_writer().over
    assert writer.revoked
    for call in (
        lambda: writer.write(0, memoryview(b"2" * BLOCK), False),
        lambda: writer.zero(0, BLOCK, False, True),
        lambda: writer.discard(0, BLOCK, False),
    ):
        with pytest.raises(WriteRefused):
            call()
    assert read(writer, 0, BLOCK) == b"1" * BLOCK
    do(writer.flush)


def test_a_revoked_writer_stays_so_beside_a_new_one(writer: Writer, volume: Volume) -> None:
    write(volume, 0)
    with pytest.raises(AssertionError):
        volume.open_writer()
    volume.revoke_writer()
    other = volume.open_writer()
    do(lambda: other.write(0, memoryview(b"2" * BLOCK), False))
    assert other.write(0, memoryview(b"2" * BLOCK), False) is None
    with pytest.raises(WriteRefused):
        writer.write(0, memoryview(b"3" * BLOCK), False)
    assert read(other, 0, BLOCK) == b"2" * BLOCK


def test_revoking_is_over_when_no_write_is_in_flight(writer: Writer, volume: Volume) -> None:
    write(volume, 0)
    step = writer.write(0, memoryview(bytes(INLINE_BYTES)), False)
    assert isinstance(step, Step)
    wait = volume.revoke_writer()
    assert not wait.over
    step.run()
    assert wait.over


def test_a_write_that_waits_is_refused_when_it_comes_back(writer: Writer, volume: Volume) -> None:
    data = memoryview(b"x" * BLOCK)
    heat = writer.write(0, data, False)
    assert isinstance(heat, Step)
    volume.revoke_writer()
    heat.run()
    with pytest.raises(WriteRefused):
        writer.write(0, data, False)
    assert read(writer, 0, BLOCK) == bytes(BLOCK)
    assert not volume.dirty()


# Surfaces other than a store


class Slow:
    """A surface that needs something first, and whose writes all go to the pool."""

    def __init__(self, volume: Volume) -> None:
        self.size_bytes = volume.size_bytes
        self.plain = StoreSurface(volume.store, lambda _: None)
        self.ready = False
        self.marked_at_write: list[bool] = []
        self.volume = volume

    def prepare(self, offset: int, length: int) -> Wait | None:
        if self.ready:
            return None
        return Step(lambda: None, lambda _: setattr(self, "ready", True))

    def write(self, offset: int, data: memoryview, durable: bool) -> Step[Any]:
        self.marked_at_write.append(offset // BLOCK in self.volume.dirty())
        self.ready = False
        return Step(lambda: self.volume.store.write(data, offset), final=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


def test_a_surface_gets_what_it_needs_first_for_every_write(volume: Volume) -> None:
    surface = Slow(volume)
    writer = volume.open_writer(surface)
    for block in (3, 4, 3):
        data = memoryview(bytes([block]) * BLOCK)
        do(lambda: writer.write(block * BLOCK, data, False))  # noqa: B023
    assert surface.marked_at_write == [True, True, True]
    assert volume.dirty() == BlockSet.of_extents((3, 2))
    assert read(writer, 3 * BLOCK, 2 * BLOCK) == b"\3" * BLOCK + b"\4" * BLOCK
    do(writer.flush)


def test_nothing_is_marked_while_a_surface_makes_ready(volume: Volume) -> None:
    surface = Slow(volume)
    writer = volume.open_writer(surface)
    data = memoryview(b"x" * BLOCK)
    heat = writer.write(0, data, False)
    assert isinstance(heat, Step)
    heat.run()
    ready = writer.write(0, data, False)
    assert isinstance(ready, Step)
    assert not volume.dirty()
    ready.run()
    assert isinstance(writer.write(0, data, False), Step)
    assert volume.dirty() == BlockSet.of_extents((0, 1))


# What it costs


def test_a_hot_write_makes_few_calls(tmp_path: Path, live: Path) -> None:
    """Calls of Python functions are what costs: the writer's own, the file's, and nothing between."""
    volume = tracked(tmp_path, live)
    writer = volume.open_writer()
    data = memoryview(bytes(BLOCK))
    for _ in range(2):
        do(lambda: writer.write(0, data, False))
    calls: list[str] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            calls.append(frame.f_code.co_name)

    sys.setprofile(profile)
    try:
        writer.write(0, data, False)
    finally:
        sys.setprofile(None)
    assert calls == ["write", "write"]


def test_a_hot_write_sets_no_bit_twice_and_makes_no_memory(volume: Volume, writer: Writer) -> None:
    assert volume._tracker is not None
    for block in (0, BLOCKS_PER_REGION):
        for _ in range(3):
            write(volume, block)
    assert volume._tracker.quick == {0, 1}
    assert volume.dirty_blocks == 2
