"""A frozen overlay as a layer: what an image reads through it, and its fold into the base."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from made import do

from blockstore.disk import Disk
from blockstore.frame import hash_blocks
from blockstore.frozen import FoldOverlay, FrozenOverlay
from blockstore.hashes import HashTable
from blockstore.image import Image
from blockstore.overlay import Overlay
from blockstore.overlay_io import OverlayIO
from blockstore.stores.kinds import make_store, open_store
from blockstore.units import BLOCK, REGION

SIZE = 3 * REGION + 5000
SEED, POINT = 7, b"p" * 16


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_store(Disk(), str(tmp_path / "base"), SIZE)
    with (tmp_path / "base").open("r+b") as base:
        base.write(Random(1).randbytes(SIZE))
    return tmp_path


def test_image_and_fold_agree_with_what_was_written(place: Path) -> None:
    disk, random = Disk(), Random(2)
    base = open_store(disk, str(place / "base"))
    expected = bytearray((place / "base").read_bytes())
    overlay = Overlay.create(
        disk, str(place), layer_id=b"l" * 16, volume_id=b"v" * 16, image_bytes=SIZE, live_folder=None
    )
    writer = OverlayIO(overlay, Image(base, [], SIZE, SEED))
    for _ in range(40):
        offset = random.randrange(SIZE)
        data = random.randbytes(min(random.choice((17, BLOCK, 3 * BLOCK + 1)), SIZE - offset))
        do(lambda offset=offset, data=data: writer.write(offset, memoryview(data), False))
        expected[offset : offset + len(data)] = data
    do(lambda: writer.zero(REGION + BLOCK, 9 * BLOCK, False, True))
    expected[REGION + BLOCK : REGION + 10 * BLOCK] = bytes(9 * BLOCK)
    do(writer.flush)

    layer = FrozenOverlay(overlay, SIZE)
    assert read(Image(base, [layer], SIZE, SEED)) == bytes(expected)

    hashes = HashTable.open(disk, str(place / "hashes"), volume_id=b"v" * 16, hash_seed=SEED, size_bytes=SIZE)
    fold = FoldOverlay(layer, base, hashes, POINT)
    steps = 1
    while not fold.step(1):
        assert read(Image(base, [layer], SIZE, SEED)) == bytes(expected), "half a fold shows in nothing"
        steps += 1
    assert steps > 1
    assert (place / "base").read_bytes() == bytes(expected)
    assert hashes.point == POINT
    padded = bytes(expected) + bytes(-SIZE % BLOCK)
    for region, bits in layer.regions():
        for block in (b for b in range(1024) if bits >> b & 1):
            at = (region * 1024 + block) * BLOCK
            assert hashes.lookup(at // BLOCK, 1)[0] == hash_blocks(memoryview(padded[at : at + BLOCK]), SEED)[0]


def read(image: Image) -> bytes:
    buffer = memoryview(bytearray(SIZE))
    image.read_blocking(0, buffer)
    return bytes(buffer)
