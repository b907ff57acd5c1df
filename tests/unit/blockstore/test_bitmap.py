"""Bits by region with a summary, and live maps that another process takes over."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from xxhash import xxh3_64_intdigest

from blockstore.blockset import BlockSet
from blockstore.disk import Disk
from blockstore.tracking.bitmap import Bitmap, LiveMap, LiveName, memory_bitmap
from blockstore.units import BLOCKS_PER_REGION

NAME = LiveName(b"v" * 16, b"o" * 16, 3, b"n" * 16)


def found(bitmap: Bitmap) -> BlockSet:
    return BlockSet(dict(bitmap.regions()))


def test_marks_are_what_a_set_of_blocks_would_hold(seed: int) -> None:
    random = Random(seed)
    bitmap, model = memory_bitmap(Disk(), 40), BlockSet()
    for _ in range(300):
        first = random.randrange(40 * BLOCKS_PER_REGION - 3000)
        count = random.choice([1, 1, 2, 9, 1024, 3000])
        bitmap.mark(first, count)
        model |= BlockSet.of_extents((first, count))
    assert found(bitmap) == model
    assert bitmap.count() == len(model)


def test_block_b_is_bit_b_and_7_of_byte_b_over_8() -> None:
    bitmap = memory_bitmap(Disk(), 2)
    bitmap.mark(1024 + 13, 1)
    assert bytes(bitmap.bits_of) == bytes(128 + 1) + b"\x20" + bytes(126)


def test_merging_and_counting_agree_with_sets(seed: int) -> None:
    random = Random(seed)
    one, two = memory_bitmap(Disk(), 300), memory_bitmap(Disk(), 300)
    for bitmap in (one, two):
        for _ in range(200):
            bitmap.mark(random.randrange(300 * 1024 - 100), random.randrange(1, 100))
    first, second = found(one), found(two)
    assert one.count_common(two) == len(first & second)
    one.merge(two)
    assert found(one) == first | second
    assert found(two) == second


def test_clearing_leaves_nothing() -> None:
    bitmap = memory_bitmap(Disk(), 10)
    bitmap.mark(100, 5000)
    bitmap.clear()
    assert not found(bitmap)
    assert bitmap.next_region(0) == -1
    bitmap.mark(2000, 1)
    assert found(bitmap) == BlockSet.of_extents((2000, 1))


def test_regions_may_be_marked_while_they_are_listed() -> None:
    bitmap = memory_bitmap(Disk(), 10)
    bitmap.mark(0, 1)
    listed = []
    for region, _ in bitmap.regions():
        listed.append(region)
        if region < 4:
            bitmap.mark((region + 2) * BLOCKS_PER_REGION, 1)
    assert listed == [0, 2, 4]


def test_a_live_map_is_laid_out_as_the_formats_say(live: Path) -> None:
    bits = LiveMap.create(Disk(), str(live), NAME, 70)
    bits.mark(69 * 1024 + 9, 1)
    bits.writes[0] = 77
    bits.oldest = 2
    bits.freeze()
    bits.set_ready()
    raw = (live / f"{'6f' * 16}.3.live").read_bytes()
    fixed = struct.pack("<8sHHI16s16sQ16s", b"LWLIVE1\0", 1, 0, 70, b"v" * 16, b"o" * 16, 3, b"n" * 16)
    assert raw[:72] == fixed
    assert raw[72:80] == struct.pack("<Q", xxh3_64_intdigest(fixed))
    assert raw[80:108] == struct.pack("<QQIII", 77, 2, 1, 0, 1)
    assert raw[4096 + 69 * 128 : 4096 + 70 * 128] == b"\0\2" + bytes(126)
    assert len(raw) == 4096 * 4
    bits.close()


def test_a_killed_process_leaves_its_marks(live: Path) -> None:
    """A real one, killed by SIGKILL in the middle of it."""
    program = f"""
import os, signal
from blockstore.disk import Disk
from blockstore.tracking.bitmap import LiveMap, LiveName
bits = LiveMap.create(Disk(), {str(live)!r}, LiveName(b"v" * 16, b"o" * 16, 3, b"n" * 16), 3000)
bits.mark(5, 2); bits.mark(2900 * 1024 + 7, 1025); bits.writes[0] = 9
bits.set_ready()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    bits = LiveMap.open(Disk(), str(live / NAME.file_name), 3000, b"v" * 16, b"o" * 16)
    assert bits is not None
    assert (bits.is_trusted, bits.is_frozen, bits.writes[0], bits.name) == (True, False, 9, NAME)
    assert found(bits) == BlockSet.of_extents((5, 2), (2900 * 1024 + 7, 1025))
    bits.close()


def test_a_map_that_was_not_filled_or_was_poisoned_is_not_trusted(live: Path) -> None:
    bits = LiveMap.create(Disk(), str(live), NAME, 10)
    assert not bits.is_trusted
    bits.set_ready()
    assert bits.is_trusted
    bits.poison()
    assert not bits.is_trusted
    bits.close()


@pytest.mark.parametrize("at", [*range(80)])
def test_a_map_with_a_changed_header_is_not_taken(live: Path, at: int) -> None:
    LiveMap.create(Disk(), str(live), NAME, 10).close()
    path = live / NAME.file_name
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    assert LiveMap.open(Disk(), str(path), 10, b"v" * 16, b"o" * 16) is None


def test_a_map_of_another_volume_owner_or_size_is_not_taken(live: Path) -> None:
    LiveMap.create(Disk(), str(live), NAME, 10).close()
    path = str(live / NAME.file_name)
    assert LiveMap.open(Disk(), path, 10, b"w" * 16, b"o" * 16) is None
    assert LiveMap.open(Disk(), path, 10, b"v" * 16, b"p" * 16) is None
    assert LiveMap.open(Disk(), path, 100, b"v" * 16, b"o" * 16) is None
    assert LiveMap.open(Disk(), path + "x", 10, b"v" * 16, b"o" * 16) is None


def fill(bits: LiveMap) -> None:
    """A mark in every page."""
    for region in range(0, 100_000, 32):
        bits.mark(region * 1024, 1)


def test_a_full_tmpfs_is_an_error_and_no_signal(live: Path) -> None:
    mount = live / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], check=True)
    try:
        bits = LiveMap.create(Disk(), str(mount), NAME, 100_000)
        with pytest.raises(OSError, match="No space") as full:
            fill(bits)
        assert full.value.errno == errno.ENOSPC
        assert 10 <= len(found(bits)) <= 16
        assert bits.count() == len(found(bits))  # readers never touch what has no memory behind it
        bits.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_reading_makes_no_memory(live: Path) -> None:
    bits = LiveMap.create(Disk(), str(live), NAME, 1_000_000)
    bits.mark(999_999 * 1024, 1)
    path = live / NAME.file_name
    before = path.stat().st_blocks
    assert bits.count() == 1
    assert list(bits.regions()) == [(999_999, 1)]
    assert bits.bits(5) == 0
    other = LiveMap.open(Disk(), str(path), 1_000_000, b"v" * 16, b"o" * 16)
    assert other is not None
    assert other.count() == 1
    assert path.stat().st_blocks == before == 2 * 8
    other.close()
    bits.close()
    assert list(live.iterdir())


def test_without_tmpfs_a_map_is_in_memory_and_nobody_finds_it(tmp_path: Path) -> None:
    bits = LiveMap.create(Disk(), str(tmp_path), NAME, 10)
    bits.mark(3, 1)
    assert not list(tmp_path.iterdir())
    assert found(bits) == BlockSet.of_extents((3, 1))
    bits.remove(Disk())
