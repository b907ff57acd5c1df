"""Read the frames of a file in order, and believe exactly those that count (`docs/formats.md`, "Walk").

A frame counts if owner, offset, seq, `prev`, both checks and the file's size fit, and if all before it count.
Below D, the largest `durable` among them, heads suffice; from D on every payload is read and hashed. The first
failure, or a directory, is the end. An end below D means that the medium lied. This module must never write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blockstore.disk import DiskFile, aligned_buffer
from blockstore.errors import FrameDamaged, LayerDamaged
from blockstore.frame import (
    DIRECTORY_FRAME,
    MAX_FRAME_BLOCKS,
    MAX_HEAD_BYTES,
    BlockSlices,
    FrameHead,
    hash_slices,
    head_bytes,
    parse_head,
)
from blockstore.pack_format import FIRST_FRAME, Mark
from blockstore.units import BLOCK, blocks_in


@dataclass(frozen=True, slots=True)
class FrameFile:
    """A file of frames and what its heads are bound to. `payload`: False in `.redo` and `.seed`."""

    file: DiskFile
    owner: bytes
    image_bytes: int
    hash_seed: int
    header_check: int
    payload: bool = True

    @property
    def start(self) -> Mark:
        """Before the first frame."""
        return Mark(0, FIRST_FRAME, self.header_check)

    def span(self, head: FrameHead) -> int:
        """Bytes that a frame of blocks takes in this file."""
        return head.padded_bytes + (head.payload_bytes if self.payload else 0)

    def after(self, head: FrameHead) -> Mark:
        """Behind the frame of `head`, which is filled in."""
        return Mark(head.seq, head.offset + self.span(head), head.check)

    def read_head(self, offset: int, buffer: memoryview) -> FrameHead:
        """The head at `offset`, its own checks done. `buffer`: MAX_HEAD_BYTES, page-aligned. Raises FrameDamaged."""
        got = buffer[: self.file.read_into(buffer[:MAX_HEAD_BYTES], offset)]
        head = parse_head(got, filled=True, image_blocks=blocks_in(self.image_bytes))
        if head.owner != self.owner or head.offset != offset:
            raise FrameDamaged(reason="it is another file's frame, or at another place")
        return head


def heads(frames: FrameFile) -> Iterator[FrameHead]:
    """The heads in order, as long as they fit; ends before a directory. Blocking."""
    buffer = aligned_buffer(MAX_HEAD_BYTES)
    size = frames.file.size()
    mark = frames.start
    while mark.offset < size:
        try:
            head = frames.read_head(mark.offset, buffer)
        except FrameDamaged:  # the end of what counts: a torn tail, zeros, an older file's bytes
            return
        if head.kind == DIRECTORY_FRAME or head.seq != mark.seq + 1 or head.prev != mark.check:
            return
        mark = frames.after(head)
        if mark.offset > size:
            return
        yield head


def directory_head(frames: FrameFile, mark: Mark) -> FrameHead | None:
    """The directory that stands at `mark`, if a whole one does: its head only. Blocking."""
    first = aligned_buffer(BLOCK)
    if frames.file.read_into(first, mark.offset) < BLOCK:
        return None
    try:
        length = head_bytes(first)
        if mark.offset + length > frames.file.size():
            return None
        buffer = aligned_buffer(length)
        frames.file.read_into(buffer, mark.offset)
        head = parse_head(buffer, filled=True)
    except FrameDamaged:  # no directory, or one that a crash cut: it is made again
        return None
    fits = head.owner == frames.owner and head.offset == mark.offset and head.seq == mark.seq + 1
    return head if fits and head.prev == mark.check and head.kind == DIRECTORY_FRAME else None


def payload_fits(frames: FrameFile, head: FrameHead, buffer: memoryview, slices: BlockSlices) -> bool:
    """True if the blocks of the frame are the ones that were hashed. `buffer`: 4 MiB, page-aligned. Blocking."""
    if frames.file.read_into(buffer[: head.payload_bytes], head.offset + head.padded_bytes) < head.payload_bytes:
        return False
    found = hash_slices(slices.of(buffer)[: len(head.hashes)], frames.hash_seed)
    return bool((found == head.hashes).all())


def walk(frames: FrameFile, count: Callable[[FrameHead], None]) -> Mark:
    """Call `count` for each frame that counts, in order; returns where they end. Blocking.

    `count` may refuse a frame with FrameDamaged, which ends the walk. Raises LayerDamaged if what was known to
    be durable is not there, OSError.
    """
    durable = max((head.durable for head in heads(frames)), default=FIRST_FRAME)
    buffer: memoryview | None = None
    slices = BlockSlices()
    end = frames.start
    for head in heads(frames):
        after = frames.after(head)
        if after.offset > durable and frames.payload and head.payload_bytes:
            if buffer is None:
                buffer = aligned_buffer(MAX_FRAME_BLOCKS * BLOCK)
            if not payload_fits(frames, head, buffer, slices):
                break
        try:
            count(head)
        except FrameDamaged:  # as a bad payload: it ends what counts
            break
        end = after
    if end.offset < durable:
        reason = f"{durable} bytes of it were on the disk and only {end.offset} are good: the medium lost them"
        raise LayerDamaged(path=frames.file.path, reason=reason)
    return end
