"""What happens on the worst days: replies that are lost, orderly stops before a power cut, full disks, second tries."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from engine.wire.codec import decode_header, encode
from engine.wire.limits import PREFIX_BYTES
from engine.wire.messages import Seal
from rig.daemon import CommandFailed, Daemon
from rig.loop import loop_device, mounted, run
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.ports import free_port
from rig.proxy import SEAL, Proxy
from rig.until import until

MIB = 1 << 20
BLOCK = 4096


@contextmanager
def pair_behind_proxy(folder: Path) -> Iterator[tuple[Pair, Proxy]]:
    """A plain pair in which only east dials, through the proxy."""
    pair = Pair(folder, size="16M", plain=True)
    try:
        for daemon in (pair.east, pair.west):
            daemon.init()
            daemon.start()
        with Proxy(pair.west.listen) as proxy:
            west, east = pair.west, pair.east
            east.run("peer", "add", "west", "--address", proxy.address, "--fingerprint", west.fingerprint, "--plain")
            nowhere = f"127.0.0.1:{free_port()}"
            west.run("peer", "add", "east", "--address", nowhere, "--fingerprint", east.fingerprint, "--plain")
            east.run("volume", "add", "data0", "--store", str(folder / "store"), "--size", "16M")
            east.run("group", "create", pair.group, "--volume", "data0", "--peer", "west")
            pair.wait_connected()
            yield pair, proxy
    finally:
        pair.close()


def _seal_whose_reply_is_lost(pair: Pair, proxy: Proxy) -> object:
    """A sync whose point is sealed at west while east never hears of it; the running command."""
    pair.sync()
    with NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"A" * 64 * BLOCK, 0)
    proxy.mute_after(SEAL)
    command = pair.east.spawn("sync", pair.group)
    until(lambda: proxy.has_muted, "SEAL went through", 30)
    until(lambda: len(pair.points()) == 2, "west has sealed", 30)
    return command


def _is_in_step(pair: Pair) -> None:
    """Another change is sealed on top, and the newest point reads as the protected volume."""
    with NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"B" * BLOCK, 9 * BLOCK)
        pair.sync()
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.pread(MIB, 0) == client.pread(MIB, 0)


def test_a_lost_reply_to_a_seal_is_found_again_over_the_next_link(tmp_path: Path) -> None:
    with pair_behind_proxy(tmp_path) as (pair, proxy):
        command = _seal_whose_reply_is_lost(pair, proxy)
        proxy.cut()
        done = Daemon.finished(command)  # type: ignore[arg-type]  # a Popen
        assert done["point"]["id"] == pair.points()[0]["id"]
        _is_in_step(pair)


@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_a_protected_site_that_ends_between_seal_and_its_reply_adopts_the_point(tmp_path: Path, how: str) -> None:
    with pair_behind_proxy(tmp_path) as (pair, proxy):
        command = _seal_whose_reply_is_lost(pair, proxy)
        if how == "terminated":
            pair.east.terminate()
        else:
            pair.east.kill()
        with pytest.raises(CommandFailed):
            Daemon.finished(command)  # type: ignore[arg-type]  # a Popen
        proxy.cut()
        pair.east.start()
        pair.wait_connected()
        until(lambda: pair.east.group(pair.group)["state"] == "ok", "the sync that was cut has run again", 60)
        again = pair.sync()
        assert again["bytes_sent"] == 0, "what was sealed is not sent a second time"
        _is_in_step(pair)


def test_a_sync_given_up_after_seal_was_sent_does_not_forget_that_it_may_be_sealed(tmp_path: Path) -> None:
    """The peer stays away for longer than a sync waits: it fails, and the next one finds the point at the peer."""
    with pair_behind_proxy(tmp_path) as (pair, proxy):
        command = _seal_whose_reply_is_lost(pair, proxy)
        proxy.is_down = True
        proxy.cut()
        with pytest.raises(CommandFailed, match="peer_unreachable"):
            Daemon.finished(command)  # type: ignore[arg-type]  # a Popen
        proxy.is_down = False
        pair.wait_connected()
        assert pair.sync()["point"]["id"] == pair.points()[0]["id"]
        assert len(pair.points()) == 2
        _is_in_step(pair)


def _with_another_digest(frame: bytes) -> bytes:
    """The SEAL of a sender that believes it sent something else: whole and well formed, and not what is held there."""
    seal = decode_header(Seal, frame[PREFIX_BYTES:])
    assert isinstance(seal, Seal)
    wrong = [msgspec.structs.replace(volume, digest=bytes(16)) for volume in seal.volumes]
    return encode(msgspec.structs.replace(seal, volumes=tuple(wrong)))


def _files(pair: Pair, pattern: str) -> list[Path]:
    return list((pair.west.data / "volumes").glob(pattern))


@pytest.mark.parametrize("is_first", [True, False])
def test_what_does_not_match_its_seal_is_dropped_and_the_next_sync_sends_all_of_it(
    tmp_path: Path, is_first: bool
) -> None:
    with pair_behind_proxy(tmp_path) as (pair, proxy):
        if not is_first:
            pair.sync()
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(os.urandom(2 * MIB), 3 * MIB)
            expected = client.pread(16 * MIB, 0)
        before = pair.points()
        proxy.alter_next(SEAL, _with_another_digest)
        error = pair.east.fails("sync", pair.group, status=4)
        assert error["details"]["cause"] == "seal_mismatch"
        assert error["remedy"]
        assert pair.points() == before
        assert not _files(pair, "*/layers/*.pack"), "nothing of it is built upon"
        assert not _files(pair, "*/*.seed")
        done = pair.sync()
        assert done["bytes_sent"] == 2 * MIB, "from nothing, and all of it"
        assert done["point"]["sequence"] == len(before) + 1
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.pread(16 * MIB, 0) == expected
        _is_in_step(pair)


def _reboot(daemon: Daemon) -> None:
    """An orderly stop, then a host that starts anew: tmpfs is empty."""
    assert daemon.terminate() == 0
    shutil.rmtree(daemon.live)
    daemon.live.mkdir()
    daemon.start()


def test_what_hosts_wrote_to_a_promoted_volume_survives_an_orderly_stop_and_a_reboot(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        pair.east.kill()
        pair.west.run("promote", pair.group, "--force", "--yes")
        with NbdClient(pair.west.exports(pair.group)[0]) as client:
            client.pwrite(b"never flushed" * 1000, 5000)
        _reboot(pair.west)
        with NbdClient(pair.west.exports(pair.group)[0]) as client:
            assert client.pread(13000, 5000) == b"never flushed" * 1000
        assert pair.west.group(pair.group)["backlog_bytes"] == 4 * BLOCK, "a clean stop leaves nothing to guess"


def test_what_a_test_wrote_to_a_snapshot_survives_an_orderly_stop_and_a_reboot(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        with pair.snapshot() as exports:
            with NbdClient(exports[0]) as client:
                client.pwrite(b"test" * 2048, 100)
            _reboot(pair.west)
            with NbdClient(exports[0]) as client:
                assert client.pread(8192, 100) == b"test" * 2048


@pytest.mark.parametrize("left_kib", [120, 240, 420, 560])
def test_a_promotion_that_a_full_disk_stops_can_be_asked_for_again(tmp_path: Path, left_kib: int) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    run("mkfs.ext4", "-q", "-m", "0", image)
    with loop_device(image) as device, mounted(device, tmp_path / "west"):
        assert os.path.ismount(tmp_path / "west")
        with Pair(tmp_path, volumes=2, size="16M") as pair:
            pair.sync()
            pair.east.kill()
            # Room for some of the files of two tops and two trackings, but not for all.
            filler = tmp_path / "west" / "filler"
            room = os.statvfs(tmp_path / "west")
            free = room.f_bavail * room.f_frsize
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free - left_kib * 1024)
            error = pair.west.fails("promote", pair.group, "--force", "--yes", status=1)
            assert error["code"] in ("io_failed", "metadata_space", "layer_space")
            assert pair.west.group(pair.group)["role"] == "recovery"
            filler.unlink()
            assert pair.west.run("promote", pair.group, "--force", "--yes")["role"] == "protected"
            with NbdClient(pair.west.exports(pair.group)[1]) as client:
                client.pwrite(b"x" * BLOCK, 0, fua=True)


def test_a_group_and_its_volumes_can_be_removed_at_the_recovery_site(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(b"x" * MIB, 0)
        pair.sync()
        folder = pair.west.data / "volumes"
        assert list(folder.glob("*/layers/*.pack"))
        pair.west.run("group", "remove", pair.group)
        assert not list(folder.glob("*/layers/*.pack")), "its layers are gone"
        pair.west.run("volume", "remove", "data0")
        assert pair.west.run("volume", "list") == []
        pair.west.restart()
        assert pair.west.run("volume", "list") == []


def test_a_file_that_is_in_the_way_of_a_new_recovery_store_is_left_alone(tmp_path: Path) -> None:
    with Daemon(tmp_path / "east", "east") as east, Daemon(tmp_path / "west", "west") as west:
        keepsake = west.data / "stores" / "data0.img"
        keepsake.parent.mkdir()
        keepsake.write_bytes(b"the copy of last year" * 1000)
        east.run("peer", "add", "west", "--address", west.listen, "--fingerprint", west.fingerprint)
        west.run("peer", "add", "east", "--address", east.listen, "--fingerprint", east.fingerprint)
        east.run("volume", "add", "data0", "--store", str(tmp_path / "s"), "--size", "16M")
        east.run("group", "create", "g", "--volume", "data0", "--peer", "west")
        assert east.run("sync", "g")["point"]["sequence"] == 1
        assert keepsake.read_bytes() == b"the copy of last year" * 1000


def test_the_same_request_twice_at_once_is_one_job(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        commands = [pair.west.spawn("snapshot", "create", pair.group, "--name", "one") for _ in range(2)]
        ended = [command.wait(60) for command in commands]
        # Joined, or asked for after the first was done: then the name is taken. Never two snapshots.
        assert 0 in ended
        assert len(pair.west.run("snapshot", "list")) == 1


def test_no_port_is_left_in_use_after_an_orderly_stop(tmp_path: Path) -> None:
    with Daemon(tmp_path / "d", "d") as daemon:
        daemon.terminate()
        for address in (daemon.listen, daemon.nbd):
            host, port = address.split(":")
            socket.create_server((host, int(port))).close()
        daemon.start()
