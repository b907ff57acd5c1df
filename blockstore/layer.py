"""What the parts of the block store ask of each other: block I/O, layers, and layers that are being received.

Protocols only: an image asks nothing more of a pack than of an overlay, and a receiver nothing more of a pack
than of a base that is being seeded. This module must never do I/O.

A call that returns `Wait | None` acts as `blockstore/steps.py` says. "Blocking" calls run in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blockstore.disk import DiskFile
from blockstore.frame import FrameHead
from blockstore.steps import Step, Wait

Allocation = list[tuple[int, int, bool]]
"""(offset, length, has data) of neighbouring byte ranges."""

SLOT_ZERO = (1 << 64) - 1
"""In a layer's slots: the block is zeros."""
SLOT_ABSENT = SLOT_ZERO - 1
"""In a layer's slots: the layer has nothing of this block."""
MAX_SLOT = 1 << 40
"""Slots of a file end below this: 4 PiB."""


class BlockIO(Protocol):
    """What an export serves. Offsets and lengths are bytes. Errors: OSError (ENOSPC, EIO) or LeewardError."""

    size_bytes: int

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        """Fill `buffer` from `offset`."""

    def write(self, offset: int, data: memoryview, durable: bool) -> Wait | None:
        """Write `data`, which stays untouched until the final wait is over; `durable`: on the disk then."""

    def zero(self, offset: int, length: int, durable: bool, may_punch: bool) -> Wait | None:
        """The range reads as zeros afterwards; with `may_punch` its space may be given back."""

    def discard(self, offset: int, length: int, durable: bool) -> Wait | None:
        """The exact range reads as zeros afterwards, its space given back where that can be."""

    def flush(self) -> Wait | None:
        """What was written and replied to before this call is on the disk afterwards."""

    def allocated(self, offset: int, length: int) -> Step[Allocation]:
        """Where data may be; final, the answer in `result`."""


class Surface(Protocol):
    """Where a writer's bytes land: a store, or an overlay over an image. A wait that is not final: call again."""

    size_bytes: int

    def prepare(self, offset: int, length: int) -> Wait | None:
        """What must come before a write of this range; call again after it. None: write in the same tick."""

    def write(self, offset: int, data: memoryview, durable: bool) -> Wait | None:
        """After `prepare` answered None, in the same tick. None: written inline."""

    def zero(self, offset: int, length: int, durable: bool, may_punch: bool) -> Wait:
        """As BlockIO.zero."""

    def discard(self, offset: int, length: int, durable: bool) -> Wait:
        """As BlockIO.discard."""

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        """As BlockIO.read_into."""

    def flush(self) -> Wait:
        """As BlockIO.flush."""

    def allocated(self, offset: int, length: int) -> Step[Allocation]:
        """As BlockIO.allocated."""


class ImageReader(Protocol):
    """What a reader of an image needs: `blockstore/image.py`, or a test's."""

    size_bytes: int

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        """As BlockIO.read_into."""

    def read_blocking(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; blocking."""

    def allocated(self, offset: int, length: int) -> Step[Allocation]:
        """As BlockIO.allocated."""


class Layer(Protocol):
    """An immutable layer, as an image reads it. Slot s is the block at byte s * 4096 of `file`."""

    layer_id: bytes
    image_bytes: int
    file: DiskFile

    def has_region(self, region: int) -> bool:
        """True if the layer has blocks of the region. From memory."""

    def slots(self, region: int) -> NDArray[np.uint64]:
        """1,024 slots of a region: SLOT_ABSENT, SLOT_ZERO or a slot. Blocking. Raises LayerDamaged, OSError."""

    def acquire(self) -> None:
        """Loop: a reader in the pool uses the layer from now on."""

    def release(self) -> None:
        """Loop: that reader has returned."""

    def retired(self) -> Wait:
        """Loop: over when no reader is left; the caller has taken the layer out of every image."""

    def close(self) -> None:
        """Close the file; nothing may read any more."""


class Readers:
    """Counts readers in the pool, so that what they read is not closed under them. On the loop only."""

    def __init__(self) -> None:
        self._readers = 0
        self._waits: list[Wait] = []

    def acquire(self) -> None:
        """A reader starts."""
        self._readers += 1

    def release(self) -> None:
        """A reader has returned."""
        self._readers -= 1
        if not self._readers:
            waits, self._waits = self._waits, []
            for wait in waits:
                wait.fire()

    def retired(self) -> Wait:
        """Over when there is no reader; at once if there is none now."""
        wait = Wait(final=True)
        if self._readers:
            self._waits.append(wait)
        else:
            wait.fire()
        return wait


@dataclass(slots=True, eq=False)
class Slot:
    """A frame in a receive buffer, between `admit` and `landed`. `regions` is filled in by `store`."""

    head: FrameHead
    buffer: memoryview
    session: int
    number: int
    """Of the frame in its session, from 1."""
    regions: NDArray[Any] | None = None
    head_copy: bytes = b""
    """The padded head, where it is needed after the buffer is free; filled in by `store`."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame in the buffer, head and payload."""
        return self.head.padded_bytes + self.head.payload_bytes


@dataclass(frozen=True, slots=True)
class SealReceipt:
    """What a sealed layer is known by: durable, and may now be named by the records."""

    length_bytes: int
    """Bytes of the file; 0 for a base."""
    directory_offset: int
    directory_check: bytes
    """8 bytes: the check of the directory's head, which covers all of the directory."""
    blocks: int
    payload_bytes: int
    """Bytes of the data blocks in the layer, each region counted once."""
    digest: bytes
    """16 bytes; the sender has the same."""


class IncomingLayer(Protocol):
    """A layer that is being received: a pack, or a base that is being seeded.

    One receiver, one session at a time. Frames are admitted in order on the loop, stored in any order in the
    pool, and land on the loop; what is behind a gap does not count.
    """

    received_frames: int
    """Frames of this session that were admitted."""
    complete_frames: int
    """Frames of this session that are written, without a gap."""
    durable_frames: int
    """Frames of this session that are on the disk: what the sender may be told."""

    def begin_session(self, sync_id: bytes) -> None:
        """Blocking, once all writers of the session before have returned: cut at complete, sync, count from 0."""

    def presence(self) -> dict[int, bytes]:
        """Region -> digest (8 bytes) of regions that durable frames of this sync id confirm. After begin_session."""

    def reusable(self) -> dict[int, bytes]:
        """Region -> digest (8 bytes) of regions here from older sync ids: `kept`, if the new plan's is equal."""

    def admit(self, buffer: memoryview, wire_head_bytes: int) -> Slot:
        """The frame in `buffer`: head at 0, payload at align_up(wire_head_bytes). Loop. Raises FrameDamaged."""

    def store(self, slot: Slot) -> None:
        """Blocking: hash every block, compare, write. Raises BlockMismatch, LayerSpace, OSError."""

    def landed(self, slot: Slot) -> None:
        """Loop: the frame is written; its buffer is free."""

    def checkpoint(self) -> Step[Any] | None:
        """Loop: make durable what is complete; the step that runs already, if one does; None if nothing is new."""

    def seal(self) -> Step[SealReceipt]:
        """Loop, all admitted frames complete: make the layer whole and durable."""

    def close(self) -> None:
        """Close the files; what is durable can be recovered."""

    def drop(self) -> None:
        """Blocking: close, and remove the layer's own file. Missing files are no error."""
