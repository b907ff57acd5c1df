"""Folding changes what the base holds and nothing that anybody reads; rot is never spread."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from stacks import Stack

from blockstore.errors import LayerDamaged
from blockstore.fold import Fold
from blockstore.frame import hash_blocks
from blockstore.image import Image
from blockstore.units import BLOCK, align_up, blocks_in

POINT = b"N" * 16


def whole(image: Image) -> bytes:
    buffer = memoryview(bytearray(image.size_bytes))
    image.read_blocking(0, buffer)
    return bytes(buffer)


@pytest.mark.parametrize("seed", range(4))
def test_points_read_the_same_before_in_the_middle_and_after_a_fold(tmp_path: Path, seed: int) -> None:
    stack = Stack(tmp_path, Random(seed))
    for _ in range(3):
        stack.add_pack()
    hashes = stack.hashes()
    before = [Image(stack.base, stack.packs[: n + 1], stack.size, 0) for n in range(3)]
    fold = Fold(stack.disk, stack.packs[0], stack.base, hashes, POINT)
    is_done = False
    while not is_done:
        is_done = fold.step(1)
        assert [whole(image) for image in before] == stack.images[1:]
    after = [Image(stack.base, stack.packs[1 : n + 1], stack.size, 0) for n in range(3)]
    assert [whole(image) for image in after] == stack.images[1:]
    assert hashes.point == POINT


def test_the_hashes_of_the_base_are_those_of_what_was_folded(tmp_path: Path) -> None:
    stack = Stack(tmp_path, Random(9))
    stack.add_pack()
    hashes = stack.hashes()
    Fold(stack.disk, stack.packs[0], stack.base, hashes, POINT).step(1 << 30)
    known = hashes.lookup(0, blocks_in(stack.size))
    padded = memoryview(bytearray(stack.images[1]).ljust(align_up(stack.size), b"\0"))
    real = hash_blocks(padded, hashes.hash_seed)
    assert known.any()
    assert ((known == 0) | (known == real)).all()


def test_a_fold_that_was_cut_begins_anew_and_comes_to_the_same(tmp_path: Path) -> None:
    stack = Stack(tmp_path, Random(5))
    stack.add_pack()
    Fold(stack.disk, stack.packs[0], stack.base, stack.hashes(), POINT).step(1)
    assert Fold(stack.disk, stack.packs[0], stack.base, stack.hashes(), POINT).step(1 << 30)
    assert whole(Image(stack.base, [], stack.size, 0)) == stack.images[1]


def test_a_rotten_block_of_a_pack_never_reaches_the_base(tmp_path: Path) -> None:
    stack = Stack(tmp_path, Random(6))
    stack.add_pack()
    region = next(r for r in stack.packs[0].regions() if len(stack.packs[0].part(r).hashes))
    slot = stack.packs[0].part(region).slot
    with open(stack.packs[0].file.path, "r+b") as file:
        os.pwrite(file.fileno(), b"rot", slot * BLOCK + 100)
    was = whole(Image(stack.base, [], stack.size, 0))
    with pytest.raises(LayerDamaged, match="do not match"):
        Fold(stack.disk, stack.packs[0], stack.base, stack.hashes(), POINT).step(1 << 30)
    first = region * 1024 * BLOCK
    assert (
        whole(Image(stack.base, [], stack.size, 0))[first : first + 1024 * BLOCK] == was[first : first + 1024 * BLOCK]
    )
