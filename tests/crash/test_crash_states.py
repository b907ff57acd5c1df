"""No crash at any moment of any script loses, invents or forgets anything: kill and power, and a second crash after.

`make crash` judges 20,000 distinct disk states, `make test` 2,000 (`--crash-states`), an equal share of each script.
"""

from __future__ import annotations

import pytest
from crash_explore import Script, run
from crash_protected import Captured, CaptureGivenUp, CleanStop, WritePath
from crash_recovery import Folded, Promoted, Seeded, Snapshots, Staging, StagingTwo

SCRIPTS: list[type[Script]] = [
    *(WritePath, CleanStop, Captured, CaptureGivenUp),
    *(Staging, StagingTwo, Folded, Snapshots, Promoted, Seeded),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name.replace(" ", "_"))
def test_every_state_after_a_crash_keeps_every_promise(script: type[Script], crash_states: int, seed: int) -> None:
    share = -(-crash_states // len(SCRIPTS))
    findings = run(script(), share, seed)
    print(f"{script.name}: {len(findings.disks)} distinct disk states, judged {findings.judged} times")
    assert len(findings.disks) >= share
