"""The first pass over a volume that is being written: what it took for zeros, and what it read, is right or dirty."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from blockstore.blockset import RegionBits
from blockstore.disk import Disk
from blockstore.stores.kinds import make_store
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION, Extent
from blockstore.volume import Volume
from engine.operations.sources import SeedSource
from engine.pool import DiskPool

REGIONS = 40
SIZE = REGIONS * REGION


@pytest.fixture
async def pool() -> AsyncIterator[DiskPool]:
    running = DiskPool()
    yield running
    await running.close()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    """A sparse volume under tracking, in which nothing is dirty."""
    live = tempfile.mkdtemp(prefix="leeward-test-", dir="/dev/shm")
    make_store(Disk(), str(tmp_path / "store"), SIZE)
    opened = Volume.open(
        Disk(),
        name="vol",
        volume_id=b"V" * 16,
        store_path=str(tmp_path / "store"),
        size_bytes=SIZE,
        folder=str(tmp_path / "volume"),
        live_folder=live,
        hash_seed=7,
    )
    opened.start_tracking(b"T" * 16, all_dirty=False)
    opened.open_tracking(b"T" * 16, nonce=bytes(16), clean=False, pending=False)
    opened.maps_committed()
    yield opened
    opened.close()
    shutil.rmtree(live)


async def write_all_over(volume: Volume, pool: DiskPool, chance: Random, done: asyncio.Event) -> None:
    """Writes of every size into holes (large ones in the pool), and punches, until `done`."""
    writer = volume.open_writer()
    while not done.is_set():
        length = chance.choice([1, BLOCK, 5 * BLOCK, 3 << 20])
        offset = chance.randrange(SIZE - length)
        if chance.random() < 0.2:
            await pool.finish(lambda at=offset, size=length: writer.discard(at, size, False))  # type: ignore[misc]
        else:
            data = memoryview(chance.randbytes(length))
            await pool.finish(lambda at=offset, what=data: writer.write(at, what, False))  # type: ignore[misc]
        await asyncio.sleep(0)


class Taken:
    """What a first pass would have shipped: the bytes of each block, as they were read or taken for zeros."""

    def __init__(self) -> None:
        self.image = bytearray(b"?" * SIZE)
        self.bits: dict[int, int] = {}
        self.blank = 0

    def zeros(self, regions: Sequence[RegionBits]) -> None:
        for region, bits in regions:
            self.image[region * REGION : (region + 1) * REGION] = bytes(REGION)
            self.bits[region] = bits
            self.blank += 1

    def wrong(self, volume: Volume) -> list[int]:
        """Blocks whose content is another now, though nothing says that they were written."""
        now = bytearray(SIZE)
        volume.store.read_into(memoryview(now), 0)
        found = []
        for region, bits in self.bits.items():
            if now[region * REGION : (region + 1) * REGION] == self.image[region * REGION : (region + 1) * REGION]:
                continue
            left = bits & ~volume.dirty_bits(region)
            for block in range(region * BLOCKS_PER_REGION, (region + 1) * BLOCKS_PER_REGION):
                at = block * BLOCK
                if left >> block % BLOCKS_PER_REGION & 1 and now[at : at + BLOCK] != self.image[at : at + BLOCK]:
                    found.append(block)
        return found


async def take(source: SeedSource, chance: Random) -> Taken:
    """A first pass: looks at some regions at once, reads what is left."""
    taken = Taken()
    regions = source.regions()
    while asked := [part for _, part in zip(range(chance.randrange(1, 9)), regions, strict=False)]:
        blank = await source.blank(asked)
        taken.zeros(blank)
        for region, bits in asked:
            if (region, bits) not in blank:
                buffer = memoryview(bytearray(REGION))
                await source.read_runs([Extent(region * BLOCKS_PER_REGION, BLOCKS_PER_REGION)], buffer, int)
                taken.image[region * REGION : (region + 1) * REGION] = buffer
                taken.bits[region] = bits
    return taken


@pytest.mark.parametrize("knows_holes", [True, False])
async def test_a_write_into_a_hole_that_the_first_pass_missed_is_dirty(
    volume: Volume, pool: DiskPool, seed: int, knows_holes: bool
) -> None:
    blank = 0
    for number in range(4):
        chance = Random(seed * 100 + number)
        await pool.over(volume.set_clean_everything())
        volume.store.discard(0, SIZE)
        done = asyncio.Event()
        writing = asyncio.create_task(write_all_over(volume, pool, chance, done))
        taken = await take(SeedSource(pool, volume, frozenset(), knows_holes=knows_holes), chance)
        done.set()
        await writing
        await pool.over(volume.revoke_writer())
        assert taken.wrong(volume) == []
        assert volume.dirty_blocks, "nothing was written meanwhile"
        blank += taken.blank
    assert bool(blank) == knows_holes


async def test_a_hole_that_was_seen_before_the_write_and_used_after_it_is_found_out(
    volume: Volume, pool: DiskPool
) -> None:
    """The test above is worth something: a map of holes that is older than the cleaning of the bits is a lost write."""
    source = SeedSource(pool, volume, frozenset(), knows_holes=True)
    stale = await source.blank(list(source.regions()))
    writer = volume.open_writer()
    await pool.finish(lambda: writer.write(5 * REGION, memoryview(b"x" * BLOCK), False))
    await pool.over(volume.set_clean_everything())
    taken, fresh = Taken(), Taken()
    taken.zeros(stale)
    fresh.zeros(await source.blank(list(source.regions())))
    assert taken.wrong(volume) == [5 * BLOCKS_PER_REGION]
    assert fresh.wrong(volume) == []
    assert 5 not in fresh.bits
