"""Bytes that no client should send: the protocol code may refuse them, never fail, and never take memory for them."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.exports import nbd_handshake as hs
from engine.exports.nbd_handshake import Handshake
from engine.exports.nbd_protocol import MAX_REFUSED_PAYLOAD, WRITE, ExportInfo, Transmission, Violation
from rig.nbd import NbdClient
from rig.served import ServedFiles
from rig.until import until

MIB = 1024 * 1024
STREAMS = 400
OPTIONS = st.sampled_from([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 0xFFFFFFFF])
NAMES = st.sampled_from([b"vol", b"", b"vo", b"x" * 5000, b"\xff"])


class Table:
    def names(self) -> list[str]:
        return ["vol"]

    def find(self, name: str) -> ExportInfo | None:
        return ExportInfo("vol", 8 * MIB, False, "words") if name == "vol" else None


@st.composite
def option(draw: st.DrawFn) -> bytes:
    """An option that is nearly right: its length may lie, its data may be cut or doubled."""
    name, rest = draw(NAMES), draw(st.binary(max_size=40))
    data = draw(st.one_of(st.binary(max_size=80), st.just(struct.pack(">I", len(name)) + name + rest)))
    length = draw(st.one_of(st.just(len(data)), st.integers(0, 0xFFFFFFFF)))
    magic = draw(st.sampled_from([b"IHAVEOPT"] * 9 + [b"IHAVEOPX"]))
    return magic + struct.pack(">II", draw(OPTIONS), length) + data


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 0xFFFFFFFF) | st.just(3),
    st.lists(st.one_of(option(), st.binary(max_size=64)), max_size=8),
    st.data(),
)
def test_a_handshake_only_ever_answers_or_refuses(flags: int, parts: list[bytes], data: st.DataObject) -> None:
    stream = struct.pack(">I", flags) + b"".join(parts)
    handshake = Handshake(Table())
    waiting, at = b"", 0
    with contextlib.suppress(Violation):
        while at < len(stream) and not handshake.done:
            step = data.draw(st.integers(1, len(stream)))
            waiting += stream[at : at + step]
            at += step
            used = handshake.receive(memoryview(waiting))
            assert 0 <= used <= len(waiting)
            waiting = waiting[used:]
            assert handshake.done or handshake.crowded or len(waiting) <= hs.MAX_OPTION_BYTES + 16
    assert len(handshake.take()) <= hs.MAX_ANSWER_BYTES + hs.MAX_OPTION_BYTES


REQUESTS = st.builds(
    lambda *fields: struct.pack(">IHHQQI", *fields),
    st.sampled_from([0x25609513] * 9 + [0x25609514]),
    st.integers(0, 0xFFFF),
    st.one_of(st.integers(0, 9), st.integers(0, 0xFFFF)),
    st.integers(0, (1 << 64) - 1),
    st.one_of(st.integers(0, 8 * MIB + 2), st.integers(0, (1 << 64) - 1)),
    st.one_of(st.integers(0, 8 * MIB + 2), st.integers(0, 0xFFFFFFFF)),
)


@settings(max_examples=1000, deadline=None)
@given(REQUESTS | st.binary(min_size=28, max_size=28), st.booleans(), st.booleans(), st.booleans())
def test_a_request_is_served_inside_the_volume_or_refused(
    raw: bytes, read_only: bool, structured: bool, allocation: bool
) -> None:
    export = ExportInfo("vol", 8 * MIB, read_only)
    transmission = Transmission(export, structured=structured, allocation=allocation)
    try:
        kind, flags, cookie, offset, length, error = transmission.request(memoryview(raw), 0)
    except Violation:
        return
    assert struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length) == raw
    if error:
        assert error in (1, 22, 28)
        assert kind != WRITE or length <= MAX_REFUSED_PAYLOAD
        assert transmission.error_reply(kind, cookie, error)
    else:
        assert offset + length <= export.size_bytes or kind == 2
        assert kind in (0, 1, 2, 3, 4, 6, 7)
        assert not (read_only and kind in (1, 4, 6))


def garbage(random_: random.Random) -> bytes:
    """A stream that begins well as often as not, and goes wrong somewhere."""
    stream = b""
    if random_.random() < 0.8:
        stream += struct.pack(">I", 3)
        for _ in range(random_.randrange(3)):
            data = random_.randbytes(random_.randrange(60))
            stream += b"IHAVEOPT" + struct.pack(">II", random_.choice((3, 6, 7, 8, 9, 10, 99)), len(data)) + data
        if random_.random() < 0.8:
            stream += b"IHAVEOPT" + struct.pack(">II", 1, 3) + b"vol"
            for _ in range(random_.randrange(30)):
                kind = random_.choice((0, 0, 1, 1, 1, 3, 4, 5, 6, 7, 700))
                length = random_.choice((0, 1, 700, 4096, 70_000, 3 * MIB, 33 * MIB, random_.getrandbits(32)))
                offset = random_.choice((0, 4095, 8 * MIB - 1, random_.getrandbits(64)))
                flags = random_.choice((0, 0, 0, 1, 2, 4, 8, random_.getrandbits(16)))
                stream += struct.pack(">IHHQQI", 0x25609513, flags, kind, random_.getrandbits(64), offset, length)
                if kind == 1 and length <= 4 * MIB:
                    stream += random_.randbytes(1) * length
    return stream + random_.randbytes(random_.randrange(2000))


def exchange(raw: socket.socket, data: bytes, *, to_the_end: bool) -> None:
    """Send `data` and take what comes meanwhile; `to_the_end`: say that no more comes, and read until it hangs up."""
    raw.setblocking(False)
    left = memoryview(data)
    while left or to_the_end:
        readable, writable, _ = select.select([raw], [raw] if left else [], [], 10)
        assert readable or writable, "the server neither takes nor gives nor hangs up"
        if writable:
            left = left[raw.send(left) :]
            if not left and to_the_end:
                raw.shutdown(socket.SHUT_WR)
        if readable and not raw.recv(1 << 20):
            return


def test_a_server_that_is_sent_garbage_goes_on_and_keeps_no_memory(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    with ServedFiles(tmp_path) as served:
        served.add("vol", 8 * MIB)
        for _ in range(STREAMS):
            address = ("127.0.0.1", served.port)
            # It may hang up on us at any byte.
            with contextlib.suppress(OSError), socket.create_connection(address, 5) as raw:
                exchange(raw, garbage(random_), to_the_end=random_.random() < 0.7)
        with NbdClient(served.uri("vol")) as client:
            client.pwrite(b"alive", 0)
            assert client.pread(5, 0) == b"alive"
        until(lambda: served.on_loop(lambda: served.server.buffers.held_bytes) == 0, "every buffer is given back")
        assert {report.code for report in served.reports} <= {"nbd_client_refused"}
