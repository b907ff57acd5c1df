"""An image reads newest wins, byte for byte, however its layers lie over each other."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from stacks import Stack

from blockstore.blockset import runs_of
from blockstore.image import Image
from blockstore.layer import SLOT_ZERO
from blockstore.units import BLOCK


def read(image: Image, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    wait = image.read_into(offset, memoryview(buffer))
    if wait is not None:
        wait.run()  # type: ignore[attr-defined]  # an image hands back steps only
    return bytes(buffer)


@pytest.mark.parametrize("seed", range(6))
def test_every_range_of_every_point_reads_as_the_model_says(tmp_path: Path, seed: int) -> None:
    stack = Stack(tmp_path, Random(seed))
    for _ in range(4):
        stack.add_pack()
    for layers, expected in enumerate(stack.images):
        image = Image(stack.base, stack.packs[:layers], stack.size, 0)
        for offset, length in stack.ranges(150):
            assert read(image, offset, length) == expected[offset : offset + length]


def test_zeros_of_a_layer_end_where_the_base_begins(tmp_path: Path) -> None:
    """The tag of zeros is all ones; one more is the base's tag: they are no neighbours."""
    stack = Stack(tmp_path, Random(1))
    stack.base.write(b"b" * 2 * BLOCK, 10 * BLOCK)
    image = Image(stack.base, [_Zeros()], stack.size, 0)
    assert read(image, 9 * BLOCK, 3 * BLOCK) == bytes(BLOCK) + b"b" * 2 * BLOCK


class _Zeros:
    """A layer that has zeros at block 9 and nothing else."""

    layer_id = b"Z" * 16
    image_bytes = 1 << 20

    def has_region(self, region: int) -> bool:
        return region == 0

    def slots(self, region: int):  # type: ignore[no-untyped-def]
        import numpy as np

        slots = np.full(1024, SLOT_ZERO - 1, np.uint64)
        slots[9] = SLOT_ZERO
        return slots


@pytest.mark.parametrize("seed", range(3))
def test_what_is_told_as_a_hole_reads_as_zeros_and_the_range_is_covered(tmp_path: Path, seed: int) -> None:
    stack = Stack(tmp_path, Random(seed))
    for _ in range(2):
        stack.add_pack()
    image = Image(stack.base, stack.packs, stack.size, 0)
    for offset, length in stack.ranges(60):
        found = image.allocated(offset, length).run()
        at = offset
        for start, count, is_data in found:
            assert start == at
            assert is_data or not any(stack.model[start : start + count])
            at += count
        assert at == offset + length


def test_runs_of_a_region_are_what_its_bits_say() -> None:
    assert [tuple(run) for run in runs_of(0b1011_0001)] == [(0, 1), (4, 2), (7, 1)]
