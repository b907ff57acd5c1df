"""A capture that outlives its link is of no use once the peer was promoted, written and gave way again meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from running_site import asked, site_at

from engine.errors import PeerUnreachable
from engine.operations import sync as story
from engine.requests import Sync
from rig.daemon import Daemon
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

BLOCK = 4096


async def test_what_the_peer_wrote_since_the_capture_is_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pair(tmp_path, size="1M") as pair:
        east, west, group = pair.east, pair.west, pair.group
        _write(east, group, range(9), 1)
        pair.sync()
        _write(east, group, [2], 22)
        east.kill()
        west.run("promote", group)
        _write(west, group, [3], 33)
        east.start()
        pair.wait_connected()
        east.run("reverse", group, "--discard-local-changes", "--yes")
        west.terminate()

        def meanwhile() -> None:
            """East is promoted on the image of its own that it still holds, is written, and gives way again."""
            east.run("promote", group, "--force")
            _write(east, group, [5], 55)
            until(lambda: east.run("status")["peers"][0]["connected"], "the link is back")
            east.run("reverse", group, "--discard-local-changes", "--yes")

        ship, contact = story._ship_capture, story.contact
        calls: list[str] = []

        async def cut_once(*given: Any) -> Any:
            calls.append("ship")
            if calls.count("ship") == 1:
                raise PeerUnreachable(peer="east")  # the link breaks right behind the capture
            return await ship(*given)

        async def contact_late(*given: Any) -> Any:
            calls.append("contact")
            if calls == ["contact", "ship", "contact"]:
                await asyncio.to_thread(meanwhile)
            return await contact(*given)

        monkeypatch.setattr(story, "_ship_capture", cut_once)
        monkeypatch.setattr(story, "contact", contact_late)
        async with site_at(west.data) as site:
            done = await asked(site, Sync(group))
            assert done.state == "done", done.error
        made = east.run("snapshot", "create", group, "--name", "look")
        with NbdClient(made["volumes"][0]["export"]) as client:
            shown = [client.pread(1, block * BLOCK)[0] for block in range(9)]
        assert shown == [1, 1, 1, 33, 1, 1, 1, 1, 1]


def _write(side: Daemon, group: str, blocks: Any, value: int) -> None:
    with NbdClient(side.exports(group)[0]) as client:
        for block in blocks:
            client.pwrite(bytes([value]) * BLOCK, block * BLOCK)
