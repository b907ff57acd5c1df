"""Option haggling without a socket: what is told, what is agreed, what ends the connection."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from engine.exports import nbd_handshake as hs
from engine.exports.nbd_handshake import Handshake
from engine.exports.nbd_protocol import ExportInfo, Violation

MIB = 1024 * 1024


class Table:
    def __init__(self, *exports: ExportInfo) -> None:
        self._exports = {export.name: export for export in exports}

    def names(self) -> Iterable[str]:
        return self._exports

    def find(self, name: str) -> ExportInfo | None:
        return self._exports.get(name)


VOL = ExportInfo("vol", 10 * MIB + 1, False, "the first")
FIXED = ExportInfo("größe", 4096, True)
Reply = tuple[int, int, bytes]


class Client:
    """Sends options, cuts the answers up; every answer must be well-formed."""

    def __init__(self, *exports: ExportInfo, flags: int = 3) -> None:
        self.handshake = Handshake(Table(*(exports or (VOL, FIXED))))
        assert self.handshake.take() == b"NBDMAGICIHAVEOPT\0\3"
        assert self.send(struct.pack(">I", flags)) == b""

    def send(self, data: bytes) -> bytes:
        assert self.handshake.receive(memoryview(data)) == len(data)
        return self.handshake.take()

    def ask(self, option: int, data: bytes = b"") -> list[Reply]:
        raw = self.send(struct.pack(">8sII", b"IHAVEOPT", option, len(data)) + data)
        replies = []
        while raw:
            magic, about, kind, length = struct.unpack_from(">QIII", raw)
            assert (magic, about) == (0x3E889045565A9, option)
            replies.append((about, kind, raw[20 : 20 + length]))
            assert len(replies[-1][2]) == length
            raw = raw[20 + length :]
        return replies

    def kinds(self, option: int, data: bytes = b"") -> list[int]:
        return [kind for _, kind, _ in self.ask(option, data)]


def named(name: str, rest: bytes = b"") -> bytes:
    raw = name.encode()
    return struct.pack(">I", len(raw)) + raw + rest


def info(name: str, *wanted: int) -> bytes:
    return named(name, struct.pack(f">H{len(wanted)}H", len(wanted), *wanted))


def contexts(name: str, *queries: str) -> bytes:
    return named(name, struct.pack(">I", len(queries)) + b"".join(named(query) for query in queries))


ACK, INVALID, UNKNOWN, UNSUPPORTED = 1, (1 << 31) + 3, (1 << 31) + 6, (1 << 31) + 1


def test_a_list_names_every_export_in_order() -> None:
    answers = Client().ask(hs.OPT_LIST)
    assert [data for _, kind, data in answers if kind == hs.REP_SERVER] == [named("vol") + b"the first", named("größe")]
    assert answers[-1][1] == ACK


def test_go_tells_size_flags_and_what_was_asked_and_begins() -> None:
    client = Client()
    assert client.kinds(hs.OPT_STRUCTURED_REPLY) == [ACK]
    answers = client.ask(hs.OPT_GO, info("vol", 1, 2, 3))
    assert [data for _, _, data in answers] == [
        struct.pack(">HQH", 0, 10 * MIB + 1, 0b1_1110_1101),
        struct.pack(">H", 1) + b"vol",
        struct.pack(">H", 2) + b"the first",
        struct.pack(">HIII", 3, 1, 4096, 32 * MIB),
        b"",
    ]
    agreed = client.handshake.transmission
    assert agreed is not None
    assert (agreed.export, agreed.structured, agreed.allocation) == (VOL, True, False)


def test_info_tells_the_same_and_does_not_begin() -> None:
    client = Client()
    answers = client.ask(hs.OPT_INFO, info("größe"))
    assert answers[0][2] == struct.pack(">HQH", 0, 4096, 0b1_0000_1111)
    assert not client.handshake.done
    assert client.kinds(hs.OPT_GO, info("größe")) == [hs.REP_INFO, ACK]


def test_an_unknown_export_is_told_and_the_client_may_try_another() -> None:
    client = Client()
    answers = client.ask(hs.OPT_GO, info("no such"))
    assert answers[0][1] == UNKNOWN
    assert b"no such" in answers[0][2]
    assert client.kinds(hs.OPT_INFO, info("")) == [UNKNOWN]
    assert client.kinds(hs.OPT_GO, info("vol")) == [hs.REP_INFO, ACK]


@pytest.mark.parametrize(("flags", "padding"), [(3, 0), (1, 124)])
def test_export_name_answers_without_a_reply_header(flags: int, padding: int) -> None:
    client = Client(flags=flags)
    answer = client.send(struct.pack(">8sII", b"IHAVEOPT", 1, 3) + b"vol")
    assert answer == struct.pack(">QH", 10 * MIB + 1, 0b1_0110_1101) + bytes(padding)
    assert client.handshake.transmission is not None


def test_export_name_of_what_is_not_here_ends_the_connection() -> None:
    client = Client()
    assert client.send(struct.pack(">8sII", b"IHAVEOPT", 1, 4) + b"volx") == b""
    assert client.handshake.left


def test_allocation_is_agreed_for_the_export_it_was_asked_for() -> None:
    client = Client()
    client.ask(hs.OPT_STRUCTURED_REPLY)
    answers = client.ask(hs.OPT_SET_META_CONTEXT, contexts("vol", "qemu:dirty-bitmap:x", "base:allocation"))
    assert answers[0][1:] == (hs.REP_META_CONTEXT, b"\0\0\0\1base:allocation")
    client.ask(hs.OPT_GO, info("vol"))
    assert client.handshake.transmission is not None
    assert client.handshake.transmission.allocation


def test_allocation_of_another_export_does_not_count() -> None:
    client = Client()
    client.ask(hs.OPT_STRUCTURED_REPLY)
    client.ask(hs.OPT_SET_META_CONTEXT, contexts("größe", "base:allocation"))
    client.ask(hs.OPT_GO, info("vol"))
    assert client.handshake.transmission is not None
    assert not client.handshake.transmission.allocation


@pytest.mark.parametrize(
    "second", [contexts("vol"), contexts("vol", "x:y"), contexts("gone", "base:allocation"), b"\0\0\0\x09vol"]
)
def test_a_second_choice_of_contexts_replaces_the_first(second: bytes) -> None:
    client = Client()
    client.ask(hs.OPT_STRUCTURED_REPLY)
    client.ask(hs.OPT_SET_META_CONTEXT, contexts("vol", "base:allocation"))
    client.ask(hs.OPT_SET_META_CONTEXT, second)
    client.ask(hs.OPT_GO, info("vol"))
    assert client.handshake.transmission is not None
    assert not client.handshake.transmission.allocation


def test_contexts_can_be_listed_but_not_set_without_structured_replies() -> None:
    client = Client()
    assert client.kinds(hs.OPT_SET_META_CONTEXT, contexts("vol", "base:allocation")) == [INVALID]
    listed = [(hs.REP_META_CONTEXT, b"\0\0\0\0base:allocation"), (ACK, b"")]
    for queries in ((), ("base:",), ("base:allocation",)):
        assert [answer[1:] for answer in client.ask(hs.OPT_LIST_META_CONTEXT, contexts("vol", *queries))] == listed
    assert client.kinds(hs.OPT_LIST_META_CONTEXT, contexts("vol", "qemu:")) == [ACK]


@pytest.mark.parametrize(
    ("option", "data"),
    [
        (hs.OPT_LIST, b"x"),
        (hs.OPT_STRUCTURED_REPLY, b"x"),
        (hs.OPT_INFO, b""),
        (hs.OPT_INFO, b"\0\0\0\x04vol\0\0"),
        (hs.OPT_GO, b"\xff\xff\xff\xffvol\0\0"),
        (hs.OPT_GO, named("vol", b"\0\2\0\1")),
        (hs.OPT_GO, named("vol", b"\0\0\0\0")),
        (hs.OPT_GO, struct.pack(">I", 2) + b"\xff\xfe\0\0"),
        (hs.OPT_GO, info("x" * 4097)),
        (hs.OPT_LIST_META_CONTEXT, named("vol", b"\xff\xff\xff\xff")),
        (hs.OPT_LIST_META_CONTEXT, contexts("vol", "base:") + b"x"),
        (hs.OPT_LIST_META_CONTEXT, named("vol", b"\0\0\0\1\0\0\0\7base:")),
    ],
)
def test_malformed_data_are_told_and_the_client_may_go_on(option: int, data: bytes) -> None:
    client = Client()
    assert client.kinds(option, data) == [INVALID]
    assert client.kinds(hs.OPT_GO, info("vol")) == [hs.REP_INFO, ACK]


@pytest.mark.parametrize("option", [4, 5, 11, 77, 0, 0xFFFFFFFF])
def test_other_options_tls_too_are_unsupported(option: int) -> None:
    client = Client()
    assert client.kinds(option, b"any data") == [UNSUPPORTED]
    assert not client.handshake.done


def test_abort_is_acknowledged() -> None:
    client = Client()
    assert client.kinds(hs.OPT_ABORT) == [ACK]
    assert client.handshake.left


@pytest.mark.parametrize("flags", [0, 2, 4, 0x80000001])
def test_a_client_that_does_not_speak_fixed_newstyle_is_sent_off(flags: int) -> None:
    with pytest.raises(Violation, match="flags"):
        Client(flags=flags)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">8sII", b"IHAVEOPT", 3, 64 * 1024 + 1),
        struct.pack(">8sII", b"IHAVEOPT", 77, 0xFFFFFFFF),
        struct.pack(">8sII", b"IHAVEOPT", 1, 2) + b"\xff\xfe",
    ],
)
def test_rubbish_instead_of_an_option_sends_the_client_off(rubbish: bytes) -> None:
    client = Client()
    with pytest.raises(Violation):
        client.send(rubbish)


def test_a_handshake_may_arrive_in_single_bytes() -> None:
    handshake = Handshake(Table(VOL))
    greeting = handshake.take()
    script = struct.pack(">I8sII", 3, b"IHAVEOPT", 8, 0)
    script += struct.pack(">8sII", b"IHAVEOPT", 7, len(info("vol"))) + info("vol")
    waiting, eaten = b"", 0
    for byte in script:
        waiting += bytes([byte])
        used = handshake.receive(memoryview(waiting))
        waiting, eaten = waiting[used:], eaten + used
    assert greeting
    assert eaten == len(script)
    assert handshake.transmission is not None


def test_what_follows_the_last_option_is_left_for_the_requests() -> None:
    client = Client()
    go = struct.pack(">8sII", b"IHAVEOPT", 7, len(info("vol"))) + info("vol")
    assert client.handshake.receive(memoryview(go + b"request")) == len(go)


def test_answers_that_nobody_takes_stop_the_handshake() -> None:
    exports = [ExportInfo(f"volume-{number:04}", 1, False, "x" * 4000) for number in range(20)]
    client = Client(*exports)
    one = struct.pack(">8sII", b"IHAVEOPT", 3, 0)
    eaten = client.handshake.receive(memoryview(one * 1000))
    assert 0 < eaten < 16 * 10
    assert client.handshake.crowded
    assert len(client.handshake.take()) < hs.MAX_ANSWER_BYTES + 100_000
    assert client.handshake.receive(memoryview(one)) == 16
