"""A volume from opening to closing: whose store it takes, what a real kill leaves, a loop device under it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made import SIZE, TRACKING, VOLUME, do, open_volume, tracked, write

from blockstore.blockset import BlockSet
from blockstore.disk import Disk
from blockstore.errors import StoreInUse, StoreMissing, StoreSizeChanged
from blockstore.stores.kinds import make_store
from blockstore.units import BLOCK
from blockstore.volume import Volume
from blockstore.writer import freeze


def test_a_store_of_another_size_is_refused_and_left_free(tmp_path: Path) -> None:
    make_store(Disk(), str(tmp_path / "store"), SIZE + 512)
    with pytest.raises(StoreSizeChanged) as refused:
        open_volume(tmp_path, None)
    assert (refused.value.size_bytes, refused.value.expected_bytes) == (SIZE + 512, SIZE)
    open_volume(tmp_path, None, size=SIZE + 512).close()


def test_a_store_that_is_larger_than_its_volume_is_known_by_its_own_size(tmp_path: Path) -> None:
    make_store(Disk(), str(tmp_path / "store"), SIZE + 777)
    volume = open_volume(tmp_path, None, store_size=SIZE + 777)
    assert (volume.size_bytes, volume.store.size_bytes) == (SIZE, SIZE)
    volume.close()
    for wrong in (SIZE, SIZE + 776, SIZE + 778):
        with pytest.raises(StoreSizeChanged):
            open_volume(tmp_path, None, store_size=wrong)


def test_a_missing_store_is_refused(tmp_path: Path) -> None:
    volume = open_volume(tmp_path, None)
    volume.close()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreMissing):
        Volume.open(
            Disk(),
            name="v",
            volume_id=VOLUME,
            store_path=str(tmp_path / "store"),
            size_bytes=SIZE,
            folder=str(tmp_path / "volume"),
            live_folder=None,
            hash_seed=7,
        )


def test_a_volume_has_its_store_alone_until_it_is_closed(tmp_path: Path) -> None:
    volume = open_volume(tmp_path, None)
    with pytest.raises(StoreInUse):
        open_volume(tmp_path, None)
    volume.close()
    volume.close()
    open_volume(tmp_path, None).close()


def test_without_tracking_a_volume_is_a_store_and_hashes(tmp_path: Path) -> None:
    volume = open_volume(tmp_path, None)
    assert (volume.name, volume.volume_id, volume.size_bytes, volume.hash_seed) == ("vol", VOLUME, SIZE, 7)
    assert (volume.dirty_blocks, volume.dirty(), volume.dirty_bits(0), volume.writes) == (0, BlockSet(), 0, 0)
    assert list(volume.dirty_regions()) == []
    assert volume.cool(0.0, all=True) is None
    assert volume.revoke_writer().over
    do(volume.stop_clean)
    volume.close()


def test_the_life_of_a_volume(tmp_path: Path, live: Path) -> None:
    """Write, capture, seal, stop, start, write again: only that is dirty."""
    volume = tracked(tmp_path, live)
    volume.open_writer()
    for block in (3, 9000):
        write(volume, block)
    volume.prepare_capture(b"s" * 16)
    (capture,) = freeze([volume])
    capture.flush().run()
    capture.done(0, 1 << 3)
    capture.settle().run()
    assert not volume.dirty()
    write(volume, 4)
    assert volume.revoke_writer().over
    do(volume.stop_clean)
    identity = volume.store.identity()
    volume.close()
    volume = open_volume(tmp_path, live)
    assert volume.store.identity() == identity
    found = volume.open_tracking(TRACKING, nonce=bytes(16), clean=True, pending=False, writes=3)
    assert (found.lost, found.suspect_blocks) == ("", 0)
    volume.maps_committed()
    volume.open_writer()
    write(volume, 8000)
    assert volume.dirty() == BlockSet.of_extents((4, 1), (8000, 1))
    assert volume.writes == 4
    volume.close()


def test_closing_waits_for_a_cooling_that_runs(tmp_path: Path, live: Path) -> None:
    volume = tracked(tmp_path, live)
    volume.open_writer()
    write(volume, 3)
    step = volume.cool(0.0, all=True)
    assert step is not None
    work = step.start()
    assert volume.revoke_writer().over
    assert volume.stop_clean() is step  # not final: call again after it
    step.complete(work())
    do(volume.stop_clean)
    volume.close()


def test_a_real_process_killed_in_the_middle_loses_nothing(tmp_path: Path, live: Path) -> None:
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from made import tracked, write
volume = tracked(Path({str(tmp_path)!r}), Path({str(live)!r}))
volume.open_writer()
for block in (3, 9000, 70000): write(volume, block, bytes([block % 251]) * 4096)
volume.prepare_capture(b"s" * 16)
from blockstore.writer import freeze
freeze([volume])
write(volume, 3, b"2" * 4096)
write(volume, 5)
print(volume._tracker.current.name.nonce.hex(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == -9, ended.stderr
    volume = open_volume(tmp_path, live)
    nonce = bytes.fromhex(ended.stdout.strip())
    found = volume.open_tracking(TRACKING, nonce=nonce, clean=False, pending=False)
    assert (found.lost, found.suspect_blocks, found.writes) == ("", 0, 5)
    assert volume.dirty() == BlockSet.of_extents((3, 1), (5, 1), (9000, 1), (70000, 1))
    buffer = memoryview(bytearray(BLOCK))
    volume.store.read_into(buffer, 3 * BLOCK)
    assert bytes(buffer) == b"2" * BLOCK
    volume.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[str, int]]:
    size = (40 << 20) + 3 * 512
    make_store(Disk(), str(tmp_path / "backing"), size)
    command = ["losetup", "--find", "--show", str(tmp_path / "backing")]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield name, size
    subprocess.run(["losetup", "--detach", name], check=True)


def test_a_volume_on_a_loop_device(tmp_path: Path, live: Path, device: tuple[str, int]) -> None:
    name, size = device

    def opened() -> Volume:
        return Volume.open(
            Disk(),
            name="v",
            volume_id=VOLUME,
            store_path=name,
            size_bytes=size,
            folder=str(tmp_path / "volume"),
            live_folder=str(live),
            hash_seed=7,
        )

    volume = opened()
    volume.start_tracking(TRACKING, all_dirty=False)
    volume.open_tracking(TRACKING, nonce=bytes(16), clean=False, pending=False)
    volume.maps_committed()
    writer = volume.open_writer()
    last = size // BLOCK
    write(volume, 2, b"a" * BLOCK)
    write(volume, last, b"z" * 1536)
    volume.prepare_capture(b"s" * 16)
    (capture,) = freeze([volume])
    write(volume, 2, b"b" * BLOCK)
    do(lambda: writer.discard(0, size, True))
    buffer = memoryview(bytearray(BLOCK))
    capture.read(2, 1, buffer).run()
    assert bytes(buffer) == b"a" * BLOCK
    capture.read(last, 1, buffer).run()
    assert bytes(buffer) == b"z" * 1536 + bytes(BLOCK - 1536)
    capture.abandon()
    assert volume.revoke_writer().over
    do(volume.stop_clean)
    volume.close()
    volume = opened()
    content = memoryview(bytearray(size))
    volume.store.read_into(content, 0)
    assert not any(content)
    volume.close()
