"""Holes of a store: what is called one reads as zeros at that moment, on every file system that is believed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from blockstore.disk import Disk
from blockstore.holes import blank_regions, knows_holes, read_data
from blockstore.stores.base import BlockStore
from blockstore.stores.kinds import make_store, open_store
from blockstore.units import BLOCK, REGION, WHOLE_REGION

REGIONS = 40
SIZE = REGIONS * REGION - 3 * BLOCK - 700
ALL = [(region, WHOLE_REGION) for region in range(REGIONS)]


@pytest.fixture(params=["disk", "tmpfs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, live: Path) -> BlockStore:
    path = str((tmp_path if request.param == "disk" else live) / "store")
    make_store(Disk(), path, SIZE)
    return open_store(Disk(), path)


def scatter(store: BlockStore, chance: Random) -> None:
    """Some writes, some punches, some writes of zeros; a few of them on the disk, the rest in the page cache only."""
    for _ in range(25):
        offset = chance.randrange(SIZE)
        length = min(SIZE - offset, chance.choice([1, BLOCK, 70_000, REGION + 5]))
        kind = chance.random()
        if kind < 0.6:
            store.write(chance.randbytes(length), offset)
        elif kind < 0.8:
            store.zero(offset, length)
        else:
            store.write(bytes(length), offset)
        if chance.random() < 0.2:
            store.flush()


def test_what_is_called_blank_reads_as_zeros_and_what_was_never_written_is_blank(store: BlockStore, seed: int) -> None:
    chance = Random(seed)
    assert knows_holes(Disk(), store)
    assert blank_regions(store, ALL) == ALL
    whole = memoryview(bytearray(REGIONS * REGION))
    for _ in range(6):
        scatter(store, chance)
        asked = sorted(chance.sample(ALL, chance.randrange(1, REGIONS)))
        blank = blank_regions(store, asked)
        store.read_into(whole, 0)
        assert not [region for region, _ in blank if any(whole[region * REGION : (region + 1) * REGION])]
        missed = [region for region, _ in asked if (region, WHOLE_REGION) not in blank]
        found = {
            at // REGION
            for offset, length, is_data in store.data_ranges(0, SIZE)
            if is_data
            for at in range(offset // REGION * REGION, offset + length, REGION)
        }
        assert set(missed) <= found, "a region without data is blank"


def test_a_read_that_leaves_holes_out_is_a_read(store: BlockStore, seed: int) -> None:
    chance = Random(seed)
    for _ in range(6):
        scatter(store, chance)
        for _ in range(20):
            offset = chance.randrange(SIZE // BLOCK) * BLOCK
            length = chance.randrange(1, 1025) * BLOCK
            plain, quick = (memoryview(bytearray(b"?" * length)) for _ in range(2))
            store.read_into(plain, offset)
            read_data(store, quick, offset)
            assert plain == quick


def test_a_store_that_became_shorter_is_an_error_and_never_zeros(store: BlockStore) -> None:
    os.truncate(store.path, SIZE // 2)
    assert blank_regions(store, ALL) == []
    with pytest.raises(OSError, match="shorter"):
        read_data(store, memoryview(bytearray(REGION)), (REGIONS - 2) * REGION)


def test_no_hole_of_a_device_is_believed(tmp_path: Path) -> None:
    """Its node lies on a tmpfs, which says nothing about it."""
    make_store(Disk(), str(tmp_path / "image"), SIZE + 700)
    command = ["losetup", "--find", "--show", str(tmp_path / "image")]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        store = open_store(Disk(), device)
        assert not knows_holes(Disk(), store)
        store.close()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_file_behind_a_link_is_judged_by_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    make_store(Disk(), str(tmp_path / "elsewhere" / "store"), SIZE)
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere" / "store")
    store = open_store(Disk(), str(tmp_path / "store"))
    real = Disk.file_system_type
    zfs = 0x2FC12FC1
    monkeypatch.setattr(Disk, "file_system_type", lambda at, dir: zfs if "elsewhere" in dir else real(at, dir))
    assert not knows_holes(Disk(), store)
