"""Both daemons, killed with SIGKILL at random moments of writes, syncs and seals: nothing is lost, no point is torn.

The moments follow from the seed. `make system SEED=7` repeats a run; `--kills` says how many (200 in `make kills`).
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rig.blocks import BLOCK, Record
from rig.daemon import CommandFailed, Daemon
from rig.load import Load
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

SIZE_MIB = 16
LONGEST_S = 0.25
"""The longest time from the beginning of a round to its kill: a sync of this size takes about 0.1 s."""


@dataclass
class Story:
    """What a run has seen so far: points by id, and the ticks between which each was captured."""

    kills: int = 0
    asked: dict[str, tuple[int, int]] = field(default_factory=dict)


def sync_until_killed(pair: Pair, record: Record, story: Story, stop: threading.Event) -> None:
    """Sync again and again; note of every point that was answered when it was asked for."""
    while not stop.is_set():
        after = record.now()
        command = pair.east.spawn("sync", pair.group)
        out, _ = command.communicate(timeout=120)
        if command.returncode == 0:
            story.asked[json.loads(out)["point"]["id"]] = (after, record.now())


def kill_once(pair: Pair, record: Record, story: Story, chance: random.Random) -> None:
    """One round: load and syncs run, one of the daemons is killed at a random moment, and comes back."""
    stop = threading.Event()
    syncing = threading.Thread(target=sync_until_killed, args=(pair, record, story, stop))
    victim = chance.choice([pair.east, pair.west])
    with Load(record, pair.exports(), seed=chance.randrange(1 << 30), threads=2, may_break=True) as load:
        load.wait_for(5)
        syncing.start()
        stop.wait(chance.random() * LONGEST_S)  # the random moment: what runs then is what is killed
        victim.kill()
        stop.set()
    victim.start()
    syncing.join(timeout=120)
    assert not syncing.is_alive()
    story.kills += 1


def check(pair: Pair, record: Record, story: Story) -> None:
    """The newest point is one instant of what hosts wrote; every acknowledged write is in the protected volume."""
    now = record.now()
    with NbdClient(pair.exports()[0]) as host:
        record.instant([lambda offset, length: host.pread(length, offset)], after=now, before=record.now())
    points = pair.points()
    if points:
        after, before = story.asked.get(points[0]["id"], (0, record.now()))
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            record.instant([lambda offset, length: look.pread(length, offset)], after=after, before=before)


def final_sync_is_equal(pair: Pair) -> None:
    """After everything, one more sync brings the recovery copy to the very image of the protected volume."""
    pair.sync()
    with pair.snapshot() as exports, NbdClient(exports[0]) as copy, NbdClient(pair.exports()[0]) as host:
        for offset in range(0, host.size, 1 << 20):
            assert copy.pread(1 << 20, offset) == host.pread(1 << 20, offset), f"they differ at {offset}"


def test_kills_at_random_moments_lose_nothing_and_tear_no_point(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    seed, kills = int(pytestconfig.getoption("--seed")), int(pytestconfig.getoption("--kills"))
    chance, story = random.Random(seed), Story()
    record = Record(1, (SIZE_MIB << 20) // BLOCK)
    with Pair(tmp_path, size=f"{SIZE_MIB}M", keep=4) as pair:
        for number in range(kills):
            kill_once(pair, record, story, chance)
            if number % 5 == 4 or number == kills - 1:
                check(pair, record, story)
        final_sync_is_equal(pair)
    assert story.kills == kills
    assert story.asked, "at least one sync ended well between the kills"


def _syncs(pair: Pair) -> list[dict[str, Any]]:
    """The syncs that are done at the protected site, newest first."""
    return [job for job in pair.east.run("jobs") if job["kind"] == "sync" and job["state"] == "done"]


def _staged(pair: Pair) -> int:
    """Bytes of frames that stand in packs at the recovery site."""
    return sum(path.stat().st_size for path in (pair.west.data / "volumes").glob("*/layers/*.pack"))


def _sync_dies(pair: Pair, victim: Daemon, wait_bytes: int) -> int:
    """Kill `victim` once a running sync has staged about `wait_bytes`; what had landed then."""
    command = pair.east.spawn("sync", pair.group)
    until(lambda: _staged(pair) > wait_bytes, "blocks have landed", 60)
    landed = wait_bytes - (64 << 20)  # what was checkpointed for sure: one is made every 64 MiB
    victim.kill()
    with contextlib.suppress(CommandFailed):  # its daemon was killed: that is the test
        Daemon.finished(command)
    victim.start()
    return landed


@pytest.mark.parametrize("who", ["receiver", "sender"])
def test_a_resumed_sync_sends_at_most_a_hundredth_of_what_had_landed_again(tmp_path: Path, who: str) -> None:
    size_mib, change_mib = 1024, 768
    with Pair(tmp_path, size=f"{size_mib}M") as pair:
        pair.sync()
        chance = random.Random(5)
        with NbdClient(pair.exports()[0]) as client:
            for at in range(change_mib):
                client.pwrite(chance.randbytes(1 << 20), at << 20)
            client.flush()
        landed = _sync_dies(pair, pair.west if who == "receiver" else pair.east, 300 << 20)
        pair.wait_connected()
        pair.sync(timeout_s=240)
        # A sync that a restart cut runs again under its id; one whose receiver died went on by itself.
        done = max((job["outcome"] for job in _syncs(pair)[:2]), key=lambda outcome: outcome["bytes_changed"])
        again = done["bytes_sent"] + done["bytes_resent"] + landed - (change_mib << 20)
        print(f"{who} died with {landed >> 20} MiB landed: {max(0, again) >> 20} MiB of them were sent again")
        assert again <= landed // 100
        with pair.snapshot() as exports, NbdClient(exports[0]) as copy, NbdClient(pair.exports()[0]) as host:
            for offset in range(0, change_mib << 20, 16 << 20):
                assert copy.pread(1 << 20, offset) == host.pread(1 << 20, offset)
