"""A link that is cut, hung, flapping, or made twice: nothing hangs, nothing is lost, and why is said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rig.daemon import Daemon
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.ports import free_port
from rig.proxy import Proxy
from rig.sides import Sides
from rig.until import until
from rig.veth import Veth

BLOCK = 4096
MIB = 1 << 20
NOTICED_S = 20
"""A silent peer is given up after five pings of 2 s."""
OVER_S = 60
"""Every command is over by then: contact is waited for 30 s, after the silence was noticed."""


def _link(side: Daemon) -> bool:
    (peer,) = side.run("status")["peers"]
    return bool(peer["connected"])


def _ends_in_time(side: Daemon, *words: str) -> str:
    """Run a command that cannot reach the peer; the code of its error, "" if it needed no peer."""
    began = time.monotonic()
    running = side.spawn(*words)
    out, _ = running.communicate(timeout=OVER_S * 2)
    took = time.monotonic() - began
    assert took < OVER_S, f"{words} took {took:.0f} s"
    if running.returncode == 0:
        return ""
    error = _error(out)
    assert error["message"]
    assert error["remedy"]
    return str(error["code"])


def _error(out: str) -> dict[str, str]:
    return dict(json.loads(out)["error"])


@contextlib.contextmanager
def _frozen(side: Daemon) -> Iterator[None]:
    assert side.process is not None
    os.kill(side.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(side.process.pid, signal.SIGCONT)


def _commands_without_a_peer(sides: Sides) -> None:
    """At the protected side, while the other one says nothing. All at once: each has its own deadline."""
    east, group = sides.east, sides.group
    syncing = east.spawn("sync", group)
    assert _ends_in_time(east, "reverse", group) in ("peer_unreachable", "refused_by_state")
    assert _ends_in_time(east, "restore", group) in ("peer_unreachable", "refused_by_state")
    until(lambda: not _link(east), "the silence is noticed", timeout_s=NOTICED_S)
    assert east.group(group)["peer_connected"] is False
    out, _ = syncing.communicate(timeout=OVER_S)
    assert _error(out)["code"] == "peer_unreachable"
    assert any(event["code"] == "link_silent" for event in east.events())
    assert _ends_in_time(east, "demote", group) == ""
    assert _ends_in_time(east, "promote", group) == ""
    sides.check_live(east)


def test_a_peer_that_is_frozen_is_given_up_and_taken_back(tmp_path: Path) -> None:
    with Pair(tmp_path, size="1M") as pair:
        sides = Sides(pair)
        sides.write(sides.east, 1, 11)
        with _frozen(sides.west):
            _commands_without_a_peer(sides)
        pair.wait_connected()
        sides.sync(sides.east, moved=1)


def test_a_cable_that_is_pulled_is_noticed_and_a_sync_goes_on_behind_it(tmp_path: Path) -> None:
    """In a network of its own: while the interface is down nobody is told anything."""
    with _pair_over(tmp_path, Veth("10.77.31")) as (pair, wire):
        wire.limit("100mbit")
        pair.sync()
        data = _filled(pair, 48 * MIB)
        syncing = pair.east.spawn("sync", pair.group)
        until(lambda: _done_bytes(pair.east) > 8 * MIB, "a part is there")
        wire.down()
        until(lambda: not _link(pair.east), "the silence is noticed", timeout_s=NOTICED_S)
        wire.up()
        done = pair.east.finished(syncing)
        assert done["bytes_sent"] < 64 * MIB, "what had landed is not sent again"
        _holds(pair, data)
        wire.down()
        assert _ends_in_time(pair.east, "sync", pair.group) == "peer_unreachable"
        wire.up()
        pair.wait_connected()
        pair.sync()


def _done_bytes(side: Daemon) -> int:
    running = [job for job in side.run("jobs") if job["kind"] == "sync" and job["progress"]]
    return int(running[0]["progress"]["done_bytes"]) if running else 0


def test_an_interface_that_flaps_every_second_loses_nothing(tmp_path: Path) -> None:
    with _pair_over(tmp_path, Veth("10.77.32")) as (pair, wire):
        wire.limit("200mbit")
        pair.sync()
        data = _filled(pair, 32 * MIB)
        over = threading.Event()

        def flap() -> None:
            while not over.wait(1.0):
                wire.down()
                over.wait(1.0)
                wire.up()

        with _beside(flap, over):
            done = pair.sync()
        assert done["bytes_sent"] < 2 * len(data)
        _holds(pair, data)


def test_connections_that_are_reset_again_and_again_and_made_from_both_sides_lose_nothing(tmp_path: Path) -> None:
    """Each side dials the other one through a proxy of its own; both are cut at once, in mid-sync and between."""
    pair = Pair(tmp_path, size="256M", plain=True)
    with contextlib.ExitStack() as stack:
        stack.callback(pair.close)
        for daemon in (pair.east, pair.west):
            daemon.init()
            daemon.start()
        proxies = [stack.enter_context(Proxy(side.listen)) for side in (pair.west, pair.east)]
        for side, other, proxy in ((pair.east, pair.west, proxies[0]), (pair.west, pair.east, proxies[1])):
            words = ["--address", proxy.address, "--fingerprint", other.fingerprint, "--plain"]
            side.run("peer", "add", other.name, *words)
        store = str(tmp_path / "store")
        pair.east.run("volume", "add", "data0", "--store", store, "--size", "256M")
        pair.east.run("group", "create", pair.group, "--volume", "data0", "--peer", "west")
        pair.wait_connected()
        data = _filled(pair, 192 * MIB)
        over, cuts = threading.Event(), []

        def cut() -> None:
            while not over.wait(0.15):
                for proxy in proxies:
                    proxy.cut()
                cuts.append(1)

        with _beside(cut, over):
            done = pair.sync()
        assert cuts
        assert done["point"] is not None
        for _ in range(8):
            for proxy in proxies:
                proxy.cut()
            pair.wait_connected()
            pair.sync()
        _holds(pair, data)


@contextlib.contextmanager
def _pair_over(folder: Path, wire: Veth) -> Iterator[tuple[Pair, Veth]]:
    """West in a network of its own."""
    with wire:
        pair = Pair(folder, size="64M")
        pair.east.listen = f"{wire.here}:{free_port()}"
        pair.west.listen = f"{wire.there}:{free_port()}"
        pair.west.nbd = f"{wire.there}:{free_port()}"
        pair.west.prefix = wire.prefix
        with pair:
            yield pair, wire


def _filled(pair: Pair, length: int) -> bytes:
    data = os.urandom(length)
    with NbdClient(pair.exports()[0]) as client:
        for at in range(0, length, 16 * MIB):
            client.pwrite(data[at : at + 16 * MIB], at)
    return data


def _holds(pair: Pair, data: bytes) -> None:
    """The newest point begins with these bytes."""
    pair.wait_connected()
    with pair.snapshot() as exports, NbdClient(exports[0]) as look:
        for at in range(0, len(data), 16 * MIB):
            assert look.pread(16 * MIB, at) == data[at : at + 16 * MIB]


@contextlib.contextmanager
def _beside(work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
