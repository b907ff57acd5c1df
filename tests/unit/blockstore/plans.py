"""A sender for the tests of layers: plans of blocks as frames, and disks without direct I/O that lose power.

A plan says for each block its content: bytes, ZEROED or GIVEN_BACK. The frames are built here from the format's
rules alone, one or more whole regions each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

import numpy as np
from power_disk import PowerDisk

from blockstore.disk import Disk, DiskFile, aligned_buffer
from blockstore.frame import BUFFER_BYTES, DATA, DISCARD, KEPT, ZERO, build_head, hash_blocks, make_extents
from blockstore.layer import IncomingLayer, Slot
from blockstore.units import BLOCK, align_up

SEED = 0x1EE3A7D
VOLUME, LAYER, POINT = b"V" * 16, b"L" * 16, b"P" * 16

ZEROED, GIVEN_BACK = "zero", "discard"
Content = bytes | str
Plan = Mapping[int, Content]
"""Block number -> its content."""


class BufferedPowerDisk(PowerDisk):
    """Loses power as its parent does; direct I/O, whose buffers it could not note, is refused as tmpfs does."""

    def open(
        self, path: str, *, write: bool = True, create: bool = False, direct: bool = False, exclusive: bool = False
    ) -> DiskFile:
        return super().open(path, write=write, create=create, exclusive=exclusive)


class UnsyncedFile(DiskFile):
    """Syncs do nothing."""

    def _sync(self, call: object) -> None:
        assert not self.sync_failed


class UnsyncedDisk(Disk):
    """For tests that open a file thousands of times, and in which no power is lost. Buffered: direct reads would
    wait for what the test wrote to reach the disk."""

    def open(
        self, path: str, *, write: bool = True, create: bool = False, direct: bool = False, exclusive: bool = False
    ) -> DiskFile:
        file = super().open(path, write=write, create=create, exclusive=exclusive)
        return UnsyncedFile(file.fd, path)

    def sync_dir(self, path: str) -> None:
        """Nothing."""


def content(number: int) -> bytes:
    """A block that says its number all over, and differs from every other."""
    return Random(number).randbytes(64) * (BLOCK // 64)


def rows_of(plan: Plan, kept: Iterable[tuple[int, int]] = ()) -> list[tuple[int, int, int]]:
    """The plan as maximal extents (first, count, kind), and runs that are kept among them."""
    kinds = {ZEROED: ZERO, GIVEN_BACK: DISCARD}
    rows: list[list[int]] = []
    for block in sorted(plan):
        value = plan[block]
        kind = kinds[value] if isinstance(value, str) else DATA
        if rows and rows[-1][2] == kind and rows[-1][0] + rows[-1][1] == block:
            rows[-1][1] += 1
        else:
            rows.append([block, 1, kind])
    return sorted([*map(tuple, rows), *((first, count, KEPT) for first, count in kept)])  # type: ignore[list-item]


def payload_of(plan: Plan) -> bytes:
    return b"".join(value for _, value in sorted(plan.items()) if isinstance(value, bytes))


def wire(plan: Plan, kept: Iterable[tuple[int, int]] = (), seed: int = SEED) -> tuple[bytearray, bytes]:
    """Head and payload of the frame that holds all of `plan`, as they travel."""
    payload = payload_of(plan)
    extents = make_extents(rows_of(plan, kept))
    return build_head(extents, hash_blocks(memoryview(payload), seed), len(payload)), payload


def admit(layer: IncomingLayer, plan: Plan, kept: Iterable[tuple[int, int]] = ()) -> Slot:
    """The frame in a buffer of its own, as the receiver places it, admitted."""
    head, payload = wire(plan, kept)
    buffer = aligned_buffer(BUFFER_BYTES)
    buffer[: len(head)] = head
    begin = align_up(len(head))
    buffer[begin : begin + len(payload)] = payload
    return layer.admit(buffer, len(head))


def take(layer: IncomingLayer, *plans: Plan) -> None:
    """Frames in, one after another, all landed."""
    for plan in plans:
        slot = admit(layer, plan)
        layer.store(slot)
        layer.landed(slot)


def bytes_of(value: Content) -> bytes:
    return value if isinstance(value, bytes) else bytes(BLOCK)


def random_plan(random: Random, regions: Sequence[int], blocks: Sequence[int], number: int) -> dict[int, Content]:
    """Some content for some of `blocks` of each region; `number` makes it differ from other plans."""
    plan: dict[int, Content] = {}
    for region in regions:
        for block in random.sample(list(blocks), random.randint(1, len(blocks))):
            kind = random.random()
            value: Content = ZEROED if kind < 0.15 else GIVEN_BACK if kind < 0.25 else content(number * 1000 + block)
            plan[region * 1024 + block] = value
    return plan


def zeros(count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.zeros(count, np.uint64)
