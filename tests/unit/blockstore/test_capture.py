"""The frozen image: what is preserved, what is read, and how a capture ends or fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from made import SIZE, do, open_volume, tracked, write
from power_disk import PowerDisk

from blockstore.blockset import BlockSet
from blockstore.capture import INLINE_BLOCKS, Capture
from blockstore.errors import CaptureFailed, StoreFlushFailed, VolumeFailed
from blockstore.steps import Step
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION, blocks_in
from blockstore.volume import Volume
from blockstore.writer import freeze

OLD, NEW = b"o" * BLOCK, b"n" * BLOCK


@pytest.fixture
def volume(tmp_path: Path, live: Path) -> Iterator[Volume]:
    volume = tracked(tmp_path, live)
    volume.open_writer()
    yield volume
    volume.close()


def capture_of(volume: Volume) -> Capture:
    volume.prepare_capture(b"s" * 16)
    (capture,) = freeze([volume])
    return capture


def read(capture: Capture, first: int, count: int = 1) -> bytes:
    buffer = memoryview(bytearray(count * BLOCK))
    capture.read(first, count, buffer).run()
    return bytes(buffer)


def uncached(volume: Volume) -> None:
    """From now on nothing of the store is in the page cache."""
    volume.store.read_cached = lambda buffer, offset: False  # type: ignore[method-assign]


def test_a_frozen_block_reads_as_at_the_switch_after_a_write(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    assert write(volume, 7, NEW) == 0  # kept inline
    assert write(volume, 7, b"2" * BLOCK) == 0
    assert read(capture, 7) == OLD
    buffer = memoryview(bytearray(BLOCK))
    volume.store.read_into(buffer, 7 * BLOCK)
    assert bytes(buffer) == b"2" * BLOCK


def test_blocks_that_the_receiver_changed_are_captured_and_never_become_dirty(volume: Volume) -> None:
    write(volume, 7, OLD)
    write(volume, 9, OLD)
    volume.set_clean_everything()
    write(volume, 8, OLD)
    volume.prepare_capture(b"s" * 16, [(0, 1 << 7 | 1 << 8)])
    (capture,) = freeze([volume])
    assert (capture.blocks, list(capture.regions())) == (2, [(0, 1 << 7 | 1 << 8)])
    assert capture.theirs(0) == 1 << 7 | 1 << 8
    write(volume, 7, NEW)
    write(volume, 9, NEW)
    assert read(capture, 7) == OLD, "a write behind the switch must not leak into the point"
    capture.done(0, 1 << 7)
    assert list(capture.regions()) == [(0, 1 << 8)]
    capture.abandon()
    assert list(volume.dirty_regions()) == [(0, 1 << 7 | 1 << 8 | 1 << 9)]


def test_an_abandoned_capture_leaves_nothing_of_the_receivers_changes(volume: Volume) -> None:
    volume.prepare_capture(b"s" * 16, [(0, 1 << 7)])
    (capture,) = freeze([volume])
    assert capture.blocks == 1
    capture.abandon()
    assert volume.dirty_blocks == 0


def test_a_partial_write_preserves_the_whole_block(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    writer = volume._writer
    assert writer is not None
    do(lambda: writer.write(7 * BLOCK + 100, memoryview(b"!"), False))
    assert read(capture, 7) == OLD


def test_a_block_that_is_not_in_the_cache_is_kept_by_the_pool(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    uncached(volume)
    assert write(volume, 7, NEW) == 1
    assert write(volume, 7, NEW) == 0
    assert read(capture, 7) == OLD


def test_writers_of_one_block_share_its_copy(volume: Volume) -> None:
    for block in (7, 8):
        write(volume, block, OLD)
    capture_of(volume)
    uncached(volume)
    writer = volume._writer
    assert writer is not None
    first = writer.write(7 * BLOCK, memoryview(NEW), False)
    assert isinstance(first, Step)
    assert writer.write(7 * BLOCK, memoryview(NEW), False) is first
    other = writer.write(8 * BLOCK, memoryview(NEW), False)
    assert isinstance(other, Step)
    assert other is not first


def test_only_what_was_frozen_is_preserved(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    uncached(volume)
    assert write(volume, 6, NEW) == 0
    assert volume.dirty() == BlockSet.of_extents((6, 2))
    assert dict(capture.regions()) == {0: 1 << 7}


def test_a_long_write_preserves_all_its_frozen_blocks(volume: Volume, seed: int) -> None:
    random = Random(seed)
    content = {block: random.randbytes(BLOCK) for block in random.sample(range(1000, 1100), 40)}
    for block, data in content.items():
        write(volume, block, data)
    capture = capture_of(volume)
    write(volume, 1000, bytes(100 * BLOCK))
    for block, data in content.items():
        assert read(capture, block) == data


def test_a_wide_discard_preserves_region_by_region(volume: Volume) -> None:
    for region in range(0, 90, 3):
        write(volume, region * BLOCKS_PER_REGION + region, bytes([region + 1]) * BLOCK)
    capture = capture_of(volume)
    writer = volume._writer
    assert writer is not None
    do(lambda: writer.discard(0, SIZE, False))
    for region in range(0, 90, 3):
        assert read(capture, region * BLOCKS_PER_REGION + region) == bytes([region + 1]) * BLOCK


def test_many_runs_are_read_in_one_step_end_to_end(volume: Volume, seed: int) -> None:
    content = {block: bytes([block % 251 + 1]) * BLOCK for block in range(1000, 1060)}
    for block, data in content.items():
        write(volume, block, data)
    capture = capture_of(volume)
    for block in range(1000, 1060, 7):
        write(volume, block, NEW)
    runs = [(1000, 3), (1010, 1), (1020, 30)]
    buffer = memoryview(bytearray(34 * BLOCK))
    step = capture.read_runs(runs, buffer, lambda: bytes(buffer[:1]) + b"seen")
    assert step.final
    assert step.run() == content[1000][:1] + b"seen"
    assert bytes(buffer) == b"".join(content[block] for first, count in runs for block in range(first, first + count))


def test_a_read_that_a_write_overtakes_gives_the_frozen_block(tmp_path: Path, live: Path) -> None:
    """The write comes in the middle of the read: half of what was read is new."""
    disk = PowerDisk()
    volume = tracked(tmp_path, live, disk)
    volume.open_writer()
    write(volume, 7, OLD)
    capture = capture_of(volume)

    def overtake(path: str) -> None:
        del disk.hooks["read"]
        write(volume, 7, NEW)

    disk.hooks["read"] = overtake
    assert read(capture, 7) == OLD


def test_the_short_last_block_is_padded_and_preserved(volume: Volume) -> None:
    last = blocks_in(SIZE) - 1
    write(volume, last, b"t" * 512)
    capture = capture_of(volume)
    write(volume, last, b"u" * 512)
    assert read(capture, last) == b"t" * 512 + bytes(BLOCK - 512)


def test_what_is_done_is_not_preserved_any_more(volume: Volume) -> None:
    for block in (7, 8, 5000):
        write(volume, block, OLD)
    capture = capture_of(volume)
    assert (capture.blocks, capture.remaining) == (3, 3)
    capture.done(0, 1 << 7 | 1 << 100)
    capture.done(0, 1 << 7)
    assert (capture.blocks, capture.remaining) == (3, 2)
    assert dict(capture.regions()) == {0: 1 << 8, 4: 1 << (5000 - 4096)}
    assert capture.bits(0) == 3 << 7
    uncached(volume)
    assert write(volume, 7, NEW) == 0
    assert write(volume, 8, NEW) == 1


def test_a_region_with_nothing_left_to_preserve_asks_no_more(volume: Volume) -> None:
    for block in (7, 8):
        write(volume, block, OLD)
    capture = capture_of(volume)
    assert capture.guards(0)
    write(volume, 7, NEW)
    assert capture.guards(0)
    capture.done(0, 1 << 8)
    assert not capture.guards(0)
    write(volume, 8, NEW)
    assert volume._tracker is not None
    assert 0 in volume._tracker.quick


def test_regions_are_listed_while_they_are_done(volume: Volume) -> None:
    for region in range(5):
        write(volume, region * BLOCKS_PER_REGION)
    capture = capture_of(volume)
    listed = []
    for region, _ in capture.regions():
        listed.append(region)
        capture.done(region, 1)
        capture.done(region + 1, 1)
    assert listed == [0, 2, 4]
    assert capture.remaining == 0


def test_writes_that_need_a_copy_wait_for_those_from_before_the_switch(volume: Volume) -> None:
    writer = volume._writer
    assert writer is not None
    write(volume, 1000, OLD * 256)
    before = writer.write(1000 * BLOCK, memoryview(b"b" * REGION), False)
    assert isinstance(before, Step)
    capture = capture_of(volume)
    assert not capture.quiesced.over
    assert writer.write(1000 * BLOCK, memoryview(NEW), False) is capture.quiesced
    assert write(volume, 5, NEW) == 0  # no copy, no waiting
    with pytest.raises(AssertionError):
        capture.flush()
    with pytest.raises(AssertionError):
        capture.read(1000, 1, memoryview(bytearray(BLOCK)))
    before.run()
    assert capture.quiesced.over
    write(volume, 1000, NEW)
    assert read(capture, 1000) == b"b" * BLOCK


def test_nothing_is_settled_before_the_flush(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    with pytest.raises(CaptureFailed):
        capture.settle()
    assert volume.dirty() == BlockSet.of_extents((7, 1))
    capture.flush().run()
    assert capture.flushed
    write(volume, 8, NEW)
    step = capture.settle()
    assert volume.dirty() == BlockSet.of_extents((8, 1))
    step.run()
    assert volume.dirty_blocks == 1


def test_a_flush_that_fails_is_never_taken_for_one(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)

    def broken() -> None:
        raise StoreFlushFailed(path="store", reason="Input/output error")

    volume.store.flush = broken  # type: ignore[method-assign]
    with pytest.raises(StoreFlushFailed):
        capture.flush().run()
    assert not capture.flushed
    assert volume.failed
    with pytest.raises(CaptureFailed):
        capture.settle()
    with pytest.raises(VolumeFailed):
        write(volume, 7)


def test_what_was_abandoned_is_dirty_again(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    capture.done(0, 1 << 7)
    write(volume, 8, NEW)
    capture.abandon()
    capture.abandon()
    assert volume.dirty() == BlockSet.of_extents((7, 2))
    assert list(capture.regions()) == []
    with pytest.raises(CaptureFailed):
        capture.read(7, 1, memoryview(bytearray(BLOCK)))
    again = capture_of(volume)
    assert dict(again.regions()) == {0: 3 << 7}


def test_a_capture_leaves_nothing_behind(tmp_path: Path, live: Path, volume: Volume) -> None:
    def names() -> list[str]:
        return sorted(path.name for folder in (tmp_path / "volume", live) for path in folder.iterdir())

    before, opened = len(names()), len(open_files(tmp_path, live))
    for how in ("settle", "abandon", "settle"):
        write(volume, 7, OLD)
        capture = capture_of(volume)
        write(volume, 7, NEW)
        assert len(names()) == before + 1  # the other live map; the capture file has no name
        capture.flush().run()
        if how == "settle":
            capture.settle().run()
        else:
            capture.abandon()
    assert len(names()) == before
    assert len(open_files(tmp_path, live)) == opened
    assert not [name for name in names() if "capture" in name]


def test_files_stay_open_for_a_copy_under_way(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    uncached(volume)
    writer = volume._writer
    assert writer is not None
    copy = writer.write(7 * BLOCK, memoryview(NEW), False)
    assert isinstance(copy, Step)
    work = copy.start()
    capture.flush().run()
    capture.settle().run()
    copy.complete(work())  # into a file that is still the capture's own
    assert write(volume, 7, NEW) == 0
    volume.prepare_capture(b"2" * 16)


def test_a_capture_file_that_fails_stops_the_sync_and_not_the_host(volume: Volume) -> None:
    for block in (7, 8, 9):
        write(volume, block, OLD)
    capture = capture_of(volume)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    capture._parts.file.write = full  # type: ignore[method-assign]
    assert write(volume, 7, NEW) == 0
    assert isinstance(capture.failed, CaptureFailed)
    assert "No space left" in capture.failed.message
    uncached(volume)
    assert write(volume, 8, NEW) == 0
    with pytest.raises(CaptureFailed):
        capture.read(9, 1, memoryview(bytearray(BLOCK)))
    assert not volume.failed
    capture.abandon()
    assert volume.dirty() == BlockSet.of_extents((7, 3))


def test_a_copy_in_the_pool_that_fails_stops_the_sync_and_not_the_host(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    uncached(volume)

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    volume.store.read_into = broken  # type: ignore[method-assign]
    assert write(volume, 7, NEW) == 1
    assert capture.failed is not None


def test_a_read_under_way_when_the_capture_fails_does_not_count(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    step = capture.read(7, 1, memoryview(bytearray(BLOCK)))
    work = step.start()
    capture._fail(OSError(28, "No space left on device"))
    step.complete(work())
    assert isinstance(step.error, CaptureFailed)


def test_captures_follow_each_other(volume: Volume, seed: int) -> None:
    random, sealed, now = Random(seed), {}, {}
    for round_number in range(20):
        capture = capture_of(volume)
        image = dict(now)
        for _ in range(20):
            block = random.randrange(40)
            now[block] = bytes([random.randrange(1, 256)]) * BLOCK
            write(volume, block, now[block])
        frozen = [block for region, bits in capture.regions() for block in range(40) if bits >> block & 1]
        for block in frozen:
            assert read(capture, block) == image[block]
        capture.flush().run()
        if round_number % 4 == 3:
            capture.abandon()
            continue
        sealed.update({block: image[block] for block in frozen})
        capture.settle().run()
        differing = {block for block in now if now[block] != sealed.get(block)}
        assert differing <= {block for block in range(40) if block in volume.dirty()}


def test_many_blocks_at_once_are_left_to_the_pool(volume: Volume) -> None:
    write(volume, 0, OLD * (INLINE_BLOCKS + 1))
    capture_of(volume)
    assert write(volume, 0, NEW * (INLINE_BLOCKS + 1)) == 1


def test_a_capture_needs_its_preparation_and_only_one_runs(volume: Volume) -> None:
    with pytest.raises(CaptureFailed):
        freeze([volume])
    capture_of(volume)
    volume.prepare_capture(b"2" * 16)
    with pytest.raises(CaptureFailed):
        freeze([volume])


def test_preparing_again_replaces_what_was_not_used(volume: Volume, live: Path) -> None:
    for _ in range(3):
        volume.prepare_capture(b"s" * 16)
    assert len(list(live.iterdir())) == 2
    freeze([volume])


def test_all_volumes_are_frozen_or_none(tmp_path: Path, live: Path) -> None:
    volumes = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (live / name).mkdir()
        volumes.append(tracked(tmp_path / name, live / name))
        volumes[-1].open_writer()
        write(volumes[-1], 7, OLD)
    for volume in volumes[:2]:
        volume.prepare_capture(b"s" * 16)
    with pytest.raises(CaptureFailed):
        freeze(volumes)
    volumes[2].prepare_capture(b"s" * 16)
    captures = freeze(volumes)
    for volume, capture in zip(volumes, captures, strict=True):
        write(volume, 7, NEW)
        assert read(capture, 7) == OLD
        volume.close()


def test_a_full_tmpfs_keeps_abandoned_blocks_dirty_in_their_own_map(volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    assert volume._tracker is not None
    back = volume._tracker.current._live.back

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    volume._tracker.current._live.back = full  # type: ignore[method-assign]
    capture.abandon()
    assert volume.dirty() == BlockSet.of_extents((7, 1))
    with pytest.raises(OSError, match="No space"):
        write(volume, 20 * BLOCKS_PER_REGION)
    volume.prepare_capture(b"2" * 16)
    with pytest.raises(CaptureFailed):
        freeze([volume])
    volume._tracker.current._live.back = back  # type: ignore[method-assign]
    (again,) = freeze([volume])
    assert dict(again.regions()) == {0: 1 << 7}


def test_a_closed_volume_closes_its_capture_file(tmp_path: Path, live: Path, volume: Volume) -> None:
    write(volume, 7, OLD)
    capture = capture_of(volume)
    write(volume, 7, NEW)
    capture.abandon()
    volume.close()
    assert open_files(tmp_path, live) == []
    open_volume(tmp_path, live).close()


def open_files(*folders: Path) -> list[str]:
    """What this process has open below the folders, names that are gone included."""
    targets = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor that listed them
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
    return [target for target in targets if target.startswith(tuple(str(folder) for folder in folders))]


def test_a_block_that_is_being_copied_is_not_written_meanwhile(volume: Volume) -> None:
    """The first writer found it uncached and waits for the pool; a second one finds it cached."""
    write(volume, 7, OLD)
    capture = capture_of(volume)
    writer = volume._writer
    assert writer is not None
    cached = volume.store.read_cached
    uncached(volume)
    copy = writer.write(7 * BLOCK, memoryview(NEW), False)
    assert isinstance(copy, Step)
    volume.store.read_cached = cached  # type: ignore[method-assign]
    assert writer.write(7 * BLOCK, memoryview(NEW), False) is copy
    copy.run()
    write(volume, 7, NEW)
    assert read(capture, 7) == OLD
