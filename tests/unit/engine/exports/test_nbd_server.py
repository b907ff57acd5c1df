"""The server over real sockets: who may come, who must wait, who is sent off, and what is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import BadValue, NameTaken, PortTaken, UnknownName
from engine.exports import buffers
from engine.exports.nbd_connection import MAX_REQUESTS, NbdConnection
from engine.exports.nbd_server import NbdServer
from engine.pool import DiskPool
from rig.fileio import FileIO, refused
from rig.nbd import NbdClient, NbdError, NbdRefused
from rig.served import ServedFiles
from rig.until import until

MIB = 1024 * 1024
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28
READ, WRITE, DISC, FLUSH = range(4)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFiles]:
    with ServedFiles(tmp_path) as served:
        yield served


def raw_request(kind: int, offset: int, length: int, cookie: int = 1, flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length)


def enter(port: int, name: str) -> socket.socket:
    """A socket right behind EXPORT_NAME: simple replies, nothing else agreed."""
    raw = socket.create_connection(("127.0.0.1", port), 10)
    raw.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(name)) + name.encode())
    assert len(receive(raw, 18 + 10)) == 28
    return raw


def receive(raw: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = raw.recv(length - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)


def is_closed(raw: socket.socket) -> bool:
    """True once the server has closed; what it still sent is read first."""
    try:
        while raw.recv(65536):
            pass
    except ConnectionResetError:
        pass  # closed with our bytes unread: closed all the same
    return True


def connections(served: ServedFiles, name: str) -> list[NbdConnection]:
    return list(served.server.table.by_name[name].connections)


def in_flight(served: ServedFiles, name: str) -> int:
    """Most requests that one connection has in flight."""
    return max((c._exchange.in_flight for c in connections(served, name) if c._exchange is not None), default=0)


def held(served: ServedFiles) -> int:
    return served.on_loop(lambda: served.server.buffers.held_bytes)


def test_what_is_written_is_read_at_every_size(served: ServedFiles) -> None:
    io = served.add("vol", 80 * MIB + 13)
    with NbdClient(served.uri("vol")) as client, NbdClient(served.uri("vol"), structured=False) as simple:
        assert (client.size, client.block_sizes) == (80 * MIB + 13, (1, 4096, 32 * MIB))
        for number, length in enumerate((1, 511, 4096, 65536, 65537, 262144, 262145, MIB, MIB + 1, 3 * MIB, 32 * MIB)):
            offset = 40 * MIB * (number % 2) + 7 * number
            data = os.urandom(length)
            client.pwrite(data, offset)
            assert client.pread(length, offset) == data
            assert simple.pread(length, offset) == data
        tail = b"the very end"
        simple.pwrite(tail, io.size_bytes - len(tail))
        assert client.pread(len(tail), io.size_bytes - len(tail)) == tail
    assert not served.reports


def test_many_small_writes_in_one_segment_are_all_answered(served: ServedFiles) -> None:
    served.add("vol", MIB)
    raw = enter(served.port, "vol")
    count = 2000
    raw.sendall(b"".join(raw_request(WRITE, n % 1000, 3, n) + b"%03d" % (n % 1000) for n in range(count)))
    replies = receive(raw, 16 * count)
    assert [struct.unpack_from(">IIQ", replies, 16 * n) for n in range(count)] == [
        (0x67446698, 0, n) for n in range(count)
    ]
    raw.close()


def test_a_request_may_arrive_in_single_bytes(served: ServedFiles) -> None:
    served.add("vol", MIB)
    raw = enter(served.port, "vol")
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in raw_request(WRITE, 5, 6, 77) + b"hello!" + raw_request(READ, 5, 6, 78):
        raw.sendall(bytes([byte]))
    assert receive(raw, 16 + 16 + 6) == (
        struct.pack(">IIQ", 0x67446698, 0, 77) + struct.pack(">IIQ", 0x67446698, 0, 78) + b"hello!"
    )
    raw.close()


def test_a_refused_write_is_swallowed_and_the_next_request_served(served: ServedFiles) -> None:
    io = served.add("vol", 64 * MIB)
    io.keep_journal = True
    with NbdClient(served.uri("vol")) as client:
        for offset, length, error in ((64 * MIB - 1, 2, ENOSPC), (0, 32 * MIB + 1, EINVAL), (1 << 63, 70000, ENOSPC)):
            with pytest.raises(NbdError) as refusal:
                client.pwrite(b"\xff" * length, offset)
            assert refusal.value.errno == error
        client.pwrite(b"fine", 0)
        assert client.pread(4, 0) == b"fine"
    assert io.journal == [("write", 0, 4, False)]


def test_a_refusal_waits_for_the_whole_payload(served: ServedFiles) -> None:
    served.add("vol", MIB)
    raw = enter(served.port, "vol")
    raw.sendall(raw_request(WRITE, MIB, 300_000, 9) + bytes(200_000))
    until(lambda: any(c._inbox._skip == 100_000 for c in connections(served, "vol")), "two thirds are swallowed")
    raw.setblocking(False)
    with pytest.raises(BlockingIOError):
        raw.recv(1)
    raw.settimeout(10)
    raw.sendall(bytes(100_000) + raw_request(READ, 0, 1, 10))
    answers = struct.pack(">IIQ", 0x67446698, ENOSPC, 9) + struct.pack(">IIQ", 0x67446698, 0, 10) + b"\0"
    assert receive(raw, len(answers)) == answers
    raw.close()


def test_unknown_commands_and_flags_are_refused_and_the_client_goes_on(served: ServedFiles) -> None:
    served.add("vol", MIB)
    with NbdClient(served.uri("vol")) as client:
        for kind, flags in ((5, 0), (8, 0), (999, 0), (READ, 1 << 9), (4, 1 << 4)):
            with pytest.raises(NbdError) as refusal:
                client.request(kind, 0, 4096, flags)
            assert refusal.value.errno == EINVAL
        assert client.pread(1, 0) == b"\0"


def test_writes_to_a_read_only_export_are_not_permitted_and_reported_once(served: ServedFiles) -> None:
    served.add("vol", MIB, read_only=True, content=b"kept")
    with NbdClient(served.uri("vol")) as client:
        assert client.flags & 2
        for _ in range(50):
            for call in (
                lambda: client.pwrite(b"lost", 0),
                lambda: client.trim(4096, 0),
                lambda: client.zero(4096, 0),
            ):
                with pytest.raises(NbdError) as refusal:
                    call()
                assert refusal.value.errno == EPERM
        client.flush()
        assert client.pread(4, 0) == b"kept"
    assert served.codes() == ["write_refused"]
    assert served.reports[0].message.startswith("A write to vol was refused: the export is read-only.")


def test_a_role_that_may_not_write_is_told_as_not_permitted_and_reported_once(served: ServedFiles) -> None:
    io = served.add("vol", 4 * MIB, content=b"kept")
    io.refusal = refused("vol")
    with NbdClient(served.uri("vol")) as client:
        for length in (4, 4, 4096, 100_000, 2 * MIB):
            with pytest.raises(NbdError) as refusal:
                client.pwrite(b"x" * length, 0)
            assert refusal.value.errno == EPERM
        assert client.pread(4, 0) == b"kept"
    assert served.codes() == ["write_refused"]


@pytest.mark.parametrize(("number", "told"), [(errno.ENOSPC, ENOSPC), (errno.EIO, EIO), (errno.EROFS, EIO)])
def test_a_failing_disk_is_told_to_the_host_and_reported_once(served: ServedFiles, number: int, told: int) -> None:
    io = served.add("vol", MIB)
    io.refusal = OSError(number, os.strerror(number))
    with NbdClient(served.uri("vol")) as client:
        for _ in range(3):
            with pytest.raises(NbdError) as failure:
                client.pwrite(b"x", 0)
            assert failure.value.errno == told
        io.refusal = None
        client.pwrite(b"y", 0)
    assert served.codes() == ["export_failed"]
    assert os.strerror(number) in served.reports[0].message


def test_a_read_that_fails_tells_an_error_whatever_its_size(served: ServedFiles) -> None:
    io = served.add("vol", 8 * MIB)
    os.truncate(served.path("vol"), 0)  # behind the server's back: every read comes short
    for structured in (True, False):
        with NbdClient(served.uri("vol"), structured=structured) as client:
            for length in (4096, 200_000, MIB, 8 * MIB):
                with pytest.raises(NbdError) as failure:
                    client.pread(length, 0)
                assert failure.value.errno == EIO
            client.pwrite(bytes(io.size_bytes), 0)
            assert client.pread(4096, 0) == bytes(4096)
            os.truncate(served.path("vol"), 0)


def test_an_export_name_is_presented_once(served: ServedFiles) -> None:
    io = served.add("vol", MIB)
    with pytest.raises(NameTaken):
        served.on_loop(lambda: served.server.present("vol", io, read_only=False))
    for name in ("", "x" * 256):
        with pytest.raises(BadValue):
            served.on_loop(lambda name=name: served.server.present(name, io, read_only=False))
    with pytest.raises(UnknownName):
        served.call(served.server.withdraw("other"))
    assert served.on_loop(served.server.exports) == ["vol"]


def test_a_withdrawn_export_ends_its_clients_and_leaves_the_others(served: ServedFiles) -> None:
    io = served.add("vol", MIB)
    served.add("other", MIB)
    client, other = NbdClient(served.uri("vol")), NbdClient(served.uri("other"))
    served.call(served.server.withdraw("vol"))
    with pytest.raises(OSError, match=r"closed|reset|pipe"):
        client.pread(1, 0)
    client.abort()
    with pytest.raises(NbdRefused):
        NbdClient(served.uri("vol"))
    other.pwrite(b"on", 0)
    served.on_loop(lambda: served.server.present("vol", io, read_only=True))
    with NbdClient(served.uri("vol")) as again:
        assert again.flags & 2
    other.close()


def test_withdrawing_waits_for_requests_in_flight_and_answers_them(served: ServedFiles) -> None:
    io = served.add("vol", 8 * MIB)
    io.gate = threading.Event()
    with NbdClient(served.uri("vol")) as client:
        cookies = [client.start_write(bytes([n]) * 4096, n * 4096, fua=True) for n in range(3)]
        cookies.append(client.start_write(b"z" * 2 * MIB, 4 * MIB))
        until(lambda: in_flight(served, "vol") == 5, "five steps in flight")
        withdrawal = served.begin(served.server.withdraw("vol"))
        until(lambda: served.on_loop(served.server.exports) == [], "the name is free")
        assert not withdrawal.done()
        io.gate.set()
        for cookie in cookies:
            client.finish(cookie)
        withdrawal.result(10)
    assert served.path("vol").read_bytes()[2 * 4096 : 3 * 4096] == b"\2" * 4096
    until(lambda: held(served) == 0, "every buffer is given back")


def test_a_client_that_goes_away_leaves_its_writes_done_and_no_buffer_held(served: ServedFiles) -> None:
    io = served.add("vol", 8 * MIB)
    io.gate = threading.Event()
    client = NbdClient(served.uri("vol"))
    client.start_write(b"a" * 4096, 0, fua=True)
    client.start_write(b"b" * 3 * MIB, MIB, fua=True)
    until(lambda: held(served) > 3 * MIB, "the writes are in flight")
    client.abort()
    io.gate.set()
    until(lambda: held(served) == 0, "every buffer is given back")
    until(lambda: served.on_loop(lambda: not served.server._connections), "the connection is forgotten")
    assert served.path("vol").read_bytes()[: 4 * MIB] == b"a" * 4096 + bytes(MIB - 4096) + b"b" * 3 * MIB
    assert not served.reports


def test_disconnect_answers_what_was_asked_before_it(served: ServedFiles) -> None:
    io = served.add("vol", 8 * MIB)
    io.gate = threading.Event()
    raw = enter(served.port, "vol")
    raw.sendall(raw_request(WRITE, 0, 2, 1, flags=1) + b"ok" + raw_request(FLUSH, 0, 0, 2) + raw_request(DISC, 0, 0, 3))
    raw.shutdown(socket.SHUT_WR)
    until(lambda: any(c._ending for c in connections(served, "vol")), "the client said good-bye")
    io.gate.set()
    answers = receive(raw, 100)
    assert {struct.unpack_from(">IIQ", answers, at) for at in (0, 16)} == {(0x67446698, 0, 1), (0x67446698, 0, 2)}
    assert len(answers) == 32
    raw.close()


def test_requests_in_flight_of_one_connection_are_bounded(served: ServedFiles) -> None:
    io = served.add("vol", 8 * MIB)
    served.add("other", MIB)
    io.gate = threading.Event()
    raw = enter(served.port, "vol")
    count = 5000
    sender = threading.Thread(
        target=raw.sendall, args=(b"".join(raw_request(WRITE, n, 1, n, 1) + b"x" for n in range(count)),)
    )
    sender.start()
    until(lambda: in_flight(served, "vol") >= MAX_REQUESTS, "as many as may be in flight are")
    with NbdClient(served.uri("other")) as other:
        for _ in range(20):  # the loop has gone round many times, and has served others meanwhile
            other.pwrite(b"quick", 0)
            assert in_flight(served, "vol") <= MAX_REQUESTS + 256
    io.gate.set()
    replies = receive(raw, 16 * count)
    assert sorted(struct.unpack_from(">IIQ", replies, 16 * n)[2] for n in range(count)) == list(range(count))
    sender.join()
    raw.close()


@pytest.mark.parametrize("length", [4096, 200_000, MIB])
def test_a_client_that_takes_no_replies_is_not_read_from_and_holds_up_nobody(served: ServedFiles, length: int) -> None:
    served.add("vol", 8 * MIB)
    raw = enter(served.port, "vol")
    raw.setblocking(False)
    sent = 0
    requests = b"".join(raw_request(READ, 0, length, n) for n in range(1000))
    stuck = False
    while not stuck:
        try:
            sent += raw.send(requests[sent % len(requests) :])
        except BlockingIOError:
            stuck = any(not c._reading and c._outbox.blocked for c in connections(served, "vol"))
    assert held(served) <= buffers.CONNECTION_BYTES + 4 * MIB
    with NbdClient(served.uri("vol")) as other:
        other.pwrite(b"quick", 0)
        assert other.pread(5, 0) == b"quick"
    served.call(served.server.withdraw("vol"), timeout_s=10)
    raw.close()
    until(lambda: held(served) == 0, "every buffer is given back")


def test_long_reads_of_a_client_that_takes_none_do_not_hold_up_a_withdrawal(served: ServedFiles) -> None:
    served.add("vol", 64 * MIB)
    client = NbdClient(served.uri("vol"))
    for _ in range(8):
        client._start(READ, 0, 32 * MIB)
    until(lambda: held(served) >= MIB, "reads are in flight")
    assert held(served) <= buffers.CONNECTION_BYTES + 8 * MIB
    served.call(served.server.withdraw("vol"), timeout_s=10)
    client.abort()
    until(lambda: held(served) == 0, "every buffer is given back")


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: storage\r\n\r\n",
        b"\0\0\0\3" + b"IHAVEOPX" + bytes(100),
        struct.pack(">I8sII", 3, b"IHAVEOPT", 7, 1 << 30),
        struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 3) + b"vol" + b"\xde\xad\xbe\xef" * 7,
        struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 3) + b"vol" + raw_request(WRITE, 0, 0xFFFFFFFF),
    ],
)
def test_a_client_that_sends_rubbish_is_sent_off_with_one_report(served: ServedFiles, rubbish: bytes) -> None:
    io = served.add("vol", MIB)
    io.keep_journal = True
    raw = socket.create_connection(("127.0.0.1", served.port), 10)
    raw.sendall(rubbish)
    assert is_closed(raw)
    raw.close()
    assert served.codes() == ["nbd_client_refused"]
    assert "127.0.0.1" in served.reports[0].message
    assert io.journal == []
    with NbdClient(served.uri("vol")) as client:
        client.pwrite(b"alive", 0)


def test_rubbish_again_and_again_from_one_host_is_reported_once_in_a_while(served: ServedFiles) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", served.port), 10) as raw:
            raw.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            assert is_closed(raw)
    assert served.codes() == ["nbd_client_refused"]


def test_who_connects_and_leaves_without_a_word_is_no_report(served: ServedFiles) -> None:
    for _ in range(3):
        raw = socket.create_connection(("127.0.0.1", served.port), 10)
        assert receive(raw, 18)[:8] == b"NBDMAGIC"
        raw.close()
    until(lambda: served.on_loop(lambda: not served.server._connections), "they are forgotten")
    assert not served.reports


def test_a_client_that_never_chooses_is_sent_off(tmp_path: Path) -> None:
    with ServedFiles(tmp_path, handshake_s=0.05) as served:
        served.add("vol", MIB)
        with NbdClient(served.uri("vol")) as chose:
            raw = socket.create_connection(("127.0.0.1", served.port), 10)
            raw.sendall(b"\0\0\0\3IHAVE")
            assert is_closed(raw)
            assert served.codes() == ["nbd_client_refused"]
            assert chose.pread(1, 0) == b"\0"
        raw.close()


def test_two_hundred_connections_at_once(served: ServedFiles) -> None:
    served.add("vol", MIB)
    clients = [NbdClient(served.uri("vol")) for _ in range(200)]
    for number, client in enumerate(clients):
        client.pwrite(b"%03d" % number, number * 3)
    assert clients[0].pread(600, 0) == b"".join(b"%03d" % number for number in range(200))
    until(lambda: held(served) == 0, "idle connections hold no buffer")
    for client in clients:
        client.close()


def test_one_client_too_many_is_turned_away(served: ServedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.exports.nbd_server.MAX_CONNECTIONS", 2)
    served.add("vol", MIB)
    first, second = NbdClient(served.uri("vol")), NbdClient(served.uri("vol"))
    third = socket.create_connection(("127.0.0.1", served.port), 10)
    assert is_closed(third)
    third.close()
    assert served.codes() == ["nbd_clients_too_many"]
    second.close()
    until(lambda: served.on_loop(lambda: len(served.server._connections)) == 1, "the second has left")
    NbdClient(served.uri("vol")).close()
    first.close()


def test_an_export_is_busy_while_requests_come_in(served: ServedFiles) -> None:
    served.add("vol", MIB)
    served.add("idle", MIB)
    assert not served.on_loop(lambda: served.server.is_busy("vol"))
    with NbdClient(served.uri("vol")) as client:
        client.pwrite(b"x", 0)
        assert served.on_loop(lambda: served.server.is_busy("vol"))
        assert not served.on_loop(lambda: served.server.is_busy("idle"))
        until(lambda: not served.on_loop(lambda: served.server.is_busy("vol")), "a second without requests")
    assert not served.on_loop(lambda: served.server.is_busy("no such"))


async def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    pool = DiskPool()
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(PortTaken) as refusal:
            await NbdServer(pool, report=print).start("127.0.0.1", other.getsockname()[1])
        assert str(other.getsockname()[1]) in refusal.value.message
    with pytest.raises(BadValue):
        await NbdServer(pool, report=print).start("198.51.100.7", 0)
    await pool.close()


async def test_the_uri_is_what_a_client_types(tmp_path: Path) -> None:
    pool = DiskPool()
    path = tmp_path / "a"
    path.write_bytes(bytes(5))
    io = FileIO(str(path))
    for listen, host in (
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("localhost", "localhost"),
    ):
        server = NbdServer(pool, report=print)
        port = await server.start(listen, 0)
        server.present("a b/ü", io, read_only=True)
        assert server.uri("a b/ü") == f"nbd://{host}:{port}/a%20b%2F%C3%BC"
        client = await asyncio.to_thread(NbdClient, server.uri("a b/ü"))
        assert client.size == 5
        await asyncio.to_thread(client.close)
        await server.close()
        await server.close()
    io.close()
    await pool.close()
