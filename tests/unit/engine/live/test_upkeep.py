"""Upkeep on a disk that fails: one volume fails, with words; everything else is kept up, and tried again."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from running_site import asked, come_true, make_site, site_at

from blockstore.disk import Disk, DiskFile
from blockstore.units import BLOCK, REGION
from engine.clock import SystemClock
from engine.live import upkeep as upkeep_module
from engine.live.site import Site
from engine.live.upkeep import upkeep
from engine.operations.handles import VolumeHandle
from engine.requests import GroupCreate, PeerAdd, VolumeAdd

REGIONS = 70
"""More than cool together at least."""
NOBODY = PeerAdd("west", "127.0.0.1:9", "SHA256:" + "ab" * 32)


class AheadClock(SystemClock):
    """The host's clock, and a while more."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "TICK_S", 0.01)


@asynccontextmanager
async def kept_up(site: Site) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(upkeep(site))
    yield task
    assert not task.done(), "upkeep goes on whatever a disk does"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def written(site: Site, folder: Path, name: str) -> VolumeHandle:
    """A protected volume of that name, in a group of its own, with more hot regions than may cool alone."""
    assert (await asked(site, VolumeAdd(name, str(folder / name), REGIONS * REGION))).state == "done"
    assert (await asked(site, GroupCreate(f"g-{name}", (name,), "west"))).state == "done"
    (volume,) = site.running(f"g-{name}").handle.volumes
    await write_all(site, volume)
    return volume


async def write_all(site: Site, volume: VolumeHandle) -> None:
    """A block in every region."""
    writer = volume.writer
    assert writer is not None
    block = memoryview(bytes(BLOCK))
    for region in range(REGIONS):
        offset = region * REGION
        await site.ctx.pool.finish(lambda offset=offset: writer.write(offset, block, False))  # type: ignore[misc]


def hot(volume: VolumeHandle) -> int:
    tracker = volume.require_open()._tracker
    assert tracker is not None
    return len(tracker.hot.used)


async def codes(site: Site) -> list[str]:
    return [event.code for event in await site.events(-1, 1000, 0)]


async def test_a_disk_error_in_cooling_fails_that_volume_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_site(tmp_path / "data", "east")
    async with site_at(tmp_path / "data") as site:
        clock = site.ctx.clock = AheadClock()
        await asked(site, NOBODY)
        bad, good = [await written(site, tmp_path, name) for name in ("bad", "good")]
        folder, write = bad.require_open().folder, DiskFile.write

        def broken(file: DiskFile, data: object, offset: int, *, durable: bool = False) -> None:
            if file.path.startswith(folder):
                raise OSError(errno.EIO, os.strerror(errno.EIO), file.path)
            write(file, data, offset, durable=durable)

        monkeypatch.setattr(DiskFile, "write", broken)
        clock.ahead_s = 120
        async with kept_up(site):
            await come_true(lambda: bad.problem, "the volume whose disk is broken has failed")
            await come_true(lambda: not hot(good), "the other one has cooled")
            assert not good.problem
            await write_all(site, good)
            assert hot(good) == REGIONS
            clock.ahead_s = 240
            await come_true(lambda: not hot(good), "and cools again in later rounds")
        found = await codes(site)
        assert "tracking_failed" in found or "store_flush_failed" in found, found
        assert "upkeep_failed" not in found, "it was the volume's own failure"
        monkeypatch.setattr(DiskFile, "write", write)


async def test_a_reserve_that_could_not_be_taken_back_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_site(tmp_path / "data", "east")
    async with site_at(tmp_path / "data") as site:
        clock = site.ctx.clock = AheadClock()
        database = site.ctx.database
        await asyncio.get_running_loop().run_in_executor(database._thread, database._ballast.give_up)
        assert not database.has_ballast
        free, failures = Disk.free_bytes, iter([1, 2])

        def unreadable(disk: Disk, path: str) -> int:
            clock.ahead_s += upkeep_module.COOL_EVERY_S
            if next(failures, 0):
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return free(disk, path)

        monkeypatch.setattr(Disk, "free_bytes", unreadable)
        clock.ahead_s = upkeep_module.COOL_EVERY_S
        async with kept_up(site):
            clock.ahead_s += upkeep_module.COOL_EVERY_S
            await come_true(lambda: database.has_ballast, "the reserve is there again")
        assert next(failures, 0) == 0
        assert (await codes(site)).count("upkeep_failed") == 2
        assert (tmp_path / "data" / "ballast").stat().st_size
