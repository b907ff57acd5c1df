"""Our NBD client against nbdkit and qemu-nbd, which know nothing of us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.nbd import (
    CMD_READ,
    FLAG_CAN_MULTI_CONN,
    FLAG_READ_ONLY,
    STATE_HOLE,
    STATE_ZERO,
    NbdClient,
    NbdError,
    NbdRefused,
)
from rig.peers import nbdkit, qemu_nbd

MIB = 1 << 20


@pytest.fixture(params=["tcp", "unix"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """nbdkit's sparse memory disk of 64 MiB."""
    with nbdkit("memory", "64M", socket=tmp_path / "nbd" if request.param == "unix" else None) as uri:
        yield uri


def test_the_handshake_learns_size_and_flags(memory: str) -> None:
    with NbdClient(memory) as client:
        assert client.size == 64 * MIB
        assert not client.flags & FLAG_READ_ONLY
        assert client.flags & FLAG_CAN_MULTI_CONN


@pytest.mark.parametrize("structured", [True, False])
def test_what_was_written_is_read_back(memory: str, structured: bool) -> None:
    data = bytes(range(256)) * 40
    with NbdClient(memory, structured=structured) as client:
        client.pwrite(data, 12345, fua=True)
        client.flush()
        assert client.pread(len(data) + 2, 12344) == b"\0" + data + b"\0"


def test_trim_and_zero_clear_exactly_their_range(memory: str) -> None:
    with NbdClient(memory) as client:
        client.pwrite(b"x" * MIB, 0)
        client.trim(4096, 4096)
        client.zero(1000, 100, may_trim=False)
        expected = bytearray(b"x" * MIB)
        expected[4096:8192] = bytes(4096)
        expected[100:1100] = bytes(1000)
        assert client.pread(MIB, 0) == expected


def test_block_status_tells_data_from_holes(memory: str) -> None:
    with NbdClient(memory) as client:
        client.pwrite(b"x" * MIB, 32 * MIB)
        assert client.allocation() == [
            (0, 32 * MIB, STATE_HOLE | STATE_ZERO),
            (32 * MIB, MIB, 0),
            (33 * MIB, 31 * MIB, STATE_HOLE | STATE_ZERO),
        ]


def test_many_requests_are_in_flight_at_once(memory: str) -> None:
    with NbdClient(memory) as client:
        flying = {client.start_write(bytes([n]) * 4096, n * 4096): n for n in range(64)}
        while flying:
            cookie = client.finish_any()
            client.finish(cookie)
            del flying[cookie]
        assert client.pread(64 * 4096, 0) == b"".join(bytes([n]) * 4096 for n in range(64))


def test_an_error_carries_the_servers_number(memory: str) -> None:
    with NbdClient(memory) as client:
        with pytest.raises(NbdError) as caught:
            client.request(CMD_READ, 64 * MIB, 4096)
        assert caught.value.errno == 22
        assert client.pread(4, 0) == bytes(4), "the connection goes on after an error"


def test_an_export_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(MIB))
    with qemu_nbd(image, "--export-name", "there") as uri, pytest.raises(NbdRefused):
        NbdClient(uri + "elsewhere")


def test_a_server_that_dies_is_a_connection_error(tmp_path: Path) -> None:
    with nbdkit("memory", "1M") as uri:
        client = NbdClient(uri)
    with pytest.raises(ConnectionError):
        client.pread(4096, 0)
