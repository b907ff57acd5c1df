"""A promised RPO holds again, without a word of the operator, once a role change is settled."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

BLOCK = 4096


@pytest.mark.parametrize("way", ["reverse", "restore"])
def test_syncs_go_on_by_themselves_after_it(tmp_path: Path, way: str) -> None:
    with Pair(tmp_path, size="1M", rpo="2s") as pair:
        pair.sync()
        pair.east.kill()
        pair.west.run("promote", pair.group)
        pair.east.start()
        pair.wait_connected()
        until(lambda: pair.west.group(pair.group)["state"] == "split", "both sides know")
        pair.east.run(way, pair.group)
        source, target = (pair.west, pair.east) if way == "reverse" else (pair.east, pair.west)
        newest = target.run("points", pair.group)[0]["sequence"]
        with NbdClient(source.exports(pair.group)[0]) as client:
            client.pwrite(b"\x07" * BLOCK, 0)
        until(lambda: target.run("points", pair.group)[0]["sequence"] > newest, "a sync by itself", timeout_s=20)
