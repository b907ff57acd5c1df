"""A frame's head: what is sound passes unchanged, what is not is refused before anything is made of it."""

from __future__ import annotations

import struct
from random import Random

import numpy as np
import pytest
from plans import GIVEN_BACK, SEED, ZEROED, content, wire
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from blockstore.errors import FrameDamaged
from blockstore.frame import (
    DATA,
    DISCARD,
    EXTENT,
    KEPT,
    MAX_FRAME_REGIONS,
    ZERO,
    BlockSlices,
    FrameHead,
    LayerDigest,
    build_head,
    clip_extents,
    fill_head,
    frame_regions,
    hash_blocks,
    make_extents,
    parse_head,
    spread,
    zero_blocks,
    zero_hash,
)
from blockstore.units import BLOCK

PLAN = {1022: content(1), 1023: content(2), 1024: content(3), 1030: ZEROED, 1031: ZEROED, 3000: GIVEN_BACK}


def head_of(*rows: tuple[int, int, int], seed: int = SEED) -> bytearray:
    extents = make_extents(rows)
    count = sum(count for _, count, kind in rows if kind == DATA)
    hashes = np.arange(1, count + 1, dtype=np.uint64)
    return build_head(extents, hashes, count * BLOCK)


def parsed(raw: bytes | bytearray, image_blocks: int = 1 << 30) -> FrameHead:
    return parse_head(memoryview(raw), filled=False, image_blocks=image_blocks)


def filled(raw: bytearray) -> bytearray:
    head = parsed(raw)
    head.seq, head.offset, head.durable, head.prev, head.owner, head.sync = 7, 8192, 4096, 99, b"o" * 16, b"s" * 16
    frame = bytearray(b"\xaa" * head.padded_bytes)
    frame[: len(raw)] = raw
    fill_head(memoryview(frame), head)
    return frame


def test_a_head_says_what_it_was_built_from() -> None:
    raw, payload = wire(PLAN)
    head = parsed(raw)
    assert head.extents.tolist() == [(1022, 3, DATA), (1030, 2, ZERO), (3000, 1, DISCARD)]
    assert head.payload_bytes == len(payload) == 3 * BLOCK
    assert head.wire_bytes == len(raw) == 128 + 3 * 16 + 3 * 8
    assert head.padded_bytes == BLOCK
    assert (head.hashes == hash_blocks(memoryview(payload), SEED)).all()


def test_the_layout_is_the_one_of_the_formats_page() -> None:
    raw, _ = wire(PLAN)
    assert raw[:8] == b"LWFR\1\0\0\0"
    assert struct.unpack_from("<IIIIQ", raw, 8) == (4096, 3, 3, 0, 3 * BLOCK)
    assert not any(raw[32:96])
    assert struct.unpack_from("<Q", raw, 96)[0] == xxh3_64_intdigest(bytes(raw[128:]))
    assert not any(raw[104:128])
    assert struct.unpack_from("<QII", raw, 128) == (1022, 3, 0)


def test_what_the_receiver_fills_in_comes_back_and_its_padding_is_zero() -> None:
    raw, _ = wire(PLAN)
    frame = filled(raw)
    head = parse_head(memoryview(frame), filled=True)
    assert (head.seq, head.offset, head.durable, head.prev) == (7, 8192, 4096, 99)
    assert (head.owner, head.sync) == (b"o" * 16, b"s" * 16)
    assert head.check == struct.unpack_from("<Q", frame, 104)[0]
    assert not any(frame[len(raw) :])


@pytest.mark.parametrize("with_receiver", [False, True])
def test_no_flipped_bit_of_a_head_passes(with_receiver: bool) -> None:
    raw, _ = wire(PLAN)
    frame = filled(raw) if with_receiver else raw
    for at in range(len(frame)):
        broken = bytearray(frame)
        broken[at] ^= 1 << (at % 8)
        with pytest.raises(FrameDamaged):
            parse_head(memoryview(broken), filled=with_receiver)


def test_no_cut_head_passes() -> None:
    raw, _ = wire(PLAN)
    frame = filled(raw)
    for length in range(len(raw)):
        with pytest.raises(FrameDamaged):
            parsed(raw[:length])
    with pytest.raises(FrameDamaged):
        parse_head(memoryview(frame)[:-1], filled=True)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(5, 0, ZERO)], id="empty extent"),
        pytest.param([(5, 2, ZERO), (6, 1, DATA)], id="overlap"),
        pytest.param([(9, 1, ZERO), (5, 1, ZERO)], id="not ascending"),
        pytest.param([(99_999, 2, ZERO)], id="beyond the image"),
        pytest.param([((1 << 64) - 1, 2, ZERO)], id="block numbers that wrap"),
        pytest.param([(5, 1, 4)], id="unknown kind"),
        pytest.param([(0, 100, KEPT)], id="part of a region kept"),
        pytest.param([(1, 1023, KEPT)], id="kept from the middle of a region"),
        pytest.param([(0, 1024, KEPT), (1024, 1025, KEPT)], id="kept into the middle of a region"),
        pytest.param([(0, 1025, DATA)], id="more blocks than a frame may hold"),
        pytest.param([], id="nothing"),
    ],
)
def test_extents_that_cannot_be_are_refused(rows: list[tuple[int, int, int]]) -> None:
    with pytest.raises(FrameDamaged):
        parsed(head_of(*rows), image_blocks=100_000)


def test_the_last_region_of_an_image_is_kept_up_to_its_end() -> None:
    assert parsed(head_of((1024, 300, KEPT)), image_blocks=1324).extents.tolist() == [(1024, 300, KEPT)]
    with pytest.raises(FrameDamaged):
        parsed(head_of((1024, 300, KEPT)), image_blocks=1325)


def test_a_frame_names_at_most_65536_regions() -> None:
    most = MAX_FRAME_REGIONS * 1024
    assert parsed(head_of((0, most, ZERO)), image_blocks=1 << 40).extents.tolist() == [(0, most, ZERO)]
    with pytest.raises(FrameDamaged):
        parsed(head_of((0, most + 2048, ZERO)), image_blocks=1 << 40)


def test_a_head_is_at_most_28_kib() -> None:
    rows = [(2 * i, 1, ZERO) for i in range(1785)]
    with pytest.raises(FrameDamaged):
        parsed(head_of(*rows))
    assert len(parsed(head_of(*rows[:1784])).extents) == 1784


def test_hashes_payload_and_extents_must_agree() -> None:
    extents = make_extents([(0, 2, DATA)])
    for hashes, payload in (([1], BLOCK), ([1, 2], BLOCK), ([1, 0], 2 * BLOCK), ([1, 2, 3], 3 * BLOCK)):
        with pytest.raises(FrameDamaged):
            parsed(build_head(extents, np.array(hashes, np.uint64), payload))


def test_a_hash_of_a_block_is_seeded_xxh3_and_never_unknown() -> None:
    data = Random(3).randbytes(5 * BLOCK)
    expected = [xxh3_64_intdigest(data[at : at + BLOCK], SEED) for at in range(0, len(data), BLOCK)]
    assert hash_blocks(memoryview(data), SEED).tolist() == expected
    assert hash_blocks(memoryview(data), SEED + 1).tolist() != expected
    assert zero_hash(SEED) == hash_blocks(memoryview(bytes(BLOCK)), SEED)[0]


def test_only_blocks_that_are_zero_throughout_are_zero_blocks() -> None:
    data = bytearray(5 * BLOCK)
    data[0] = data[2 * BLOCK + 2048] = data[4 * BLOCK - 1] = 1
    assert zero_blocks(memoryview(data)).tolist() == [False, True, False, False, True]
    assert zero_blocks(memoryview(data)[:0]).tolist() == []


def test_slices_are_made_once_for_a_buffer_and_anew_for_another() -> None:
    cache = BlockSlices(most=2)
    buffers = [memoryview(bytearray(2 * BLOCK)) for _ in range(3)]
    first = cache.of(buffers[0])
    assert cache.of(buffers[0]) is first
    assert [len(piece) for piece in first] == [BLOCK, BLOCK]
    for buffer in buffers:
        cache.of(buffer)[0][0] = 9
        assert buffer[0] == 9


def test_extents_are_cut_at_the_borders_of_regions() -> None:
    clipped, region = clip_extents(make_extents([(1000, 2000, ZERO), (5000, 1, DATA)]))
    assert clipped.tolist() == [(1000, 24, ZERO), (1024, 1024, ZERO), (2048, 952, ZERO), (5000, 1, DATA)]
    assert region.tolist() == [0, 1, 2, 4]


def test_spread_names_every_block_of_a_kind() -> None:
    extents = make_extents([(5, 3, DATA), (10, 2, ZERO), (20, 1, DATA)])
    assert spread(extents, DATA).tolist() == [5, 6, 7, 20]
    assert spread(extents, KEPT).tolist() == []


def test_a_region_digests_the_same_however_its_frame_is_cut() -> None:
    """The sender's redo and the receiver's pack may put regions into frames in different company."""
    together = {1000: content(1), 1023: content(2), 1024: content(3), 2047: ZEROED, 2048: ZEROED}
    first = {block: value for block, value in together.items() if block < 1024}
    rest = {block: value for block, value in together.items() if block >= 1024}
    parts = frame_regions(parsed(wire(first)[0]), SEED) + frame_regions(parsed(wire(rest)[0]), SEED)
    assert frame_regions(parsed(wire(together)[0]), SEED) == parts
    assert [(region, blocks) for region, blocks, _ in parts] == [(0, 2), (1, 2), (2, 1)]


def test_the_digest_of_a_region_covers_number_extents_hashes_and_seed() -> None:
    def digest(plan: dict[int, bytes | str], seed: int = SEED) -> bytes:
        return frame_regions(parsed(wire(plan)[0]), seed)[0][2]

    base = digest({5: content(1), 6: ZEROED})
    others = [
        digest({5: content(2), 6: ZEROED}),
        digest({5: content(1), 6: GIVEN_BACK}),
        digest({5: content(1)}),
        digest({1029: content(1), 1030: ZEROED}),
        digest({5: content(1), 6: ZEROED}, SEED + 1),
    ]
    assert base not in others
    extent = np.array([(5, 1, DATA), (6, 1, ZERO)], EXTENT).tobytes()
    hashed = hash_blocks(memoryview(content(1)), SEED).tobytes()
    assert base == xxh3_64_intdigest(struct.pack("<I", 0) + extent + hashed, SEED).to_bytes(8, "little")


def test_a_kept_region_has_no_digest_of_its_own() -> None:
    head = parsed(wire({3000: content(1)}, kept=[(0, 2048)])[0])
    assert [(region, blocks, bool(digest)) for region, blocks, digest in frame_regions(head, SEED)] == [
        (0, 0, False),
        (1, 0, False),
        (2, 1, True),
    ]


def test_the_digest_of_a_layer_is_xxh3_128_over_its_regions() -> None:
    digest = LayerDigest()
    digest.add(3, 7, b"12345678")
    digest.add(9, 1, b"abcdefgh")
    assert digest.digest() == xxh3_128_digest(struct.pack("<II8sII8s", 3, 7, b"12345678", 9, 1, b"abcdefgh"))
    with pytest.raises(AssertionError):
        digest.add(9, 1, b"abcdefgh")
