"""Presence: lists of regions as they travel, however long they are."""

from __future__ import annotations

import msgspec
import pytest

from engine.errors import WireDamaged, WireLimit
from engine.wire import limits
from engine.wire.codec import Decoder, encode
from engine.wire.messages import Resume, VolumePresence
from engine.wire.presence import Joiner, pack_presence, pack_regions, split, unpack_presence, unpack_regions

GROUP, SYNC = b"g" * 16, b"s" * 16


def volume(number: int, regions: int, *, digests: bool = True) -> VolumePresence:
    packed = pack_regions(range(regions))
    return VolumePresence(bytes([number]) * 16, packed, packed + packed if digests else b"")


def rejoined(resume: Resume) -> tuple[int, Resume]:
    """How many RESUMEs `resume` becomes on the wire, and what the other end makes of them."""
    decoder = Decoder(lambda data, length: [])
    decoder.greeted = True
    joiner = Joiner()
    parts = [part for sent in split(resume) for part in decoder.feed(encode(sent))]
    wholes = [whole for part in parts if isinstance(part, Resume) and (whole := joiner.add(part)) is not None]
    assert len(wholes) == 1
    return len(parts), wholes[0]


def test_regions_and_digests_come_back_as_they_were() -> None:
    digests = {70_000: b"b" * 8, 3: b"a" * 8}
    packed = pack_presence(b"v" * 16, digests)
    assert packed.regions == bytes.fromhex("0300000070110100")
    assert unpack_presence(packed) == digests
    assert unpack_presence(VolumePresence(b"v" * 16, packed.regions, b"")) == {3: b"", 70_000: b""}


@pytest.mark.parametrize("packed", [b"\0\0\0", bytes(8), bytes.fromhex("0200000001000000")])
def test_regions_that_do_not_ascend_are_refused(packed: bytes) -> None:
    with pytest.raises(WireDamaged):
        unpack_regions(packed)


def test_another_number_of_digests_is_refused() -> None:
    with pytest.raises(WireDamaged):
        unpack_presence(VolumePresence(b"v" * 16, bytes(4), bytes(16)))


def test_an_ordinary_resume_is_one_message() -> None:
    resume = Resume(GROUP, SYNC, 1, (volume(1, 10), volume(2, 0)), (volume(1, 3),))
    assert rejoined(resume) == (1, resume)
    assert rejoined(Resume(GROUP, SYNC, 1, (), ())) == (1, Resume(GROUP, SYNC, 1, (), ()))


def test_a_long_resume_comes_in_parts_and_arrives_whole() -> None:
    many = limits.PRESENCE_REGIONS
    resume = Resume(GROUP, SYNC, 1, (volume(1, 2 * many + 7), volume(2, 5)), (volume(1, many), volume(3, 1)))
    parts, whole = rejoined(resume)
    assert parts == 4
    assert whole == resume


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_resume_at_the_edge_of_one_message_arrives_whole(more: int) -> None:
    resume = Resume(GROUP, SYNC, 1, (volume(1, limits.PRESENCE_REGIONS + more, digests=False),), (volume(2, 1),))
    parts, whole = rejoined(resume)
    assert parts == (1 if more < 0 else 2)
    assert whole == resume


def test_a_row_that_changes_its_sync_is_refused() -> None:
    joiner = Joiner()
    first = Resume(GROUP, SYNC, 1, (volume(1, 1),), (), more=True)
    assert joiner.add(first) is None
    with pytest.raises(WireDamaged):
        joiner.add(msgspec.structs.replace(first, sync=b"t" * 16))


def test_a_row_without_end_is_refused() -> None:
    joiner = Joiner()
    part = Resume(GROUP, SYNC, 1, (volume(1, limits.PRESENCE_REGIONS, digests=False),), (), more=True)
    for _ in range(limits.PRESENCE_REGIONS_JOINED // limits.PRESENCE_REGIONS):
        assert joiner.add(part) is None
    with pytest.raises(WireLimit):
        joiner.add(part)
    empty = Joiner()
    for _ in range(limits.CONTAINER_ITEMS + 1):
        assert empty.add(Resume(GROUP, SYNC, 1, (), (), more=True)) is None
    with pytest.raises(WireLimit):
        empty.add(Resume(GROUP, SYNC, 1, (), (), more=True))
