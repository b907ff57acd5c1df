"""Pieces of a frame: packed, unpacked, and refused when they lie."""

from __future__ import annotations

import random

import lz4.block
import pytest
import zstandard

from blockstore.units import BLOCK, Extent
from engine.errors import WireDamaged
from engine.transfer.codecs import MANY_RUNS, compact, pack, probe, unpack
from engine.wire.limits import PIECE_BYTES

TEXT = b"a line that says little, again and again, and then one more time\n" * 40000
NOISE = random.Random(1).randbytes(PIECE_BYTES + 5 * BLOCK)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("blocks", [1, 256, 257, 600])
def test_what_is_packed_comes_back(codec: str, blocks: int) -> None:
    plain = (TEXT + NOISE)[: blocks * BLOCK] if blocks < 600 else (NOISE + TEXT)[: blocks * BLOCK]
    stored, pieces = pack(memoryview(plain), codec)
    assert [len(piece) for piece in stored] == [size for size, _ in pieces]
    assert all(size <= plain_size <= PIECE_BYTES for size, plain_size in pieces)
    into = bytearray(len(plain))
    unpack(memoryview(b"".join(stored)), pieces, codec, memoryview(into))
    assert into == plain


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_a_piece_that_does_not_shrink_is_stored_as_it_is(codec: str) -> None:
    stored, pieces = pack(memoryview(NOISE)[:PIECE_BYTES], codec)
    assert pieces == ((PIECE_BYTES, PIECE_BYTES),)
    assert bytes(stored[0]) == NOISE[:PIECE_BYTES]


LZ4_TEXT = lz4.block.compress(TEXT[:8192], store_size=False)
ZSTD_TEXT = zstandard.ZstdCompressor(level=1).compress(TEXT[:8192])
ZSTD_UNSIZED = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(TEXT[:8192])
ZSTD_BOMB = zstandard.ZstdCompressor(level=1).compress(bytes(64 << 20))


@pytest.mark.parametrize(
    ("codec", "stored", "plain"),
    [
        ("lz4", LZ4_TEXT, 4096),
        ("lz4", LZ4_TEXT, 12288),
        ("lz4", LZ4_TEXT[:-3], 8192),
        ("lz4", b"\xff" * 50, 8192),
        ("zstd", ZSTD_TEXT, 4096),
        ("zstd", ZSTD_TEXT, 12288),
        ("zstd", ZSTD_TEXT[:-3], 8192),
        ("zstd", b"\xff" * 50, 8192),
        ("zstd", ZSTD_UNSIZED, 8192),
        ("zstd", ZSTD_BOMB, PIECE_BYTES),
    ],
)
def test_a_piece_of_another_size_than_it_says_is_refused(codec: str, stored: bytes, plain: int) -> None:
    with pytest.raises(WireDamaged):
        unpack(memoryview(stored), ((len(stored), plain),), codec, memoryview(bytearray(plain)))


def test_a_probe_tells_text_from_noise() -> None:
    assert probe(memoryview(TEXT)[: 100 * BLOCK]) < 0.5
    assert probe(memoryview(NOISE)[: 100 * BLOCK]) > 0.95
    assert probe(memoryview(b"")) == 1.0
    assert probe(memoryview(TEXT)[:BLOCK]) < 0.5


@pytest.mark.parametrize("count", [1, 3, MANY_RUNS + 10])
def test_runs_are_moved_to_the_front_in_order(count: int) -> None:
    blocks = [bytes([number % 251]) * BLOCK for number in range(3 * count + 3)]
    view = memoryview(bytearray(b"".join(blocks)))
    runs = [Extent(3 * at + 1, 2) for at in range(count)]
    wanted = b"".join(blocks[at] for run in runs for at in range(run.first, run.first + run.count))
    assert compact(view, runs) == wanted
