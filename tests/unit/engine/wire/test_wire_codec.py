"""The codec: every length is judged before memory is made for it, and a payload lands where it belongs."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import LeewardError, WireDamaged, WireLimit
from engine.wire import limits
from engine.wire import messages as m
from engine.wire.codec import Decoder, check_payload, decode_header, encode, header_limit
from engine.wire.frames import MAGIC, build_prefix

FRAMES = {path.stem: path.read_bytes() for path in (Path(__file__).parents[3] / "golden" / "frames").iterdir()}
SYNC = b"s" * 16
HELLO = m.Hello(1, (), ("plain",), b"a" * 16, "a", b"b" * 16, 1, "SHA256:00", "")


def decoder(*, greeted: bool = True) -> Decoder:
    made = Decoder(lambda data, length: [memoryview(bytearray(length))])
    made.greeted = greeted
    return made


def outcome(stream: bytes) -> tuple[list[m.Message], LeewardError | None]:
    """The messages in a stream, and the error it ended with; any other exception is the test's failure."""
    found: list[m.Message] = []
    try:
        found.extend(decoder().feed(stream))
    except (WireDamaged, WireLimit) as error:
        return found, error
    return found, None


def is_one_clear_line(error: LeewardError) -> bool:
    return bool(error.advice) and "\n" not in error.message and len(error.message) < 500


def prefix(type_number: int, header_bytes: int, payload_bytes: int, **changed: int) -> bytes:
    return struct.pack(
        "<4sBBHIIQQ",
        MAGIC,
        type_number,
        changed.get("flags", 0),
        changed.get("zero_a", 0),
        header_bytes,
        changed.get("zero_b", 0),
        payload_bytes,
        0,
    )


def framed(kind: type[m.Message], header: bytes, payload_bytes: int = 0) -> bytes:
    return build_prefix(m.NUMBERS[kind], header, payload_bytes) + header


@pytest.mark.parametrize("step", [1, 3, 31, 32, 33, 4096])
def test_frames_are_read_however_the_stream_is_cut(step: int) -> None:
    stream = b"".join(FRAMES[name] for name in sorted(FRAMES))
    reader = decoder()
    found = [message for at in range(0, len(stream), step) for message in reader.feed(stream[at : at + step])]
    assert [m.NUMBERS[type(message)] for message in found] == sorted(m.TYPES)
    assert reader.is_between_frames


def test_a_payload_fills_the_placed_memory_in_turn() -> None:
    head, blocks = bytearray(200), bytearray(2 * 4096)
    data = m.Data(SYNC, 3, "plain", 200)
    asked: list[tuple[m.Data, int]] = []

    def place(message: m.Data, length: int) -> list[memoryview]:
        asked.append((message, length))
        return [memoryview(head), memoryview(b""), memoryview(blocks)[:4096], memoryview(blocks)[4096:]]

    reader = Decoder(place)
    reader.greeted = True
    payload = bytes(range(256)) * 33
    payload = payload[: 200 + 2 * 4096]
    assert list(reader.feed(encode(data, len(payload)) + payload)) == [data]
    assert asked == [(data, len(payload))]
    assert bytes(head + blocks) == payload


def test_the_next_bytes_of_a_payload_go_into_the_placed_memory_itself() -> None:
    memory = bytearray(128 + 4096)
    reader = Decoder(lambda data, length: [memoryview(memory)])
    reader.greeted = True
    list(reader.feed(encode(m.Data(SYNC, 0, "plain", 128), 128 + 4096)))
    assert reader.target().obj is memory
    assert len(reader.target()) == 128 + 4096
    reader.target()[:2] = b"hi"
    assert reader.advance(2) is None
    assert memory[:2] == b"hi"
    assert len(reader.target()) == 128 + 4094


def test_after_drop_nothing_is_written_into_placed_memory() -> None:
    memory = bytearray(128 + 4096)
    reader = Decoder(lambda data, length: [memoryview(memory)])
    reader.greeted = True
    list(reader.feed(encode(m.Data(SYNC, 0, "plain", 128), 128 + 4096) + b"xx"))
    reader.drop()
    assert reader.target().obj is not memory


@pytest.mark.parametrize("kind", sorted(m.TYPES))
def test_a_header_above_its_limit_is_refused_from_the_prefix_alone(kind: int) -> None:
    limit = header_limit(m.TYPES[kind])
    with pytest.raises(WireLimit):
        list(decoder().feed(prefix(kind, limit + 1, 0)))
    with pytest.raises(WireLimit):
        list(decoder().feed(prefix(kind, 0xFFFFFFFF, 0)))


def test_no_memory_is_made_for_a_length_that_is_refused() -> None:
    tracemalloc.start()
    try:
        for hostile in (prefix(33, 0xFFFFFFFF, 0), prefix(34, 100, 1 << 62), prefix(3, 1 << 20, 0)):
            with pytest.raises(LeewardError):
                list(decoder().feed(hostile))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_payload_above_its_limit_is_refused_from_the_prefix_alone() -> None:
    with pytest.raises(WireLimit):
        list(decoder().feed(prefix(34, 100, limits.PAYLOAD_BYTES + 1)))


def test_only_data_has_a_payload() -> None:
    with pytest.raises(WireDamaged, match="Ping carries a payload"):
        list(decoder().feed(prefix(3, 10, 1)))


@pytest.mark.parametrize("changed", [{"flags": 1}, {"zero_a": 1}, {"zero_b": 1}])
def test_reserved_bits_are_refused(changed: dict[str, int]) -> None:
    with pytest.raises(WireDamaged, match="reserved"):
        list(decoder().feed(prefix(3, 10, 0, **changed)))


def test_a_frame_without_header_or_of_unknown_type_is_refused() -> None:
    with pytest.raises(WireDamaged, match="no header"):
        list(decoder().feed(prefix(3, 0, 0)))
    with pytest.raises(WireDamaged, match="type 99"):
        list(decoder().feed(prefix(99, 10, 0)))


def test_a_stranger_may_only_send_hello_or_refused_and_little_of_it() -> None:
    assert list(decoder(greeted=False).feed(encode(HELLO))) == [HELLO]
    with pytest.raises(WireDamaged, match="Data came before HELLO"):
        list(decoder(greeted=False).feed(prefix(34, 100, 1000)))
    with pytest.raises(WireLimit):
        list(decoder(greeted=False).feed(prefix(2, limits.HELLO_HEADER_BYTES + 1, 0)))


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (msgpack.packb([1, 2]), "object"),
        (msgpack.packb({}), "number"),
        (msgpack.packb({"number": -1}), ">= 0"),
        (msgpack.packb({"number": "1"}), "int"),
        (msgpack.packb({"number": True}), "int"),
        (msgpack.packb({"number": 1.0}), "int"),
        (msgpack.packb({1: 1}), "not valid"),
        (msgpack.packb({"number": 1}) + b"\xc0", "not valid"),
        (b"\x82\xa6number\x01\xa6number\x02", "twice"),
        (b"\x81\xa6number\xd4\x01\x00", "not valid"),
        (b"\x81\xa6number" + b"\x91" * 5000, "not valid"),
        (b"\xdf\xff\xff\xff\xff", "not valid"),
        (b"\x81\xa2\xff\xfe\x01", "not valid"),
    ],
)
def test_a_header_that_is_not_the_message_is_refused(header: bytes, what: str) -> None:
    with pytest.raises(WireDamaged, match=what):
        list(decoder().feed(framed(m.Ping, header)))


def test_an_id_of_another_length_or_as_text_is_refused() -> None:
    for wrong in (b"", b"x" * 15, b"x" * 17, "x" * 16, "eHh4eHh4eHh4eHh4eHh4eA=="):
        with pytest.raises(WireDamaged):
            decode_header(m.Flush, msgpack.packb({"sync": wrong}))


def test_a_field_of_a_later_version_is_ignored() -> None:
    assert decode_header(m.Ping, msgpack.packb({"number": 1, "mood": "good"})) == m.Ping(1)


def test_the_check_covers_prefix_and_header() -> None:
    frame = bytearray(FRAMES["03-Ping"])
    for at in (4, 24, 31, 32, len(frame) - 1):
        damaged = bytearray(frame)
        damaged[at] ^= 1
        with pytest.raises(WireDamaged):
            list(decoder().feed(damaged))


@pytest.mark.parametrize(
    ("data", "payload_bytes"),
    [
        (m.Data(SYNC, 0, "plain", 128), 127),
        (m.Data(SYNC, 0, "plain", 128), 128 + 4095),
        (m.Data(SYNC, 0, "plain", 128, ((4096, 4096),)), 128 + 4096),
        (m.Data(SYNC, 0, "lz4", 128, ((100, 4096),)), 128 + 101),
        (m.Data(SYNC, 0, "lz4", 128, ((4097, 4096),)), 128 + 4097),
        (m.Data(SYNC, 0, "lz4", 128, ((0, 4096),)), 128),
        (m.Data(SYNC, 0, "lz4", 128, ((-5, 4096), (10, 4096))), 128 + 5),
        (m.Data(SYNC, 0, "lz4", 128, ((100, 4095),)), 128 + 100),
        (m.Data(SYNC, 0, "zstd", 128, ((100, (1 << 20) + 4096),)), 128 + 100),
        (m.Data(SYNC, 0, "zstd", 128, ((100, 1 << 20),) * 5), 128 + 500),
        (m.Data(SYNC, 0, "plain", 128), 128 + limits.BLOCKS_BYTES + 4096),
    ],
)
def test_lengths_of_data_that_do_not_fit_are_refused(data: m.Data, payload_bytes: int) -> None:
    with pytest.raises((WireDamaged, WireLimit)):
        check_payload(data, payload_bytes)


def test_the_largest_frame_of_blocks_passes() -> None:
    check_payload(m.Data(SYNC, 0, "plain", limits.FRAME_HEAD_BYTES), limits.PAYLOAD_BYTES)
    check_payload(m.Data(SYNC, 0, "lz4", 128, ((1 << 20, 1 << 20),) * 4), 128 + (4 << 20))


def test_what_the_peer_would_refuse_is_not_sent() -> None:
    volumes = tuple(m.VolumeOffer(b"v" * 16, "n" * 4000, 1, 1) for _ in range(100))
    with pytest.raises(WireLimit):
        encode(m.GroupOffer(b"g" * 16, "g", 1, 1, None, volumes))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_rubbish_ends_with_one_error_of_the_catalogue_or_waits_for_more(rubbish: bytes) -> None:
    found, error = outcome(rubbish)
    assert found == []
    assert error is None or is_one_clear_line(error)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FRAMES)), st.binary(max_size=400))
def test_a_valid_prefix_with_a_rubbish_header_ends_with_one_error(name: str, rubbish: bytes) -> None:
    kind = m.TYPES[int(name[:2])]
    found, error = outcome(framed(kind, rubbish or b"\xc0"))
    assert found or (error is not None and is_one_clear_line(error))


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_every_flipped_bit_of_prefix_and_header_is_noticed(name: str) -> None:
    frame = FRAMES[name]
    covered = 32 + int.from_bytes(frame[8:12], "little")
    for at in range(covered):
        for bit in range(8):
            damaged = bytearray(frame)
            damaged[at] ^= 1 << bit
            # A longer header or payload leaves the decoder waiting without an error; it never gives a message.
            assert outcome(damaged)[0] == []
