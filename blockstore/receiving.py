"""The order of incoming frames: what was admitted, what is complete, what is durable.

One receiver, one session at a time (`docs/formats.md`, "Receiving"). Frames are admitted in order, written in
any order by two writers, and count only without a gap. This module must never do I/O: packs and seeds, which
stand on it, do.
"""

from __future__ import annotations

import numpy as np

from blockstore.errors import BlockMismatch, FrameDamaged, LayerFailed, LayerSpace, StoreFlushFailed
from blockstore.frame import (
    BLOCKS_FRAME,
    DATA,
    KEPT,
    BlockSlices,
    FrameHead,
    clip_extents,
    fill_head,
    hash_slices,
    parse_head,
)
from blockstore.layer import Slot
from blockstore.pack_file import SPACE
from blockstore.pack_format import Mark
from blockstore.pack_regions import RegionTable
from blockstore.pack_walk import FrameFile
from blockstore.units import BLOCK, align_up, blocks_in


class Receiving:
    """The loop's side of a layer that is being received. Subclasses write, sync and seal."""

    def __init__(self, frames: FrameFile, table: RegionTable, end: Mark) -> None:
        self.frames = frames
        self.table = table
        self.complete = end
        """Behind the longest run of written frames."""
        self.durable_offset = end.offset
        """All below is on the disk and is never written again."""
        self.received_frames = self.complete_frames = self.durable_frames = 0
        self.sync_id = bytes(16)
        self._cursor = end
        self._base = end.seq
        self._session = 0
        self._written: dict[int, Slot] = {}
        self._failed = ""

    @property
    def path(self) -> str:
        """The layer's own file."""
        return self.frames.file.path

    @property
    def unsynced_bytes(self) -> int:
        """Bytes of complete frames that no checkpoint covers yet."""
        return self.complete.offset - self.durable_offset

    def presence(self) -> dict[int, bytes]:
        """Region -> digest of what this sync's frames confirm."""
        return self.table.confirmed(self.sync_id)

    def reusable(self) -> dict[int, bytes]:
        """Region -> digest of what is here from older syncs only."""
        return self.table.others(self.sync_id)

    def restart(self, sync_id: bytes) -> None:
        """All complete is durable; the next frame is this session's first. Frames behind a gap are lost."""
        self.sync_id = sync_id
        self.durable_offset = self.complete.offset
        self._cursor = self.complete
        self._base = self.complete.seq
        self._session += 1
        self._written.clear()
        self.received_frames = self.complete_frames = self.durable_frames = 0

    def admit(self, buffer: memoryview, wire_head_bytes: int) -> Slot:
        """See IncomingLayer.admit."""
        assert self._session, "a session has begun"
        head = parse_head(buffer[:wire_head_bytes], filled=False, image_blocks=blocks_in(self.frames.image_bytes))
        if head.wire_bytes != wire_head_bytes or head.kind != BLOCKS_FRAME:
            raise FrameDamaged(reason=f"{wire_head_bytes} bytes are not just the head of a frame of blocks")
        if align_up(wire_head_bytes) + head.payload_bytes > len(buffer):
            raise FrameDamaged(reason="its payload does not fit the buffer")
        self._check_kept(head)
        head.seq, head.offset, head.prev = self._cursor.seq + 1, self._cursor.offset, self._cursor.check
        head.durable, head.owner, head.sync = self.durable_offset, self.frames.owner, self.sync_id
        fill_head(buffer, head)
        self._cursor = self.frames.after(head)
        self.received_frames += 1
        return Slot(head, buffer, self._session, self.received_frames)

    def landed(self, slot: Slot) -> None:
        """See IncomingLayer.landed. A slot of a session that is void counts for nothing."""
        if slot.session != self._session:
            return
        self._written[slot.head.seq] = slot
        while (ready := self._written.pop(self.complete.seq + 1, None)) is not None:
            assert ready.regions is not None, "a frame lands after it was stored"
            self.table.enter(ready.regions, ready.head.offset, ready.head.sync)
            self.complete = self.frames.after(ready.head)
            self.complete_frames = self.complete.seq - self._base
            self.entered(ready)

    def entered(self, slot: Slot) -> None:
        """A frame became complete. Its buffer may be in use for another one by now."""

    def noted_durable(self, mark: Mark) -> None:
        """All up to `mark`, which was taken before the sync began, is on the disk."""
        if mark.seq >= self._base:
            self.durable_offset = max(self.durable_offset, mark.offset)
            self.durable_frames = max(self.durable_frames, mark.seq - self._base)

    def sync_failed(self, error: Exception) -> None:
        """Raise what a failed step means. Space may come back; after anything else the layer is lost."""
        if isinstance(error, OSError) and error.errno in SPACE:
            raise LayerSpace(path=self.path) from error
        raise self.failure(error) from error

    def failure(self, error: Exception) -> LayerFailed:
        """The layer has failed for good: the kernel reports a failed sync once, and then forgets."""
        reason = error.reason if isinstance(error, StoreFlushFailed) else getattr(error, "strerror", "") or str(error)
        self._failed = self._failed or reason
        return LayerFailed(path=self.path, reason=self._failed)

    def raise_if_failed(self) -> None:
        """Raise LayerFailed if `failure` was called."""
        if self._failed:
            raise LayerFailed(path=self.path, reason=self._failed)

    def _check_kept(self, head: FrameHead) -> None:
        """Only what is complete may be kept: the sender was told of nothing else."""
        kept = head.extents["kind"] == KEPT
        if kept.any() and not self.table.has(clip_extents(head.extents[kept])[1]):
            raise FrameDamaged(reason="it keeps a region that is not here")


def verify(slot: Slot, cache: BlockSlices, seed: int) -> None:
    """Compare every block of the frame with its hash. Blocking.

    Raises BlockMismatch.
    """
    head = slot.head
    begin = head.padded_bytes // BLOCK
    slices = cache.of(slot.buffer)[begin : begin + len(head.hashes)]
    wrong = hash_slices(slices, seed) != head.hashes
    if wrong.any():
        data = head.extents[head.extents["kind"] == DATA]
        ends = np.cumsum(data["count"].astype(np.int64))
        at = int(np.flatnonzero(wrong)[0])
        extent = int(np.searchsorted(ends, at, side="right"))
        first = int(data["first"][extent]) + at - int(ends[extent] - data["count"][extent])
        raise BlockMismatch(first=first, blocks=int(wrong.sum()))
