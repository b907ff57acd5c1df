"""No crash at any moment of any script loses, invents or forgets anything: kill and power, and a second crash after.

`make crash` judges 20,000 distinct disk states, `make test` 2,000 (`--crash-states`), an equal share of each script.
"""

from __future__ import annotations

import pytest
from crash_explore import Script, run
from crash_protected import Captured, CaptureGivenUp, CleanStop, Lost, WritePath
from crash_recovery import Folded, Merged, Promoted, Seeded, Snapshots, Staging, StagingTwo
from crash_yield import GaveWay

from blockstore.pack import OpenPack
from rig.disk_states import Replay
from rig.memory_disk import MemoryDisk

SCRIPTS: list[type[Script]] = [
    *(WritePath, CleanStop, Lost, Captured, CaptureGivenUp),
    *(Staging, StagingTwo, Folded, Merged, Snapshots, Promoted, GaveWay, Seeded),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name.replace(" ", "_"))
def test_every_state_after_a_crash_keeps_every_promise(script: type[Script], crash_states: int, seed: int) -> None:
    share = -(-crash_states // len(SCRIPTS))
    findings = run(script(), share, seed)
    print(f"{script.name}: {len(findings.disks)} distinct disk states, judged {findings.judged} times")
    assert len(findings.disks) >= share


def test_a_pack_that_goes_on_after_a_kill_has_a_durable_name() -> None:
    """Killed between making the file and syncing its folder: whoever goes on with it has to sync the folder."""
    disk, bound = MemoryDisk(), {"volume_id": b"v" * 16, "layer_id": b"l" * 16, "builds_on": bytes(16)}
    OpenPack.create(disk, "/data/one.pack", **bound, image_bytes=1 << 20, hash_seed=7)
    killed = Replay()
    for entry in disk.log[: disk.log.index(("dir", "/data"))]:
        killed.apply(entry)
    next_life = killed.boot()
    OpenPack.recover(next_life, "/data/one.pack", **bound, image_bytes=1 << 20, hash_seed=7)
    for entry in next_life.log:
        killed.apply(entry)
    assert killed.build(()).boot().exists("/data/one.pack")
