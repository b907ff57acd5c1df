"""A limit of the line is kept, by all groups together, at once and after a restart; and is shown with its reason."""

from __future__ import annotations

import os
from pathlib import Path

from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

MIB = 1 << 20


def test_a_limit_is_kept_and_shown_and_outlives_the_daemon(tmp_path: Path) -> None:
    data = os.urandom(16 * MIB)
    with Pair(tmp_path, size="16M") as pair:
        assert pair.east.run("link") == {
            "limit": "",
            "limit_bytes_per_s": None,
            "reason": "no limit is set",
            "sent_bytes_per_s": 0.0,
        }
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(data, 0)
        found = pair.east.run("link", "--limit", "none;  00:00-24:00 4M")
        assert (found["limit_bytes_per_s"], found["reason"]) == (4 * MIB, "by '00:00-24:00 4M'")
        assert pair.east.fails("link", "--limit", "4M a day", status=2)["code"] == "bad_value"
        pair.east.kill()
        pair.east.start()
        pair.wait_connected()
        assert pair.east.run("status")["link"]["limit_bytes_per_s"] == 4 * MIB
        assert pair.sync()["seconds"] >= 2.5, "16 MiB at 4 MiB a second, less the frame that is under way at once"
        assert 0 < pair.east.run("link")["sent_bytes_per_s"] <= 5 * MIB
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(data[::-1], 0)
        job = pair.east.run("sync", pair.group, "--no-wait")["operation"]
        until(lambda: (pair.east.run("jobs", job)["progress"] or {}).get("done_bytes"), "it is under way")
        pair.east.run("link", "--limit", "")
        until(lambda: pair.east.run("jobs", job)["finished_at"], "and nothing holds it any more", timeout_s=10)
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.pread(16 * MIB, 0) == data[::-1]


def test_a_pause_does_not_wait_for_a_frame_that_a_slow_line_holds(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.east.run("link", "--limit", "64K")
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(os.urandom(16 * MIB), 0)
        job = pair.east.run("sync", pair.group, "--no-wait")["operation"]
        until(lambda: (pair.east.run("jobs", job)["progress"] or {}).get("done_bytes"), "the first frame has left")
        pair.east.run("pause", pair.group)
        until(lambda: pair.east.run("jobs", job)["finished_at"], "the second waits a minute for its turn", timeout_s=10)
        assert pair.east.run("jobs", job)["error"]["code"] == "group_paused"
