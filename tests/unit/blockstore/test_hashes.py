"""The table of hashes: what it does not know for certain it does not know."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import numpy as np
import pytest
from plans import GIVEN_BACK, SEED, VOLUME, ZEROED, BufferedPowerDisk, UnsyncedDisk, content, wire, zeros

from blockstore.disk import Disk
from blockstore.errors import FrameDamaged
from blockstore.frame import DATA, KEPT, ZERO, hash_blocks, make_extents, zero_hash
from blockstore.hashes import ENTRIES, FIRST_PAGE, NO_POINT, HashTable
from blockstore.units import BLOCK

SIZE = 40_000 * BLOCK + 100
POINT, OTHER = b"p" * 16, b"q" * 16


def table(folder: Path, disk: Disk | None = None, **changed: object) -> HashTable:
    ids = {"volume_id": VOLUME, "hash_seed": SEED, "size_bytes": SIZE, **changed}
    return HashTable.open(disk or UnsyncedDisk(), f"{folder}/hashes", **ids)  # type: ignore[arg-type]


def hashes(first: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.arange(first + 1, first + 1 + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def test_a_new_table_knows_nothing_and_names_no_point(live: Path) -> None:
    fresh = table(live)
    assert fresh.point == NO_POINT
    assert not fresh.reset
    assert fresh.lookup(0, fresh.blocks).tolist() == [0] * 40_001


def test_entries_are_found_again_across_pages_and_restarts(live: Path) -> None:
    random = Random(5)
    expected = zeros(40_001)
    first = table(live)
    for _ in range(60):
        begin = random.randrange(40_001)
        count = min(random.choice([1, 3, ENTRIES, 2000, 30_000]), 40_001 - begin)
        if random.random() < 0.3:
            first.forget(begin, count)
            expected[begin : begin + count] = 0
        else:
            part = hashes(random.randrange(1 << 20), count)
            first.store(begin, part)
            expected[begin : begin + count] = part
    first.close()
    again = table(live)
    assert (again.lookup(0, 40_001) == expected).all()
    for _ in range(50):
        begin = random.randrange(40_000)
        count = random.randrange(1, 3000)
        count = min(count, 40_001 - begin)
        assert (again.lookup(begin, count) == expected[begin : begin + count]).all()


def test_another_point_is_answered_unknown(live: Path) -> None:
    known = table(live)
    known.store(7, hashes(0, 3))
    assert known.lookup(7, 3, POINT).tolist() == [0, 0, 0]
    known.bind(POINT)
    assert (known.lookup(7, 3, POINT) == hashes(0, 3)).all()
    assert known.lookup(7, 3, OTHER).tolist() == [0, 0, 0]
    known.close()
    assert table(live).point == POINT
    unbound = table(live)
    unbound.bind(NO_POINT)
    assert unbound.lookup(7, 3, NO_POINT).tolist() == [0, 0, 0]


def test_the_point_is_named_after_the_entries_are_on_the_disk(live: Path, seed: int) -> None:
    """Power may fail at any sync: a table that names a point has that point's entries, whatever else was lost."""
    for number in range(60):
        root = live / str(number)
        root.mkdir()
        disk = BufferedPowerDisk()
        known = table(root, disk)
        known.store(0, hashes(0, 1500))
        known.bind(POINT)
        syncs, stop = 0, Random(seed + number).randrange(6)

        def count(_: str, stop: int = stop) -> None:
            nonlocal syncs
            syncs += 1
            if syncs > stop:
                raise KeyboardInterrupt

        disk.hooks["sync"] = count
        try:
            known.bind(NO_POINT)
            known.store(300, hashes(9000, 600))
            known.bind(OTHER)
        except KeyboardInterrupt:
            pass  # the power is cut here, at the sync that was drawn
        disk.hooks.clear()
        (live / f"{number}-after").mkdir()
        disk.cut_power(Random(seed + number), str(root), f"{live}/{number}-after")
        found = table(live / f"{number}-after")
        expected = hashes(0, 1500)
        if found.point == OTHER:
            expected[300:900] = hashes(9000, 600)
        if found.point != NO_POINT:
            assert (found.lookup(0, 1500, found.point) == expected).all()


def test_a_flipped_byte_makes_entries_unknown_and_never_wrong(live: Path) -> None:
    known = table(live)
    known.store(0, hashes(0, 3 * ENTRIES))
    known.bind(POINT)
    known.close()
    whole = (live / "hashes").read_bytes()
    expected = hashes(0, 3 * ENTRIES)
    for at in [*range(0, BLOCK, 5), *range(FIRST_PAGE + BLOCK, FIRST_PAGE + 2 * BLOCK, 5)]:
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        (live / "hashes").write_bytes(broken)
        found = table(live)
        entries = found.lookup(0, 3 * ENTRIES)
        if at < BLOCK:
            assert found.reset
            assert found.point == NO_POINT
            assert not entries.any()
        else:
            assert not entries[ENTRIES : 2 * ENTRIES].any()
            entries[ENTRIES : 2 * ENTRIES] = expected[ENTRIES : 2 * ENTRIES]
            assert (entries == expected).all()
        found.close()


def test_a_page_at_another_place_is_unknown(live: Path) -> None:
    known = table(live)
    known.store(0, hashes(0, 2 * ENTRIES))
    known.close()
    whole = bytearray((live / "hashes").read_bytes())
    page = FIRST_PAGE
    whole[page : page + BLOCK], whole[page + BLOCK : page + 2 * BLOCK] = (
        whole[page + BLOCK : page + 2 * BLOCK],
        whole[page : page + BLOCK],
    )
    (live / "hashes").write_bytes(whole)
    assert not table(live).lookup(0, 2 * ENTRIES).any()


@pytest.mark.parametrize("changed", [{"volume_id": b"W" * 16}, {"hash_seed": SEED + 1}])
def test_anothers_table_is_made_new(live: Path, changed: dict[str, object]) -> None:
    known = table(live)
    known.store(0, hashes(0, 10))
    known.bind(POINT)
    known.close()
    found = table(live, **changed)
    assert found.reset
    assert not found.lookup(0, 10).any()
    assert found.point == NO_POINT


def test_a_head_sets_hashes_zeros_and_what_is_unknown(live: Path) -> None:
    known = table(live)
    known.store(1000, hashes(0, 100))
    plan = {1001: content(1), 1002: ZEROED, 1003: GIVEN_BACK, 1030: content(2), 5000: content(3)}
    known.store_head(wire(plan)[0])
    expected = hashes(0, 100)
    expected[1] = hash_blocks(memoryview(content(1)), SEED)[0]
    expected[2], expected[3] = zero_hash(SEED), 0
    expected[30] = hash_blocks(memoryview(content(2)), SEED)[0]
    assert (known.lookup(1000, 100) == expected).all()
    assert known.lookup(5000, 1)[0] == hash_blocks(memoryview(content(3)), SEED)[0]
    with pytest.raises(FrameDamaged):
        known.store_head(wire({50_000: content(1)})[0])


def test_kept_regions_and_long_runs_apply_as_they_stand(live: Path) -> None:
    known = table(live)
    known.store(0, hashes(0, 1024))
    known.apply(make_extents([(0, 1024, KEPT), (1024, 5000, ZERO), (7000, 1, DATA)]), hashes(5, 1))
    assert (known.lookup(0, 1024) == hashes(0, 1024)).all()
    assert set(known.lookup(1024, 5000).tolist()) == {zero_hash(SEED)}
    assert (known.lookup(7000, 1) == hashes(5, 1)).all()


def test_forgetting_all_leaves_nothing_and_takes_the_space_back(live: Path) -> None:
    known = table(live)
    known.store(0, hashes(0, 20_000))
    known.bind(POINT)
    known.forget_all()
    assert known.point == NO_POINT
    assert not known.lookup(0, 20_000).any()
    assert (live / "hashes").stat().st_size <= FIRST_PAGE
    known.store(5, hashes(5, 1))
    assert (known.lookup(5, 1) == hashes(5, 1)).all()


def long_zeros(first: int, count: int, kind: int = ZERO) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return make_extents([(first, count, kind)])


def test_long_runs_of_zeros_are_known_block_by_block_and_take_no_space(live: Path, seed: int) -> None:
    random = Random(seed)
    known, expected = table(live), zeros(40_001)
    zero = zero_hash(SEED)
    for number in range(150):
        begin = random.randrange(40_001)
        count = min(random.choice([1, ENTRIES, 3 * ENTRIES, 9000, 40_001]), 40_001 - begin)
        if random.random() < 0.6:
            known.apply(long_zeros(begin, count), hashes(0, 0))
            expected[begin : begin + count] = zero
        elif random.random() < 0.8:
            part = hashes(number * 7919, min(count, 700))
            known.apply(make_extents([(begin, len(part), DATA)]), part)
            expected[begin : begin + len(part)] = part
        else:
            known.forget(begin, count)
            expected[begin : begin + count] = 0
        if random.random() < 0.2:
            known.flush()
            known.close()
            known = table(live)
        at = random.randrange(40_000)
        assert (known.lookup(at, 1000)[: 40_001 - at] == expected[at : at + 1000]).all()
    assert (known.lookup(0, 40_001) == expected).all()
    known.apply(long_zeros(0, 40_001), hashes(0, 0))
    known.bind(POINT)
    assert set(known.lookup(0, 40_001, POINT).tolist()) == {zero}
    assert (live / "hashes").stat().st_blocks * 512 <= 3 * BLOCK
    known.forget_all()
    assert not known.lookup(0, 40_001).any()
    known.close()
    assert not table(live).lookup(0, 40_001).any()


def test_zeros_over_hashes_and_hashes_over_zeros_survive_a_power_cut_or_are_not_named(live: Path, seed: int) -> None:
    for number in range(80):
        root = live / str(number)
        root.mkdir()
        disk, random = BufferedPowerDisk(), Random(seed * 1000 + number)
        known = table(root, disk)
        known.apply(make_extents([(0, 6000, ZERO), (6000, 1000, DATA)]), hashes(0, 1000))
        known.bind(POINT)
        expected = {POINT: known.lookup(0, 20_000)}
        syncs, stop = 0, random.randrange(7)

        def count(_: str, stop: int = stop) -> None:
            nonlocal syncs
            syncs += 1
            if syncs > stop:
                raise KeyboardInterrupt

        disk.hooks["sync"] = count
        expected[OTHER] = expected[POINT].copy()
        expected[OTHER][1000:2000] = hashes(5000, 1000)
        expected[OTHER][4000:12_000] = zero_hash(SEED)
        try:
            known.bind(NO_POINT)
            known.apply(make_extents([(1000, 1000, DATA), (4000, 8000, ZERO)]), hashes(5000, 1000))
            if random.random() < 0.5:
                known.flush()
            known.bind(OTHER)
        except KeyboardInterrupt:
            pass  # the power is cut here, at the sync that was drawn
        disk.hooks.clear()
        (live / f"{number}-after").mkdir()
        disk.cut_power(random, str(root), f"{live}/{number}-after")
        found = table(live / f"{number}-after")
        if found.point != NO_POINT:
            assert (found.lookup(0, 20_000, found.point) == expected[found.point]).all()


def test_a_flipped_byte_in_the_bits_of_zero_pages_makes_them_unknown(live: Path) -> None:
    known = table(live)
    known.apply(long_zeros(0, 20_000), hashes(0, 0))
    known.store(3 * ENTRIES, hashes(0, ENTRIES))
    known.bind(POINT)
    expected = known.lookup(0, 20_000)
    known.close()
    whole = (live / "hashes").read_bytes()
    bits = len(whole) - BLOCK
    for at in [*range(bits, len(whole), 7), FIRST_PAGE + 5 * BLOCK + 9, FIRST_PAGE + 3 * BLOCK + 99]:
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        (live / "hashes").write_bytes(broken)
        found = table(live)
        entries = found.lookup(0, 20_000)
        assert (entries != expected).any()
        assert not entries[entries != expected].any()
        found.close()


def test_a_page_that_a_disk_lost_is_unknown_though_it_was_of_zeros_once(live: Path) -> None:
    known = table(live)
    known.apply(long_zeros(0, 20_000), hashes(0, 0))
    known.bind(POINT)
    known.store(3 * ENTRIES + 5, hashes(0, 1))
    known.bind(POINT)
    known.file.punch(FIRST_PAGE + 3 * BLOCK, BLOCK)
    assert not known.lookup(3 * ENTRIES, ENTRIES).any()
    known.close()
    assert not table(live).lookup(3 * ENTRIES, ENTRIES).any()


def test_where_nothing_can_be_punched_zeros_are_written_out(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    known = table(live)
    monkeypatch.setattr(known.file, "punch", refuse)
    known.apply(long_zeros(7, 39_000), hashes(0, 0))
    assert not known.lookup(0, 7).any()
    assert set(known.lookup(7, 39_000).tolist()) == {zero_hash(SEED)}
    known.close()
    assert set(table(live).lookup(7, 39_000).tolist()) == {zero_hash(SEED)}
