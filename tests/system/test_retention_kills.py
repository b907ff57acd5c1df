"""Retention under load: points are folded and merged while syncs go on and the recovery site is killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

BLOCK = 4096
BLOCKS = 256
KEEP = 20


@pytest.mark.parametrize(
    ("points", "kills"), [(40, 3), pytest.param(500, 30, marks=pytest.mark.slow)], ids=["40", "500"]
)
def test_every_point_that_is_kept_shows_its_own_image(tmp_path: Path, points: int, kills: int, seed: int) -> None:
    """Each point's image is recorded as it is made; some are pinned by snapshots meanwhile, which come and go."""
    chance = random.Random(seed)
    deadly = set(chance.sample(range(5, points), kills))
    image = dict.fromkeys(range(BLOCKS), 0)
    recorded: dict[str, dict[int, int]] = {}
    with Pair(tmp_path, size="1M", keep=KEEP) as pair, NbdClient(pair.exports()[0]) as client:
        for number in range(points):
            for block in chance.sample(range(BLOCKS), chance.choice((1, 5, 60))):
                image[block] = chance.randrange(1, 256)
                client.pwrite(bytes([image[block]]) * BLOCK, block * BLOCK)
            if number in deadly:
                syncing = pair.east.spawn("sync", pair.group)
                pair.west.kill()
                pair.west.start()
                done = pair.east.finished(syncing)
            else:
                done = pair.sync()
            recorded[done["point"]["id"]] = dict(image)
            _pin(pair, chance)
        until(lambda: len(pair.points()) <= KEEP + 3, "retention is through", timeout_s=120)
        kept = pair.points()
        assert len(kept) >= KEEP
        for point in kept:
            with pair.snapshot(point["id"]) as exports, NbdClient(exports[0]) as look:
                expected = b"".join(bytes([recorded[point["id"]][block]]) * BLOCK for block in range(BLOCKS))
                assert look.pread(BLOCKS * BLOCK, 0) == expected, f"point {point['sequence']} shows another image"
        print(f"{points} points, {kills} kills: {len(kept)} kept, each with its own image")


def _pin(pair: Pair, chance: random.Random) -> None:
    """Sometimes a snapshot of some point is made, sometimes the last one goes."""
    if chance.random() > 0.1:
        return
    known = [snapshot["name"] for snapshot in pair.west.run("snapshot", "list")]
    if known:
        pair.west.run("snapshot", "delete", pair.group, known[0])
    else:
        point = chance.choice(pair.points())["id"]
        pair.west.run("snapshot", "create", pair.group, "--name", "pin", "--point", point)
