"""OpenPack: a layer that is being received, as one append-only file of frames.

Blocks are hashed, compared and written by one `pwrite` each frame; what is behind a gap never counts; a session
begins by cutting at what is complete (`docs/formats.md`, "Pack" and "Receiving"). Direct I/O where the file
system takes it: most of the durability is then paid as data arrives. This module must never name a point.
"""

from __future__ import annotations

import errno
import os

from blockstore.disk import Disk, DiskFile
from blockstore.errors import LayerDamaged, LayerSpace, StoreFlushFailed
from blockstore.frame import BlockSlices, FrameHead, region_rows
from blockstore.layer import SealReceipt, Slot
from blockstore.pack_file import SPACE, create_file, open_direct, read_header, write_directory
from blockstore.pack_format import Mark, PackHeader, PackKind
from blockstore.pack_regions import RegionTable
from blockstore.pack_walk import FrameFile, walk
from blockstore.receiving import Receiving, verify
from blockstore.steps import Step


class OpenPack(Receiving):
    """A pack that grows. Made by `create` or `recover`; a session must begin before frames are admitted."""

    def __init__(self, disk: Disk, frames: FrameFile, table: RegionTable, end: Mark) -> None:
        super().__init__(frames, table, end)
        self._disk = disk
        self._slices = BlockSlices()
        self._checkpoint: Step[None] | None = None
        self._direct_refused = False

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: str,
        *,
        volume_id: bytes,
        layer_id: bytes,
        builds_on: bytes,
        image_bytes: int,
        hash_seed: int,
    ) -> OpenPack:
        """Make the file, durable. `builds_on`: a point id, 16 zeros for none. Blocking.

        Raises LayerSpace, FileExistsError, OSError, StoreFlushFailed.
        """
        header = PackHeader(PackKind.BLOCKS, volume_id, layer_id, builds_on, image_bytes, hash_seed)
        file, check = create_file(disk, path, header, direct=True)
        frames = FrameFile(file, layer_id, image_bytes, hash_seed, check)
        return cls(disk, frames, RegionTable(image_bytes), frames.start)

    @classmethod
    def recover(
        cls,
        disk: Disk,
        path: str,
        *,
        volume_id: bytes,
        layer_id: bytes,
        builds_on: bytes,
        image_bytes: int,
        hash_seed: int,
    ) -> OpenPack:
        """Walk what a dead process left, cut behind what counts, make it durable. Blocking.

        Raises LayerDamaged if the header is another's or the medium lost what it had said to hold: the layer is
        dropped then. FileNotFoundError, OSError, StoreFlushFailed.
        """
        header = PackHeader(PackKind.BLOCKS, volume_id, layer_id, builds_on, image_bytes, hash_seed)
        file = open_direct(disk, path) or disk.open(path)
        try:
            file.sync()  # what is read here may be in the page cache only, and is acted upon; so may the name
            disk.sync_dir(os.path.dirname(path))
            found = read_header(file, header)
            if found.builds_on != builds_on:
                raise LayerDamaged(path=path, reason="it builds on another point")
            frames = FrameFile(file, layer_id, image_bytes, hash_seed, found.check)
            table = RegionTable(image_bytes)
            end = walk(frames, lambda head: enter(table, head, hash_seed))
            file.truncate(end.offset)
            file.sync()
        except BaseException:
            file.close()
            raise
        return cls(disk, frames, table, end)

    def begin_session(self, sync_id: bytes) -> None:
        """See IncomingLayer.begin_session. Raises LayerFailed: then the pack must be dropped."""
        self.raise_if_failed()
        try:
            if self._direct_refused:
                self._reopen_buffered()
            self.frames.file.truncate(self.complete.offset)
            self.frames.file.sync()
        except (OSError, StoreFlushFailed) as error:
            raise self.failure(error) from error
        self._checkpoint = None
        self.restart(sync_id)

    def store(self, slot: Slot) -> None:
        """See IncomingLayer.store. After BlockMismatch, LayerSpace or OSError the session is void."""
        seed = self.frames.hash_seed
        verify(slot, self._slices, seed)
        slot.regions = region_rows(slot.head.extents, slot.head.hashes, seed)
        try:
            self.frames.file.write(slot.buffer[: slot.frame_bytes], slot.head.offset)
        except OSError as error:
            if error.errno in SPACE:
                raise LayerSpace(path=self.path) from error
            if error.errno == errno.EINVAL and self.frames.file.direct:
                self._direct_refused = True  # acted upon by begin_session, which comes after this has returned
            raise

    def checkpoint(self) -> Step[None] | None:
        """See IncomingLayer.checkpoint. What is complete is noted before the sync begins."""
        self.raise_if_failed()
        if self._checkpoint is not None and not self._checkpoint.over:
            return self._checkpoint
        noted, session = self.complete, self._session
        if noted.offset <= self.durable_offset:
            return None

        def settle(_: None) -> None:
            if session == self._session:
                self.noted_durable(noted)

        self._checkpoint = Step(self.frames.file.datasync, settle, self.sync_failed, final=True)
        return self._checkpoint

    def seal(self) -> Step[SealReceipt]:
        """See IncomingLayer.seal. What no frame of this sync confirms is not in the layer."""
        self.raise_if_failed()
        assert self.complete == self._cursor, "every admitted frame has landed before the seal"
        return Step(self._write_directory, None, self.sync_failed, final=True)

    def close(self) -> None:
        """Close the file; `recover` opens it again."""
        self.frames.file.close()

    def drop(self) -> None:
        """Close and remove the file, durably. Blocking."""
        self.close()
        self._disk.unlink(self.path)
        self._disk.sync_dir(os.path.dirname(self.path))

    def _write_directory(self) -> SealReceipt:
        """In the pool: nothing is admitted meanwhile."""
        frames = self.frames
        receipt = write_directory(frames, self.table, self.complete, self.sync_id, self.durable_offset)
        frames.file.drop_cache()  # from now on the file is read buffered
        return receipt

    def _reopen_buffered(self) -> None:
        """Direct I/O was refused in mid-file: go on buffered, nothing of the file left in another mode."""
        direct = self.frames.file
        direct.datasync()
        direct.drop_cache()
        buffered: DiskFile = self._disk.open(direct.path)
        direct.close()
        old = self.frames
        self.frames = FrameFile(buffered, old.owner, old.image_bytes, old.hash_seed, old.header_check)
        self._direct_refused = False


def enter(table: RegionTable, head: FrameHead, hash_seed: int) -> None:
    """A frame that was found counts. Raises FrameDamaged if it keeps what is not there."""
    table.enter(region_rows(head.extents, head.hashes, hash_seed), head.offset, head.sync)
