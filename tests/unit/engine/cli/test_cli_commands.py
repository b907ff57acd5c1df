"""Claims about each command, run as a process of its own: its document, its words, what it asks of the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_run import Ran
from memory_site import ApiThread

from engine import requests as ask

Leeward = Callable[..., Ran]
MIB = 1 << 20


def test_a_site_is_made_once_with_the_default_addresses(leeward: Leeward, tmp_path: Path) -> None:
    made = leeward("init", "--data", "site", "--name", "harbour", "--json").json
    assert set(made) == {"name", "site_id", "fingerprint", "data", "listen", "nbd", "api"}
    assert (made["name"], made["data"]) == ("harbour", str(tmp_path / "site"))
    assert (made["listen"], made["nbd"], made["api"]) == ("0.0.0.0:7450", "127.0.0.1:10809", "127.0.0.1:8443")
    again = leeward("init", "--data", "site", "--name", "harbour", "--json")
    assert (again.status, again.error["code"]) == (4, "site_exists")


def test_a_made_site_is_told_with_what_its_peer_has_to_know(leeward: Leeward) -> None:
    words = ("--listen", "127.0.0.1:1", "--nbd", "127.0.0.1:2", "--api", "127.0.0.1:3")
    told = leeward("init", "--data", "site", "--name", "harbour", *words).out
    for text in ("fingerprint  SHA256:", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "`leeward serve --data "):
        assert text in told


def test_a_data_directory_that_cannot_be_made_is_one_line(leeward: Leeward) -> None:
    done = leeward("init", "--data", "/proc/site", "--name", "harbour", "--json")
    assert (done.status, done.error["code"]) == (1, "io_failed")


def test_there_is_nothing_to_serve_without_a_site(leeward: Leeward) -> None:
    done = leeward("serve", "--data", "nothing-here", "--json")
    assert (done.status, done.error["code"]) == (1, "not_initialised")


def test_a_peer_is_added_listed_and_removed(api: ApiThread, leeward: Leeward) -> None:
    words = ("--address", "127.0.0.1:7450", "--fingerprint", "SHA256:ab", "--plain", "--json")
    added = leeward("peer", "add", "lagoon", *words)
    assert added.status == 0
    assert added.json == {
        "name": "lagoon",
        "address": "127.0.0.1:7450",
        "fingerprint": "SHA256:ab",
        "plain": True,
        "connected": True,
        "id": None,
    }
    assert leeward("peer", "list", "--json").json == [added.json]
    assert leeward("peer", "list").out.splitlines()[1].split() == [
        "lagoon",
        "127.0.0.1:7450",
        "connected",
        "no",
        "SHA256:ab",
    ]
    assert leeward("peer", "remove", "lagoon", "--json").json == {"removed": "lagoon"}
    assert leeward("peer", "list").out == "There are no peers; pair one with `leeward peer invite`.\n"


def test_a_volume_is_asked_for_with_an_absolute_store_and_its_size_in_bytes(
    api: ApiThread, leeward: Leeward, tmp_path: Path
) -> None:
    assert leeward("volume", "add", "root", "--store", "sub/../root.img", "--size", "10G", "--recovery").status == 0
    assert leeward("volume", "add", "disk", "--store", "/dev/disk/by-id/x").status == 0
    assert [request for request, _ in api.site.submitted] == [
        ask.VolumeAdd("root", str(tmp_path / "root.img"), 10 << 30, True),
        ask.VolumeAdd("disk", "/dev/disk/by-id/x", None, False),
    ]


def test_a_link_in_the_path_of_a_store_stays(api: ApiThread, leeward: Leeward, tmp_path: Path) -> None:
    (tmp_path / "by-name").symlink_to(tmp_path / "elsewhere")
    leeward("volume", "add", "root", "--store", "by-name")
    assert api.site.submitted[0][0] == ask.VolumeAdd("root", str(tmp_path / "by-name"))


def test_volumes_are_listed_reopened_and_removed(with_group: None, leeward: Leeward) -> None:
    listed = leeward("volume", "list", "--json").json
    assert [(volume["name"], volume["size"]) for volume in listed] == [("root", MIB), ("log", 2 * MIB)]
    assert "1.0 MiB" in leeward("volume", "list").out
    assert leeward("volume", "reopen", "root", "--json").json["name"] == "root"
    assert leeward("volume", "remove", "log").out == "Volume log is forgotten here; its store was not touched.\n"


def test_a_group_is_made_with_its_volumes_in_the_order_given(api: ApiThread, leeward: Leeward) -> None:
    for name in ("b", "a"):
        leeward("volume", "add", name, "--store", name)
    words = ("--volume", "b", "--volume", "a", "--peer", "lagoon", "--rpo", "90s", "--keep", "3")
    made = leeward("group", "create", "web", *words, "--json").json
    assert api.site.submitted[-1][0] == ask.GroupCreate("web", ("b", "a"), "lagoon", 90, 3)
    assert made["operation"] == "job-3"
    assert [volume["name"] for volume in made["volumes"]] == ["b", "a"]
    shown = leeward("group", "show", "web", "--json").json
    assert shown == {**made, "operation": None}
    assert leeward("group", "list", "--json").json == [shown]
    assert leeward("group", "remove", "web", "--json").json == {"removed": "web"}


def test_without_an_rpo_a_group_is_synced_only_when_asked(api: ApiThread, leeward: Leeward) -> None:
    leeward("volume", "add", "v", "--store", "v")
    leeward("group", "create", "web", "--volume", "v", "--peer", "lagoon")
    assert api.site.submitted[-1][0] == ask.GroupCreate("web", ("v",), "lagoon", None, 24)
    assert "none: synced when asked" in leeward("group", "show", "web").out


def test_a_group_is_shown_in_words_with_its_exports_whole(with_group: None, leeward: Leeward) -> None:
    shown = leeward("group", "show", "web").out
    for text in ("unseeded (nothing was synced yet)", "5 min", "3.0 MiB", "nbd://127.0.0.1:10809/root", "none yet"):
        assert text in shown


def test_sync_waits_for_its_point_and_answers_with_the_whole_document(with_group: None, leeward: Leeward) -> None:
    done = leeward("sync", "web", "--json")
    assert done.status == 0
    point = leeward("points", "web", "--json").json[0]
    assert done.json == {
        "operation": "job-5",
        "group": "web",
        "state": "done",
        "point": point,
        "bytes_changed": 3 * MIB,
        "bytes_sent": 3 * MIB,
        "bytes_wire": 3 * MIB + 512,
        "bytes_resent": 0,
        "seconds": 0.25,
    }
    assert set(point) == {"id", "sequence", "captured_at", "sealed_at", "bytes", "pinned", "space_bytes"}


def test_sync_tells_people_what_it_did_and_how_it_went(with_group: None, leeward: Leeward) -> None:
    done = leeward("sync", "web")
    assert done.out == (
        "Group web: point 1 of 2026-11-02 13:48:24Z is sealed. "
        "3.0 MiB changed, 3.0 MiB sent, 3.0 MiB on the wire, in 0.2 s.\n"
    )
    assert done.err.splitlines()[-1] == "sync web: sending, 3.0 MiB of 3.0 MiB (100 %, 2.0 MiB/s)"
    assert leeward("points", "web").out.splitlines()[1].split()[0] == "1"


def test_a_sync_that_found_nothing_changed_says_so(api: ApiThread, with_group: None, leeward: Leeward) -> None:
    api.site.unchanged = True
    assert leeward("sync", "web").out == "Group web: nothing had changed, in 0.2 s.\n"
    assert leeward("sync", "web", "--json").json["point"] is None


def test_no_wait_prints_the_operation_which_then_goes_on(api: ApiThread, with_group: None, leeward: Leeward) -> None:
    api.hold_syncs()
    asked = leeward("sync", "web", "--no-wait")
    assert (asked.status, asked.out, asked.err) == (0, "job-5\n", "")
    assert leeward("sync", "web", "--no-wait", "--json").json == {
        "operation": "job-6",
        "kind": "sync",
        "group": "web",
        "state": "queued",
    }
    assert leeward("jobs", "job-5", "--json").json["state"] in ("queued", "running")
    api.let_syncs_go()
    assert leeward("jobs", "job-5", "--wait", "--json").json["state"] == "done"
    assert leeward("jobs", "job-6", "--wait").out.splitlines()[3].split() == ["state", "done"]


def test_jobs_are_listed_newest_first_and_shown_with_their_outcome(with_group: None, leeward: Leeward) -> None:
    leeward("sync", "nope")
    listed = leeward("jobs", "--json").json
    assert [job["kind"] for job in listed] == ["sync", "group_create", "volume_add", "volume_add", "peer_add"]
    assert (listed[0]["state"], listed[0]["error"]["code"]) == ("failed", "unknown_name")
    assert "There is no group named nope here." in leeward("jobs").out
    shown = leeward("jobs", listed[0]["id"]).out
    assert "[unknown_name]" in shown
    assert "Run `leeward status`" in shown
    assert json.loads(leeward("jobs", listed[1]["id"]).out.split("outcome", 1)[1])["name"] == "web"


def test_a_snapshot_is_made_of_a_point_listed_and_deleted(api: ApiThread, with_group: None, leeward: Leeward) -> None:
    leeward("sync", "web")
    made = leeward("snapshot", "create", "web", "--point", "01" * 16, "--name", "try", "--json").json
    assert api.site.submitted[-1][0] == ask.SnapshotCreate("web", "01" * 16, "try")
    leeward("snapshot", "create", "web", "--point", "1", "--for", "4h", "--name", "short")
    assert api.site.submitted[-1][0] == ask.SnapshotCreate("web", "1", "short", 14400)
    assert leeward("snapshot", "delete", "web", "short").status == 0
    assert leeward("snapshot", "reset", "web", "try", "--json").json == made
    assert api.site.submitted[-1][0] == ask.SnapshotReset("web", "try")
    assert (made["name"], made["group"]) == ("try", "web")
    assert [set(volume) for volume in made["volumes"]] == [{"name", "size", "export", "wwn"}] * 2
    assert leeward("snapshot", "list", "--json").json == [made]
    assert leeward("snapshot", "list", "--group", "other", "--json").json == []
    assert made["volumes"][1]["export"] in leeward("snapshot", "list").out
    assert leeward("snapshot", "delete", "web", "try", "--json").json == {"removed": "try"}
    assert leeward("snapshot", "list").out == "There are no snapshots.\n"


def test_group_set_says_what_stays_from_now_on(api: ApiThread, with_group: None, leeward: Leeward) -> None:
    assert leeward("group", "set", "web", "--keep", "7", "--retain", "all:1h,daily:30d", "--json").json["keep"] == 7
    assert api.site.submitted[-1][0] == ask.GroupSet("web", 7, "all:1h,daily:30d")
    assert leeward("group", "set", "web", "--retain", "").out == "Group web keeps the newest 7 points.\n"
    assert api.site.submitted[-1][0] == ask.GroupSet("web", None, "")


def test_promote_passes_force_on_and_answers_with_the_operation_and_the_point(
    with_group: None, leeward: Leeward
) -> None:
    leeward("sync", "web")
    done = leeward("promote", "web", "--force", "--yes", "--json")
    assert done.status == 0
    assert (done.json["operation"], done.json["role"], done.json["point"]["sequence"]) == ("job-6", "protected", 1)


def test_exports_are_listed(with_group: None, leeward: Leeward) -> None:
    assert leeward("export", "list", "--json").json[0] == {
        "name": "root",
        "uri": "nbd://127.0.0.1:10809/root",
        "wwn": "6001405" + "0" * 25,
        "group": "web",
        "volume": "root",
        "kind": "volume",
        "read_only": False,
    }
    assert "nbd://127.0.0.1:10809/log" in leeward("export", "list").out


def test_status_is_one_document_of_site_peers_and_groups(with_group: None, leeward: Leeward) -> None:
    status = leeward("status", "--json").json
    assert status["site"] == {"name": "harbour", "id": "5e" * 16, "version": "0.1.0"}
    assert [peer["connected"] for peer in status["peers"]] == [True]
    group: dict[str, Any] = status["groups"][0]
    assert set(group) >= {
        *("name", "id", "role", "state", "reason", "peer", "peer_connected", "rpo_s", "lag_s", "backlog_bytes"),
        *("eta_s", "last_point", "volumes"),
    }
    assert set(group["volumes"][0]) >= {"name", "size", "store", "state", "export", "wwn"}
    assert leeward("status", "web", "--json").json["groups"] == [group]
    told = leeward("status").out
    assert told.startswith("web: lagoon CANNOT take over: it has no recovery point yet.\n\nSite harbour (")
    assert "nothing was synced yet" in told


def test_events_are_listed_oldest_first_as_many_as_asked(api: ApiThread, leeward: Leeward) -> None:
    assert leeward("events").out == "There are no events.\n"
    for number in range(3):
        api.on_loop(api.site.event("sync_done", f"number {number}", "web"))
    assert [event["sequence"] for event in leeward("events", "--json").json] == [1, 2, 3]
    assert [event["sequence"] for event in leeward("events", "--limit", "2", "--json").json] == [2, 3]
    assert [event["sequence"] for event in leeward("events", "--after", "2", "--json").json] == [3]
    assert leeward("events", "--limit", "1").out == "2026-11-02 13:48:24Z  info     web: number 2 [sync_done]\n"


def test_version_needs_no_daemon(leeward: Leeward) -> None:
    assert leeward("version", LEEWARD_DATA="/nowhere").out == "leeward 0.1.0\n"
    assert leeward("version", "--json").json == {"version": "0.1.0"}


def test_the_catalogue_of_errors_is_explained(leeward: Leeward) -> None:
    listed = leeward("errors", "--json").json
    assert [entry["code"] for entry in listed] == sorted(entry["code"] for entry in listed)
    assert all(entry["remedy"] and entry["meaning"] and 1 <= entry["exit_status"] <= 4 for entry in listed)
    explained = leeward("errors", "store_too_small").out.splitlines()
    assert explained[0] == "store_too_small (exit status 1)"
    assert explained[1] == "  The store PATH has SIZE_BYTES bytes; NEEDED_BYTES are needed."
    assert leeward("errors", "zap").status == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(leeward: Leeward, shell: str) -> None:
    printed = leeward("completion", shell)
    assert (printed.status, "_LEEWARD_COMPLETE" in printed.out) == (0, True)
    assert leeward("completion", shell, "--json").json == {"shell": shell, "script": printed.out.removesuffix("\n")}
