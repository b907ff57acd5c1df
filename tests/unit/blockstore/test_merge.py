"""A merge changes no image that anybody may read, keeps zeros over what lies below, and never spreads rot."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
from plans import POINT, SEED, VOLUME
from stacks import Stack

from blockstore.disk import DiskFile
from blockstore.errors import LayerDamaged
from blockstore.frame import MAX_HEAD_BYTES
from blockstore.image import Image
from blockstore.merge import Merge, merged_region
from blockstore.pack_read import SealedPack
from blockstore.pack_walk import heads
from blockstore.units import BLOCK

LAYER = b"M" * 16


def whole(image: Image) -> bytes:
    buffer = memoryview(bytearray(image.size_bytes))
    image.read_blocking(0, buffer)
    return bytes(buffer)


def names(stack: Stack) -> dict[str, Any]:
    return {"volume_id": VOLUME, "layer_id": LAYER, "hash_seed": SEED, "image_bytes": stack.size}


def begin(stack: Stack, packs: list[SealedPack]) -> Merge:
    return Merge(stack.disk, packs, str(stack.folder / "merged.pack"), builds_on=POINT, **names(stack))


def merge(stack: Stack, packs: list[SealedPack], piece: int = 1 << 30) -> SealedPack:
    work = begin(stack, packs)
    while not work.step(piece):
        pass
    work.close()
    return SealedPack.open(stack.disk, str(stack.folder / "merged.pack"), receipt=work.receipt, **names(stack))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [2, 4])
def test_images_above_read_the_same_with_the_merged_pack_in_the_place_of_its_inputs(
    tmp_path: Path, seed: int, count: int
) -> None:
    stack = Stack(tmp_path, Random(seed))
    for _ in range(count + 2):
        stack.add_pack()
    merged = merge(stack, stack.packs[1 : 1 + count], piece=1)
    for top in range(1 + count, count + 3):
        layers = [stack.packs[0], merged, *stack.packs[1 + count : top]]
        assert whole(Image(stack.base, layers, stack.size, 0)) == stack.images[top]
    assert whole(Image(stack.base, stack.packs[: count + 1], stack.size, 0)) == stack.images[count + 1]


def test_a_merged_pack_is_no_larger_than_what_it_says_and_is_read_without_its_directory(tmp_path: Path) -> None:
    stack = Stack(tmp_path, Random(3))
    for _ in range(3):
        stack.add_pack()
    merged = merge(stack, stack.packs)
    regions = [merged_region(stack.packs, region) for region in sorted({r for p in stack.packs for r in p.regions()})]
    blocks = sum(len(region.hashes) for region in regions)
    assert os.stat(merged.file.path).st_size <= blocks * BLOCK + 3 * MAX_HEAD_BYTES
    walked = SealedPack.open(stack.disk, merged.file.path, receipt=None, **names(stack))
    assert whole(Image(stack.base, [walked], stack.size, 0)) == stack.images[3]
    assert len(list(heads(merged._frames))) < len(regions) + 1, "small regions share a frame"


def test_a_merged_pack_is_merged_like_any_other(tmp_path: Path) -> None:
    stack = Stack(tmp_path, Random(8))
    for _ in range(3):
        stack.add_pack()
    merged = merge(stack, stack.packs[:2])
    os.rename(merged.file.path, tmp_path / "first.pack")
    again = merge(stack, [merged, stack.packs[2]])
    assert whole(Image(stack.base, [again], stack.size, 0)) == stack.images[3]


def test_rot_in_a_pack_is_never_written_into_the_merged_one(tmp_path: Path) -> None:
    stack = Stack(tmp_path, Random(6))
    stack.add_pack()
    stack.add_pack()
    region = next(merged_region(stack.packs, r) for r in stack.packs[1].regions())
    with open(stack.packs[int(region.packs[-1])].file.path, "r+b") as file:
        os.pwrite(file.fileno(), b"rot", int(region.slots[-1]) * BLOCK + 100)
    work = begin(stack, stack.packs)
    with pytest.raises(LayerDamaged, match="do not match"):
        work.step(1 << 30)
    assert work.receipt is None


def test_a_file_system_that_refuses_direct_writes_in_mid_file_is_written_buffered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(tmp_path, Random(2))
    stack.add_pack()
    stack.add_pack()
    work = begin(stack, stack.packs)
    write, refused = DiskFile.write, []

    def refusing(file: DiskFile, data: Any, offset: int, *, durable: bool = False) -> None:
        if file.path.endswith("merged.pack") and file.direct and not refused:
            refused.append(offset)
            raise OSError(errno.EINVAL, "no direct I/O here")
        write(file, data, offset, durable=durable)

    monkeypatch.setattr(DiskFile, "write", refusing)
    assert work.step(1 << 30)
    work.close()
    merged = SealedPack.open(stack.disk, str(tmp_path / "merged.pack"), receipt=work.receipt, **names(stack))
    assert whole(Image(stack.base, [merged], stack.size, 0)) == stack.images[2]
