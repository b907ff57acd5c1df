"""The record of writes: it accepts an image of one instant, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rig.blocks import BLOCK, Record, block_content, numbers_in
from rig.load import Load
from rig.nbd import NbdClient
from rig.peers import nbdkit
from rig.until import until

Read = Callable[[int, int], bytearray]


def reader(image: bytearray) -> Read:
    return lambda offset, length: image[offset : offset + length]


class Site:
    """Two volumes of 16 blocks in memory, written through the record."""

    def __init__(self) -> None:
        self.record = Record(2, 16)
        self.images = [bytearray(16 * BLOCK), bytearray(16 * BLOCK)]

    def write(self, volume: int, first: int, count: int = 1, *, zeros: bool = False, answered: bool = True) -> None:
        write = self.record.ask(volume, first, count, zeros=zeros)
        assert write is not None
        data = bytes(count * BLOCK) if zeros else block_content(volume, first, count, write.number)
        self.images[volume][first * BLOCK : (first + count) * BLOCK] = data
        if answered:
            self.record.answer(write)
        else:
            self.record.lose(write)

    def copy(self) -> list[bytearray]:
        return [bytearray(image) for image in self.images]

    def check(self, images: list[bytearray], after: int = 0) -> None:
        self.record.instant([reader(image) for image in images], after=after)


def test_an_image_of_one_instant_is_accepted_while_writes_go_on() -> None:
    site = Site()
    site.write(0, 3, 4)
    site.write(1, 3)
    then, tick = site.copy(), site.record.now()
    site.write(0, 3)
    site.write(1, 5)
    site.check(then)
    site.check(site.images, after=tick)


def test_two_volumes_of_different_instants_are_refused() -> None:
    site = Site()
    site.write(0, 3)
    before = site.copy()
    site.write(0, 3)
    site.write(1, 5)
    with pytest.raises(AssertionError, match="no one instant"):
        site.check([before[0], site.images[1]])
    site.check([site.images[0], before[1]])


def test_a_missing_write_is_found_when_it_was_answered_before() -> None:
    site = Site()
    site.write(0, 3)
    before = site.copy()
    site.write(0, 3)
    tick = site.record.now()
    site.check(before)
    with pytest.raises(AssertionError, match="misses a write"):
        site.check(before, after=tick)


def test_a_write_that_was_never_answered_may_be_there_or_not() -> None:
    site = Site()
    site.write(0, 3)
    before = site.copy()
    site.write(0, 3, answered=False)
    site.check(before, after=site.record.now())
    site.check(site.images, after=site.record.now())


def test_zeros_may_be_the_first_or_a_later_state() -> None:
    site = Site()
    blank = site.copy()
    site.write(0, 3)
    written, tick = site.copy(), site.record.now()
    site.write(0, 3, zeros=True)
    site.check(blank)
    site.check(site.images, after=site.record.now())
    site.write(1, 1)
    with pytest.raises(AssertionError, match="no one instant"):
        site.check([written[0], site.images[1]])
    site.check([written[0], blank[1]], after=tick)


def test_a_torn_or_misplaced_block_is_no_write() -> None:
    site = Site()
    site.write(0, 3)
    torn = site.copy()
    torn[0][3 * BLOCK + 2048 :] = bytes(13 * BLOCK - 2048)
    with pytest.raises(AssertionError, match="hold no write"):
        site.check(torn)
    moved = site.copy()
    moved[0][4 * BLOCK : 5 * BLOCK] = moved[0][3 * BLOCK : 4 * BLOCK]
    with pytest.raises(AssertionError, match="hold no write"):
        site.check(moved)


def test_a_write_that_was_never_asked_for_is_found() -> None:
    site = Site()
    site.images[0][:BLOCK] = block_content(0, 0, 1, 99)
    with pytest.raises(AssertionError, match="never asked for"):
        site.check(site.images)


def test_a_block_in_flight_is_not_asked_for_twice() -> None:
    record = Record(1, 16)
    write = record.ask(0, 2, 2)
    assert write is not None
    assert record.ask(0, 3, 1) is None
    record.answer(write)
    assert record.ask(0, 3, 1) is not None


def test_a_block_names_its_write() -> None:
    assert numbers_in(1, 7, block_content(1, 7, 3, 42)).tolist() == [42, 42, 42]


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[list[str]]:
    with nbdkit("memory", "4M", socket=tmp_path / "a") as one, nbdkit("memory", "4M", socket=tmp_path / "b") as two:
        yield [one, two]


def test_a_load_through_nbd_leaves_an_image_of_one_instant(exports: list[str], seed: int) -> None:
    record = Record(2, 1024)
    with Load(record, exports, seed=seed) as load:
        load.wait_for(500)
    with NbdClient(exports[0]) as one, NbdClient(exports[1]) as two:
        read = [lambda offset, length, c=client: c.pread(length, offset) for client in (one, two)]
        tick = record.now()
        assert record.instant(read, after=tick).after >= tick
        victim = max(record.changed(0))
        one.pwrite(block_content(0, victim, 1, 1 << 40), victim * BLOCK)
        with pytest.raises(AssertionError, match="overwritten"):
            record.instant(read)


def test_a_load_records_what_a_dead_server_left_open_as_lost(tmp_path: Path, seed: int) -> None:
    record = Record(1, 1024)
    with nbdkit("memory", "4M", socket=tmp_path / "nbd") as uri:
        load = Load(record, [uri], seed=seed, may_break=True)
        load.start()
        load.wait_for(50)
    load.stop()
    assert load.writes >= 50


def test_a_load_that_breaks_unasked_fails(tmp_path: Path, seed: int) -> None:
    record = Record(1, 1024)
    with nbdkit("memory", "4M", socket=tmp_path / "nbd") as uri:
        load = Load(record, [uri], seed=seed)
        load.start()
        load.wait_for(50)
    until(lambda: load.is_broken, "a thread of the load has noticed")
    with pytest.raises(ConnectionError):
        load.stop()
