"""What the transmission phase serves and refuses, as tables; replies byte for byte."""

from __future__ import annotations

import errno
import struct
from itertools import pairwise

import pytest

from blockstore.errors import LayerSpace, VolumeFailed, WriteRefused
from engine.exports import nbd_protocol as nbd
from engine.exports.nbd_protocol import ExportInfo, Transmission, Violation

MIB = 1024 * 1024
SIZE = 100 * MIB + 77
COOKIE = 0x0123456789ABCDEF


def transmission(*, read_only: bool = False, structured: bool = True, allocation: bool = True) -> Transmission:
    export = ExportInfo("vol", SIZE, read_only)
    return Transmission(export, structured=structured, allocation=allocation)


def judge(kind: int, offset: int, length: int, flags: int = 0, **agreed: bool) -> int:
    raw = struct.pack(">IHHQQI", 0x25609513, flags, kind, COOKIE, offset, length)
    answer = transmission(**agreed).request(memoryview(b"xyz" + raw), 3)
    assert answer[:5] == (kind, flags, COOKIE, offset, length)
    return answer[5]


READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, ONE, FAST = 1, 2, 4, 8, 16
PAYLOAD_LENGTH = 32


@pytest.mark.parametrize(
    ("kind", "offset", "length", "flags"),
    [
        (READ, 0, 1, 0),
        (READ, SIZE - 1, 1, 0),
        (READ, 13, 32 * MIB, 0),
        (READ, 0, 4096, DF),
        (READ, 0, 4096, FUA),
        (WRITE, 0, 1, 0),
        (WRITE, SIZE - 77, 77, FUA),
        (WRITE, 511, 32 * MIB, 0),
        (FLUSH, 0, 0, 0),
        (FLUSH, 0, 0, FUA),
        (TRIM, 0, SIZE, FUA),
        (TRIM, 512, 513, 0),
        (ZEROES, 0, SIZE, 0),
        (ZEROES, 1, 64 * MIB, FUA | NO_HOLE),
        (STATUS, 0, SIZE, 0),
        (STATUS, 3, 5, ONE),
        (DISC, 0, 0, 0),
    ],
)
def test_what_the_protocol_allows_is_served(kind: int, offset: int, length: int, flags: int) -> None:
    assert judge(kind, offset, length, flags) == 0


@pytest.mark.parametrize(
    ("kind", "offset", "length", "flags", "error"),
    [
        (READ, 0, 0, 0, nbd.EINVAL),
        (READ, 0, 32 * MIB + 1, 0, nbd.EINVAL),
        (READ, SIZE, 1, 0, nbd.EINVAL),
        (READ, SIZE - 1, 2, 0, nbd.EINVAL),
        (READ, (1 << 64) - 1, 1, 0, nbd.EINVAL),
        (READ, (1 << 64) - 4096, 4096, 0, nbd.EINVAL),
        (READ, 0, 4096, NO_HOLE, nbd.EINVAL),
        (READ, 0, 4096, 1 << 15, nbd.EINVAL),
        (WRITE, 0, 0, 0, nbd.EINVAL),
        (WRITE, 0, 32 * MIB + 1, 0, nbd.EINVAL),
        (WRITE, SIZE - 1, 2, 0, nbd.ENOSPC),
        (WRITE, 1 << 63, 4096, 0, nbd.ENOSPC),
        (WRITE, 0, 4096, DF, nbd.EINVAL),
        (WRITE, 0, 4096, PAYLOAD_LENGTH, nbd.EINVAL),
        (FLUSH, 1, 0, 0, nbd.EINVAL),
        (FLUSH, 0, 1, 0, nbd.EINVAL),
        (TRIM, SIZE - 1, 2, 0, nbd.EINVAL),
        (TRIM, 0, 0, 0, nbd.EINVAL),
        (TRIM, 0, 4096, NO_HOLE, nbd.EINVAL),
        (ZEROES, SIZE - 1, 2, 0, nbd.ENOSPC),
        (ZEROES, 0, 0, 0, nbd.EINVAL),
        (ZEROES, 0, 4096, FAST, nbd.EINVAL),
        (STATUS, 0, 0, 0, nbd.EINVAL),
        (STATUS, SIZE, 1, 0, nbd.EINVAL),
        (STATUS, 0, 4096, DF, nbd.EINVAL),
        (CACHE, 0, 4096, 0, nbd.EINVAL),
        (8, 0, 4096, 0, nbd.EINVAL),
        (0xFFFF, 0, 0, 0, nbd.EINVAL),
    ],
)
def test_what_it_does_not_allow_is_refused(kind: int, offset: int, length: int, flags: int, error: int) -> None:
    assert judge(kind, offset, length, flags) == error


@pytest.mark.parametrize("kind", [WRITE, TRIM, ZEROES])
@pytest.mark.parametrize(("offset", "length", "flags"), [(0, 4096, 0), (0, 4096, FUA), (SIZE, 1, 0), (0, 0, 1 << 14)])
def test_a_change_of_a_read_only_export_is_not_permitted(kind: int, offset: int, length: int, flags: int) -> None:
    assert judge(kind, offset, length, flags, read_only=True) == nbd.EPERM


@pytest.mark.parametrize(("kind", "length"), [(READ, 4096), (FLUSH, 0), (STATUS, 4096)])
def test_a_read_only_export_serves_all_else(kind: int, length: int) -> None:
    assert judge(kind, 0, length, read_only=True) == 0


def test_unfragmented_reads_need_structured_replies() -> None:
    assert judge(READ, 0, 4096, DF, structured=False) == nbd.EINVAL


@pytest.mark.parametrize("agreed", [{"allocation": False}, {"structured": False}])
def test_block_status_needs_an_agreed_context(agreed: dict[str, bool]) -> None:
    assert judge(STATUS, 0, 4096, **agreed) == nbd.EINVAL


def test_bytes_that_are_no_request_end_the_connection() -> None:
    with pytest.raises(Violation, match="0x47455420"):
        transmission().request(memoryview(b"GET / HTTP/1.1\r\nHost: storage\r\n"), 0)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_write_too_long_to_throw_away_ends_the_connection(read_only: bool) -> None:
    assert judge(WRITE, 0, 64 * MIB, read_only=read_only) in (nbd.EINVAL, nbd.EPERM)
    with pytest.raises(Violation, match="67108865"):
        judge(WRITE, 0, 64 * MIB + 1, read_only=read_only)


def test_flags_say_what_may_be_asked() -> None:
    writable, fixed = ExportInfo("v", SIZE, False), ExportInfo("v", SIZE, True)
    assert nbd.transmission_flags(writable, structured=True) == 0b1_1110_1101
    assert nbd.transmission_flags(writable, structured=False) == 0b1_0110_1101
    assert nbd.transmission_flags(fixed, structured=True) == 0b1_1000_1111


def test_replies_have_the_bytes_of_the_protocol() -> None:
    plain, chunked = transmission(structured=False), transmission()
    assert nbd.simple_reply(COOKIE).hex() == "67446698000000000123456789abcdef"
    assert plain.error_reply(READ, COOKIE, nbd.EIO, "disk").hex() == "67446698000000050123456789abcdef"
    assert chunked.error_reply(WRITE, COOKIE, nbd.ENOSPC).hex() == "674466980000001c0123456789abcdef"
    error = chunked.error_reply(READ, COOKIE, nbd.EIO, "disk")
    assert error.hex() == "668e33ef000180010123456789abcdef0000000a000000050004" + b"disk".hex()

    head = bytearray(plain.read_head_bytes())
    plain.put_read_head(memoryview(head), COOKIE, 4096, 512)
    assert head.hex() == "67446698000000000123456789abcdef"
    head = bytearray(chunked.read_head_bytes())
    chunked.put_read_head(memoryview(head), COOKIE, 4096, 512, last=False)
    assert head.hex() == "668e33ef000000010123456789abcdef000002080000000000001000"
    chunked.put_read_head(memoryview(head), COOKIE, 4096, 512)
    assert head.hex()[8:12] == "0001"


def test_neighbouring_extents_of_one_kind_are_one_descriptor() -> None:
    extents = [(0, 4096, True), (4096, 8192, True), (12288, 100, False), (12388, 28, False), (12416, 5, True)]
    reply = transmission().status_reply(COOKIE, extents, one=False)
    assert reply[:20].hex() == "668e33ef000100050123456789abcdef0000001c"
    assert struct.unpack(">I6I", reply[20:]) == (nbd.ALLOCATION_ID, 12288, 0, 128, 3, 5, 0)


def test_one_extent_is_the_first_in_full() -> None:
    extents = [(0, 4096, False), (4096, 8192, False), (12288, 100, True), (12388, 28, False)]
    reply = transmission().status_reply(COOKIE, extents, one=True)
    assert struct.unpack(">I2I", reply[20:]) == (nbd.ALLOCATION_ID, 12288, 3)
    with pytest.raises(ValueError, match="no extent"):
        transmission().status_reply(COOKIE, [], one=False)


def test_block_status_looks_at_a_bounded_range() -> None:
    assert list(nbd.status_lengths(4096, 0)) == [4096]
    assert list(nbd.status_lengths(0xFFFFFFFF, 0)) == [512 * MIB]
    looks = list(nbd.status_lengths(0xFFFFFFFF, ONE))
    assert looks[0] == MIB // 4
    assert looks[-1] == 128 * MIB
    assert all(longer <= 8 * shorter for shorter, longer in pairwise(looks))
    assert list(nbd.status_lengths(4096, ONE)) == [4096]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (WriteRefused(volume="v", reason="demoted"), 1),
        (VolumeFailed(volume="v", reason="flush"), 5),
        (LayerSpace(path="/data/x"), 28),
        (OSError(errno.ENOSPC, "full"), 28),
        (OSError(errno.EDQUOT, "quota"), 28),
        (OSError(errno.EIO, "bad sector"), 5),
        (MemoryError(), 12),
        (AssertionError("a bug"), 5),
    ],
)
def test_what_failed_below_has_its_nbd_error(error: Exception, number: int) -> None:
    assert nbd.error_number(error) == number


def test_a_client_reads_what_failed_but_nothing_internal() -> None:
    assert "demoted" in nbd.failure_text(WriteRefused(volume="v", reason="demoted"))
    assert nbd.failure_text(OSError(errno.EIO, "Input/output error", "/secret/path")) == "Input/output error"
    assert nbd.failure_text(KeyError("inner")) == "internal error"
