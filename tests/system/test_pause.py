"""A paused group sends nothing, whatever ran or would have run, until it is resumed; nothing of it is lost."""

from __future__ import annotations

import os
from pathlib import Path

from rig.nbd import NbdClient
from rig.pair import Pair
from rig.ports import free_port
from rig.until import until
from rig.veth import Veth

MIB = 1 << 20


def test_a_pause_ends_a_sync_and_a_resume_goes_on_from_what_has_landed(tmp_path: Path) -> None:
    data = os.urandom(48 * MIB)
    with Veth("10.77.51") as wire:
        pair = Pair(tmp_path, size="48M")
        pair.east.listen = f"{wire.here}:{free_port()}"
        pair.west.listen = f"{wire.there}:{free_port()}"
        pair.west.nbd = f"{wire.there}:{free_port()}"
        pair.west.prefix = wire.prefix
        wire.limit("100mbit")
        with pair:
            with NbdClient(pair.exports()[0]) as client:
                for at in range(0, len(data), 16 * MIB):
                    client.pwrite(data[at : at + 16 * MIB], at)
            job = pair.east.run("sync", pair.group, "--no-wait")["operation"]
            until(lambda: (_job(pair, job)["progress"] or {}).get("done_bytes", 0) > 16 * MIB, "a third is sent")
            assert pair.east.run("pause", pair.group)["state"] == "paused"
            until(lambda: _job(pair, job)["finished_at"], "the sync is ended", timeout_s=10)
            assert _job(pair, job)["error"]["code"] == "group_paused"
            west = pair.west.group(pair.group)
            assert west["state"] == "seeding", west
            assert pair.east.fails("sync", pair.group, status=4)["code"] == "group_paused"
            assert pair.east.run("pause", pair.group)["state"] == "paused", "again is no failure"
            assert pair.west.fails("pause", pair.group, status=4)["code"] == "refused_by_state"
            pair.east.kill()
            pair.east.start()
            pair.wait_connected()
            found = pair.east.group(pair.group)
            assert found["state"] == "paused", "it outlives the daemon"
            assert f"leeward resume {pair.group}" in found["reason"]
            assert pair.east.run("resume", pair.group)["state"] != "paused"
            pair.east.run("resume", pair.group)
            assert pair.sync()["bytes_sent"] < 40 * MIB, "what had landed was not sent again"
            with pair.snapshot() as exports, NbdClient(exports[0]) as look:
                for at in range(0, len(data), 16 * MIB):
                    assert look.pread(16 * MIB, at) == data[at : at + 16 * MIB]


def test_a_paused_group_breaks_its_promise_and_says_why_and_keeps_it_again(tmp_path: Path) -> None:
    with Pair(tmp_path, size="1M", rpo="2s") as pair:
        until(lambda: pair.west.group(pair.group)["rpo_kept"], "the promise is kept", timeout_s=20)
        pair.east.run("pause", pair.group)
        until(lambda: pair.east.group(pair.group)["rpo_kept"] is False, "it is broken", timeout_s=20)
        told = [event["message"] for event in pair.east.events() if event["code"] == "rpo_broken"]
        assert "an operator paused it" in told[-1]
        newest = pair.west.group(pair.group)["lag_s"]
        assert newest > 2
        pair.east.run("resume", pair.group)
        until(lambda: pair.west.group(pair.group)["rpo_kept"], "syncs go on by themselves", timeout_s=20)


def test_a_side_that_gives_way_forgets_its_pause(tmp_path: Path) -> None:
    with Pair(tmp_path, size="1M") as pair:
        pair.sync()
        pair.east.run("pause", pair.group)
        pair.east.kill()
        pair.west.run("promote", pair.group)
        pair.east.start()
        pair.wait_connected()
        pair.east.run("reverse", pair.group)
        assert pair.east.group(pair.group)["state"] != "paused"
        pair.west.run("sync", pair.group)


def test_an_rpo_that_is_set_later_is_promised_at_both_sites_and_taken_back(tmp_path: Path) -> None:
    with Pair(tmp_path, size="1M") as pair:
        pair.east.run("group", "set", pair.group, "--rpo", "2s")
        until(lambda: pair.west.group(pair.group)["rpo_kept"], "it is kept, without a sync that was asked for", 20)
        assert pair.west.group(pair.group)["rpo_s"] == 2
        assert pair.west.fails("group", "set", pair.group, "--rpo", "9s", status=4)["code"] == "refused_by_state"
        assert pair.east.run("group", "set", pair.group, "--rpo", "none")["rpo_s"] is None
        until(lambda: pair.west.group(pair.group)["rpo_s"] is None, "the other side knows", timeout_s=20)
        assert pair.west.group(pair.group)["rpo_kept"] is None
        assert pair.east.fails("group", "set", pair.group, status=2)["code"] == "bad_value"


def _job(pair: Pair, id: str) -> dict[str, object]:
    return dict(pair.east.run("jobs", id))
