"""What a repeat of a request gets: it joins what runs, waits as one more sync, or is asked anew; also after a crash."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from running_site import asked, come_true, make_site, site_at

from engine.errors import MetadataSpace
from engine.live import jobs as jobs_module
from engine.live.site import Site
from engine.requests import GroupCreate, PeerAdd, Promote, Sync, VolumeAdd
from rig.pair import Pair

NOBODY = PeerAdd("west", "127.0.0.1:9", "SHA256:" + "ab" * 32)


def add(folder: Path, name: str = "v") -> VolumeAdd:
    return VolumeAdd(name, str(folder / name), 1 << 20)


async def test_the_same_request_twice_at_once_is_one_job_also_without_a_key(tmp_path: Path) -> None:
    make_site(tmp_path / "data", "east")
    async with site_at(tmp_path / "data") as site:
        one, two, other = await asyncio.gather(
            *(site.submit(request, None) for request in (add(tmp_path), add(tmp_path), add(tmp_path, "w")))
        )
        assert one.id == two.id != other.id
        assert (await site.job(one.id, 30, None)).state == (await site.job(other.id, 30, None)).state == "done"
        again = await asked(site, add(tmp_path))
        assert again.id != one.id
        assert again.error is not None
        assert again.error.code == "name_taken", "a repeat without a key is asked anew once the first is over"


async def test_two_requests_under_one_key_at_once_are_one_job_and_under_two_keys_two(tmp_path: Path) -> None:
    make_site(tmp_path / "data", "east")
    async with site_at(tmp_path / "data") as site:
        asks = (add(tmp_path), "k"), (add(tmp_path), "k"), (add(tmp_path), "other")
        one, two, three = await asyncio.gather(*(site.submit(request, key) for request, key in asks))
        assert one.id == two.id != three.id
        ended = [await site.job(id, 30, None) for id in (one.id, three.id)]
        assert sorted(job.state for job in ended) == ["done", "failed"], "one of the two finds the name taken"


async def _group(site: Site, folder: Path) -> None:
    for request in (NOBODY, add(folder), GroupCreate("g", ("v",), "west")):
        assert (await asked(site, request)).state == "done"


async def test_a_sync_that_runs_is_not_joined_the_one_that_waits_is(tmp_path: Path) -> None:
    make_site(tmp_path / "data", "east")
    async with site_at(tmp_path / "data") as site:
        await _group(site, tmp_path)
        running = await site.submit(Sync("g"), None)
        await come_true(lambda: site.running("g").is_syncing, "the first sync runs")
        waiting = await site.submit(Sync("g"), None)
        assert waiting.id != running.id, "what was written since the first began needs another one"
        assert {(await site.submit(Sync("g"), key)).id for key in (None, "k", "k2")} == {waiting.id}
    async with site_at(tmp_path / "data") as site:  # the stop cut it
        again = await site.job(running.id, 0, None)
        assert again.state in ("queued", "running"), "it runs again, under its id"
        assert again.error is None
        told = await site.job(waiting.id, 0, None)
        assert told.error is not None
        assert told.error.code == "interrupted", "the one that runs covers it"


def _no_room(conn: sqlite3.Connection, **_: object) -> None:
    raise MetadataSpace(path="meta.db")


async def test_a_promotion_whose_end_was_not_recorded_answers_a_repeat_with_the_same_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role is recorded, the job is not: the crash came between. The repeat does the work no second time."""
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        pair.east.kill()
        pair.west.terminate()
        request = Promote(pair.group, force=True)
        async with site_at(pair.west.data) as site:
            with monkeypatch.context() as crash:
                crash.setattr(jobs_module.jobs, "finish", _no_room)
                first = await asked(site, request, "k")
            assert first.state == "done", "whoever waits is told all the same"
            assert first.outcome is not None
            assert first in await site.jobs()
        async with site_at(pair.west.data) as site:
            cut = await site.job(first.id, 0, None)
            assert cut.error is not None
            assert cut.error.code == "interrupted"
            for _ in range(2):
                again = await asked(site, request, "k")
                assert again.state == "done"
                assert again.outcome is not None
                different = {name for name, value in again.outcome.items() if value != first.outcome[name]}
                assert different <= {"operation", "lag_s"}, "the same outcome, but for the id of the job and the time"
            promoted = [event for event in await site.events(-1, 1000, 0) if event.code == "promoted"]
            assert len(promoted) == 1, "the work was done once"
