"""What an operator can get wrong, and what can break: one clear error with code and exit status, nothing changed."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.daemon import LEEWARD, CommandFailed, Daemon
from rig.loop import loop_device, mounted, run
from rig.nbd import NbdClient, NbdRefused
from rig.pair import Pair

MIB = 1 << 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("site"), "site") as daemon:
        yield daemon


def made(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def refused(site: Daemon, *words: str, status: int, code: str) -> dict[str, object]:
    """The command fails as it should, says what to do, and leaves the site's volumes as they were."""
    before = site.run("volume", "list")
    error = site.fails(*words, status=status)
    assert error["code"] == code
    assert error["message"]
    assert error["remedy"]
    assert site.run("volume", "list") == before
    line = site.text(*words, status=status).strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert code in line
    return error


def test_a_missing_store(site: Daemon, tmp_path: Path) -> None:
    refused(site, "volume", "add", "v", "--store", str(tmp_path / "none"), status=1, code="store_missing")
    assert not (tmp_path / "none").exists()


def test_a_store_that_is_too_small(site: Daemon, tmp_path: Path) -> None:
    path = str(made(tmp_path / "small", MIB))
    refused(site, "volume", "add", "v", "--store", path, "--size", "2M", status=1, code="store_too_small")


def test_a_store_in_use_by_another_program(site: Daemon, tmp_path: Path) -> None:
    path = made(tmp_path / "used", 16 * MIB)
    with loop_device(path):
        refused(site, "volume", "add", "v", "--store", str(path), status=4, code="store_in_use")


def test_a_device_that_is_mounted(site: Daemon, tmp_path: Path) -> None:
    path = made(tmp_path / "fs", 32 * MIB)
    run("mkfs.ext4", "-q", path)
    with loop_device(path) as device, mounted(device, tmp_path / "mnt"):
        refused(site, "volume", "add", "v", "--store", str(device), status=4, code="store_in_use")


def test_a_folder_is_no_store(site: Daemon, tmp_path: Path) -> None:
    refused(site, "volume", "add", "v", "--store", str(tmp_path), status=1, code="store_kind_refused")


def test_one_store_is_not_two_volumes(site: Daemon, tmp_path: Path) -> None:
    path = str(made(tmp_path / "once", MIB))
    site.run("volume", "add", "once", "--store", path)
    refused(site, "volume", "add", "twice", "--store", path, status=4, code="store_in_use")
    refused(site, "volume", "add", "once", "--store", path, status=4, code="name_taken")
    site.run("volume", "remove", "once")
    assert Path(path).stat().st_size == MIB, "the store itself is left alone"


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "x" * 64])
def test_a_name_that_is_none(site: Daemon, tmp_path: Path, name: str) -> None:
    path = str(made(tmp_path / "s", MIB))
    error = site.fails("volume", "add", "--store", path, "--", name, status=2) if name == "-x" else site.fails(
        "volume", "add", name, "--store", path, status=2
    )  # fmt: skip
    assert error["code"] in ("bad_value", "usage")


def test_unknown_names(site: Daemon) -> None:
    for words in (("sync", "none"), ("points", "none"), ("promote", "none", "--yes"), ("group", "show", "none")):
        assert site.fails(*words, status=1)["code"] == "unknown_name"
    create = ("group", "create", "g", "--volume", "none", "--peer", "nobody")
    assert site.fails(*create, status=1)["code"] == "unknown_name"


def test_a_fingerprint_and_an_address_that_are_none(site: Daemon) -> None:
    good = "SHA256:" + "0" * 64
    bad = site.fails("peer", "add", "p", "--address", "127.0.0.1:1", "--fingerprint", "SHA256:12", status=2)
    assert bad["code"] == "bad_value"
    assert (
        site.fails("peer", "add", "p", "--address", "nowhere", "--fingerprint", good, status=2)["code"] == "bad_value"
    )
    plain = ("peer", "add", "p", "--address", "192.0.2.1:7450", "--fingerprint", good, "--plain")
    assert "loopback" in str(site.fails(*plain, status=2)["message"])
    assert site.run("peer", "list") == []


def test_no_daemon(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "off", "off")
    try:
        daemon.init()
        assert daemon.fails("status", status=3)["code"] == "daemon_unreachable"
        assert daemon.fails("init", "--name", "again", status=4)["code"] in ("site_exists", "already_initialised")
    finally:
        daemon.close()


def serve_fails(daemon: Daemon, code: str) -> str:
    """`leeward serve` ends at once with a line that has this code."""
    daemon.launch()
    process, daemon.process = daemon.process, None
    assert process is not None
    assert process.wait(30) != 0
    assert code in daemon.log()
    return daemon.log()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    for key in ("listen", "nbd"):
        daemon = Daemon(tmp_path / key, key)
        try:
            daemon.init()
            host, port = getattr(daemon, key).split(":")
            with socket.create_server((host, int(port))):
                serve_fails(daemon, "port_taken")
            daemon.start()
        finally:
            daemon.close()


def test_a_data_directory_in_use_by_another_daemon(site: Daemon) -> None:
    done = subprocess.run(
        [LEEWARD, "serve", "--data", str(site.data)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 4
    assert "data_in_use" in done.stderr
    site.run("status")


def test_records_of_a_newer_version_and_records_that_are_damaged(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "d", "d")
    try:
        daemon.init()
        records = daemon.data / "meta.db"
        whole = records.read_bytes()
        with sqlite3.connect(records) as conn:
            conn.execute("PRAGMA user_version = 999")
        conn.close()
        serve_fails(daemon, "metadata_newer")
        records.write_bytes(whole[:4096] + b"rubbish" * 600 + whole[8192:])
        serve_fails(daemon, "metadata_unreadable")
        records.unlink()
        serve_fails(daemon, "not_initialised")
        assert not records.exists(), "records are never made anew"
        records.write_bytes(whole)
        daemon.start()
    finally:
        daemon.close()


def test_a_store_that_is_gone_or_changed_size_stops_its_group_alone(tmp_path: Path) -> None:
    with Pair(tmp_path, volumes=1, size="16M") as pair:
        pair.sync()
        store = pair.east.folder / "data0.store"
        pair.east.terminate()
        store.rename(store.with_suffix(".away"))
        pair.east.start()
        group = pair.east.group(pair.group)
        assert (group["state"], group["volumes"][0]["export"]) == ("failed", None)
        assert pair.east.fails("sync", pair.group, status=1)["code"] == "volume_failed"
        made(store, 8 * MIB)
        error = pair.east.fails("volume", "reopen", "data0", status=1)
        assert error["code"] == "store_size_changed"
        store.unlink()
        store.with_suffix(".away").rename(store)
        pair.east.run("volume", "reopen", "data0")
        assert pair.east.group(pair.group)["state"] == "ok"
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(b"back" * 1024, 0)
        assert pair.sync()["bytes_sent"] == 4096, "all is compared by hash, and only what changed is sent"


def test_a_store_written_behind_the_daemon_is_compared_and_its_change_is_sent(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        pair.east.terminate()
        with (pair.east.folder / "data0.store").open("r+b") as file:
            file.seek(5 * MIB)
            file.write(b"behind")
        pair.east.start()
        assert any(event["code"] == "store_changed" for event in pair.east.events())
        pair.wait_connected()
        assert pair.sync()["bytes_sent"] == 4096
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.pread(6, 5 * MIB) == b"behind"


def test_a_wrong_fingerprint_is_an_event_at_both_sites_and_no_link(tmp_path: Path) -> None:
    with Daemon(tmp_path / "a", "a") as a, Daemon(tmp_path / "b", "b") as b:
        a.run("peer", "add", "b", "--address", b.listen, "--fingerprint", "SHA256:" + "1" * 64)
        b.run("peer", "add", "a", "--address", a.listen, "--fingerprint", a.fingerprint)
        from rig.until import until

        until(lambda: any(e["code"] == "wrong_fingerprint" for e in a.events()), "a complains")
        assert [peer["connected"] for peer in a.run("peer", "list")] == [False]


def test_a_peer_that_is_down_and_a_recovery_volume_that_hosts_want_to_write(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        host, port = pair.west.nbd.split(":")
        with pytest.raises(NbdRefused):
            NbdClient(f"nbd://{host}:{port}/data0")
        assert pair.west.fails("sync", pair.group, status=4)["code"] == "refused_by_state"
        assert pair.west.fails("promote", pair.group, "--yes", status=4)["code"] == "refused_by_state"
        pair.west.kill()
        assert pair.east.fails("sync", pair.group, status=1)["code"] == "peer_unreachable"
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(b"hosts do not notice", 0)


def test_a_full_disk_at_the_recovery_site_costs_nothing_but_the_sync(tmp_path: Path) -> None:
    """The recovery site's data directory is a file system of its own, so small that the change does not fit."""
    image = made(tmp_path / "disk", 96 * MIB)
    run("mkfs.ext4", "-q", image)
    with loop_device(image) as device, mounted(device, tmp_path / "west"):
        assert os.path.ismount(tmp_path / "west")
        with Pair(tmp_path, size="128M") as pair:
            first = pair.sync()
            with NbdClient(pair.exports()[0]) as client:
                for at in range(100):
                    client.pwrite(os.urandom(MIB), at * MIB)
            error = pair.east.fails("sync", pair.group, status=4)
            assert error["details"]["cause"] == "layer_space"
            assert [point["id"] for point in pair.points()] == [first["point"]["id"]]
            with NbdClient(pair.exports()[0]) as client:
                client.trim(100 * MIB, 0)
            assert pair.sync()["point"]["sequence"] >= first["point"]["sequence"]


def test_a_group_beyond_the_space_that_the_recovery_site_gives_is_refused_there(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.west.terminate()
        pair.west.configure(store_limit="20M")
        pair.west.start()
        pair.wait_connected()
        pair.east.run("volume", "add", "more", "--store", str(tmp_path / "more"), "--size", "8M")
        pair.east.run("group", "create", "second", "--volume", "more", "--peer", "west")
        error = pair.east.fails("sync", "second", status=4)
        assert error["details"]["cause"] == "store_limit_reached"
        assert pair.sync()["point"]["sequence"] == 1, "the group that is there is not touched"


def test_a_damaged_layer_is_refused_and_older_points_stay(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair, NbdClient(pair.exports()[0]) as client:
        pair.sync()
        client.pwrite(b"x" * MIB, 0)
        pair.sync()
        pair.west.kill()
        (pack,) = (pair.west.data / "volumes").glob("*/layers/*.pack")
        pack.write_bytes(pack.read_bytes()[:8192])
        pair.west.start()
        group = pair.west.group(pair.group)
        assert group["state"] == "failed"
        assert "layer" in group["reason"]
        try:
            pair.west.run("promote", pair.group, "--force", "--yes")
        except CommandFailed:
            return
        pytest.fail("a damaged layer was promoted")
