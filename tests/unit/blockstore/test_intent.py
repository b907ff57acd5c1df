"""The intent log: its format, two slots, and what a torn record costs."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest
from power_disk import PowerDisk
from xxhash import xxh3_64_intdigest

from blockstore.disk import Disk
from blockstore.errors import TrackingLost
from blockstore.tracking.intent import CLEAN_STOP, MAX_REGIONS, IntentLog, IntentRecord

V, T = b"v" * 16, b"t" * 16


def create(path: Path, disk: Disk | None = None) -> IntentLog:
    return IntentLog.create(disk or Disk(), str(path), volume_id=V, owner=T)


def reopen(path: Path, volume: bytes = V, owner: bytes = T) -> IntentRecord:
    log = IntentLog.open(Disk(), str(path), volume_id=volume, owner=owner)
    log.close()
    return log.newest


def test_a_record_is_laid_out_as_the_formats_say(tmp_path: Path) -> None:
    log = create(tmp_path / "i")
    log.write(log.stage([9, 3, 4_000_000_000], CLEAN_STOP))
    raw = (tmp_path / "i").read_bytes()
    head = struct.pack("<8sHHI16s16sQ", b"LWINTNT1", 1, 1, 3, V, T, 2)
    body = struct.pack("<3I", 3, 9, 4_000_000_000).ljust(4096 - 64, b"\0")
    check = xxh3_64_intdigest(head + bytes(8) + body)
    assert raw[:4096] == head + struct.pack("<Q", check) + body
    assert raw[65536 + 48 : 65536 + 56] == struct.pack("<Q", 1)  # the empty record that it was made with
    assert len(raw) == 131072


def test_space_for_later_records_is_written_and_not_reserved(tmp_path: Path) -> None:
    disk = PowerDisk()
    create(tmp_path / "i", disk)
    assert disk.syncs == ["i"]
    assert len(disk.files[str(tmp_path / "i")].durable) == 256


def test_a_new_log_is_empty_and_not_clean(tmp_path: Path) -> None:
    create(tmp_path / "i").close()
    assert reopen(tmp_path / "i") == IntentRecord(1, 0, ())
    assert not reopen(tmp_path / "i").is_clean


def test_the_newest_record_counts_and_the_slots_take_turns(tmp_path: Path) -> None:
    log = create(tmp_path / "i")
    offsets = []
    for seq in range(2, 8):
        staged = log.stage(range(seq))
        offsets.append(staged[0])
        log.write(staged)
        assert reopen(tmp_path / "i") == IntentRecord(seq, 0, tuple(range(seq)))
    assert offsets == [0, 65536] * 3


def test_counting_goes_on_after_a_restart(tmp_path: Path) -> None:
    log = create(tmp_path / "i")
    log.write(log.stage([1]))
    again = IntentLog.open(Disk(), str(tmp_path / "i"), volume_id=V, owner=T)
    again.write(again.stage([1, 2]))
    assert reopen(tmp_path / "i") == IntentRecord(3, 0, (1, 2))


def test_a_full_record_has_4080_regions_and_is_four_blocks_and_some(tmp_path: Path) -> None:
    log = create(tmp_path / "i")
    staged = log.stage(range(MAX_REGIONS))
    assert len(staged[1]) == 16384
    log.write(staged)
    assert reopen(tmp_path / "i").regions == tuple(range(MAX_REGIONS))
    with pytest.raises(AssertionError):
        log.stage(range(MAX_REGIONS + 1))


def test_a_record_costs_one_sync(tmp_path: Path) -> None:
    disk = PowerDisk()
    log = create(tmp_path / "i", disk)
    disk.syncs.clear()
    log.write(log.stage([1]))
    assert disk.syncs == ["i"]


def test_a_torn_record_is_ignored(tmp_path: Path, seed: int) -> None:
    seen = set()
    for run in range(80):
        disk, old, new = PowerDisk(), tmp_path / f"{run}a", tmp_path / f"{run}b"
        old.mkdir()
        new.mkdir()
        log = create(old / "i", disk)
        disk.sync_dir(str(old))
        log.write(log.stage(range(1000)))
        offset, image = log.stage(range(2000))
        log.file.write(image, offset)
        disk.cut_power(Random(seed * 100 + run), str(old), str(new))
        seen.add(len(reopen(new / "i").regions))
    assert seen == {1000, 2000}


def test_no_flipped_byte_of_the_only_record_passes(live: Path) -> None:
    log = create(live / "i")
    raw = log.file.read(4096, 65536)
    for at in range(4096):
        log.file.write(bytes([raw[at] ^ 4]), 65536 + at)
        with pytest.raises(TrackingLost):
            reopen(live / "i")
        log.file.write(raw[at : at + 1], 65536 + at)


def test_a_record_in_the_wrong_slot_does_not_count(tmp_path: Path) -> None:
    log = create(tmp_path / "i")
    log.file.write(log.file.read(4096, 65536), 0)
    log.file.write(bytes(4096), 65536)
    with pytest.raises(TrackingLost):
        reopen(tmp_path / "i")


def test_a_log_that_is_missing_foreign_or_empty_is_lost(tmp_path: Path) -> None:
    with pytest.raises(TrackingLost):
        reopen(tmp_path / "i")
    create(tmp_path / "i").close()
    for volume, owner in ((b"x" * 16, T), (V, b"x" * 16)):
        with pytest.raises(TrackingLost):
            reopen(tmp_path / "i", volume, owner)
    (tmp_path / "i").write_bytes(b"")
    with pytest.raises(TrackingLost):
        reopen(tmp_path / "i")


def test_a_log_is_made_once(tmp_path: Path) -> None:
    create(tmp_path / "i").close()
    with pytest.raises(FileExistsError):
        create(tmp_path / "i")
    assert reopen(tmp_path / "i").seq == 1
