"""A daemon's life as systemd and an operator see it: ready when it serves, stopped in order, back after a kill."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.daemon import CommandFailed, Daemon
from rig.ports import can_connect


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A site that is made and does not run yet."""
    made = Daemon(tmp_path / "site", "site")
    made.init()
    yield made
    made.close()


def test_status_fails_with_3_until_the_daemon_serves(daemon: Daemon) -> None:
    assert daemon.fails("status", status=3)["code"] == "daemon_unreachable"
    daemon.start()
    assert daemon.run("status")["site"]["name"] == "site"
    for address in (daemon.listen, daemon.nbd):
        host, _, port = address.rpartition(":")
        assert can_connect(int(port), host), f"status exits 0, and nobody listens at {address}"


def test_systemd_hears_ready_once_it_serves_and_stopping_at_the_end(daemon: Daemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        daemon.launch()
        assert b"READY=1" in systemd.recv(4096)
        assert daemon.run("status")["groups"] == []
        assert daemon.terminate() == 0
        assert b"STOPPING=1" in systemd.recv(4096)


def test_a_daemon_ends_with_status_0_when_it_is_told_to(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.terminate() == 0
    daemon.start()


def test_a_killed_daemon_serves_again_with_what_it_had(daemon: Daemon) -> None:
    daemon.start()
    added = daemon.run("volume", "add", "data", "--store", str(daemon.folder / "store"), "--size", "16M")
    daemon.restart()
    assert daemon.run("volume", "list") == [added]


def test_a_second_daemon_on_the_same_data_is_refused(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.fails("serve", status=4)["code"] == "data_in_use"
    assert daemon.run("status")["site"]["name"] == "site"


def test_a_daemon_whose_port_is_taken_ends_and_says_so(daemon: Daemon) -> None:
    host, _, port = daemon.nbd.rpartition(":")
    with socket.socket() as holder:
        holder.bind((host, int(port)))
        holder.listen()
        with pytest.raises(CommandFailed, match="port_taken"):
            daemon.start()
