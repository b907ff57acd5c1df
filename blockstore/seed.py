"""SeedBase: the first copy of a volume, received straight into its store, for there is no point to protect yet.

Frames go to the base at native offsets. A checkpoint syncs the base, then appends the heads of the frames that
were complete before that to the `.seed` journal, and syncs it: a head there says "this is in the base", so it is
not even written before (`docs/formats.md`, "Seed"). Nothing is ever *kept* from an older sync: a frame that was lost
behind a gap may have changed the base since. This module must never seal a point: the records do.

Direct I/O in the first pass only, which nobody reads: 0.7 x the time of buffered writes; scattered small
writes of the delta behind it would be five times slower so.
"""

from __future__ import annotations

import errno
import os
from typing import TypeVar

from blockstore.disk import Disk, DiskFile
from blockstore.errors import FrameDamaged, LayerSpace, StoreFlushFailed
from blockstore.frame import DATA, DISCARD, KEPT, ZERO, BlockSlices, FrameHead, region_rows
from blockstore.hashes import HashTable
from blockstore.layer import SealReceipt, Slot
from blockstore.pack_file import SPACE, create_file, open_direct, read_header
from blockstore.pack_format import NO_POINT, Mark, PackHeader, PackKind
from blockstore.pack_regions import RegionTable
from blockstore.pack_walk import FrameFile, heads, walk
from blockstore.receiving import Receiving, verify
from blockstore.steps import Step
from blockstore.stores.base import BlockStore
from blockstore.units import BLOCK

T = TypeVar("T")


class SeedBase(Receiving):
    """A base that is being seeded, as an incoming layer. The store stays the caller's."""

    def __init__(self, disk: Disk, store: BlockStore, frames: FrameFile, table: RegionTable, end: Mark) -> None:
        super().__init__(frames, table, end)
        self._disk = disk
        self._store = store
        self._slices = BlockSlices()
        self._direct: DiskFile | None = None
        self._direct_refused = False
        self._first_sync = table.first_sync()
        self._unnoted: list[bytes] = []
        """Padded heads of complete frames that are not in the journal."""
        self._step: Step[None] | None = None

    @classmethod
    def create(
        cls,
        disk: Disk,
        store: BlockStore,
        folder: str,
        *,
        volume_id: bytes,
        owner: bytes,
        image_bytes: int,
        hash_seed: int,
    ) -> SeedBase:
        """Begin a first copy: an empty journal, durable. `owner` (16 bytes) names the copy. Blocking.

        Raises LayerSpace, FileExistsError, OSError, StoreFlushFailed.
        """
        header = PackHeader(PackKind.SEED, volume_id, owner, NO_POINT, image_bytes, hash_seed)
        file, check = create_file(disk, journal_path(folder, owner), header)
        frames = FrameFile(file, owner, image_bytes, hash_seed, check, payload=False)
        return cls(disk, store, frames, RegionTable(image_bytes), frames.start)

    @classmethod
    def recover(
        cls,
        disk: Disk,
        store: BlockStore,
        folder: str,
        *,
        volume_id: bytes,
        owner: bytes,
        image_bytes: int,
        hash_seed: int,
    ) -> SeedBase:
        """Go on with a first copy that a process left: what its journal names is in the base. Blocking.

        Raises LayerDamaged (the copy must begin anew), FileNotFoundError, OSError, StoreFlushFailed.
        """
        path = journal_path(folder, owner)
        file = disk.open(path)
        try:
            store.flush()
            file.sync()
            disk.sync_dir(folder)  # a process that was killed may have made the name and no more
            found = read_header(file, PackHeader(PackKind.SEED, volume_id, owner, NO_POINT, image_bytes, hash_seed))
            frames = FrameFile(file, owner, image_bytes, hash_seed, found.check, payload=False)
            table = RegionTable(image_bytes)
            end = walk(frames, lambda head: _enter(table, head, hash_seed))
            file.truncate(end.offset)
            file.sync()
        except BaseException:
            file.close()
            raise
        return cls(disk, store, frames, table, end)

    def reusable(self) -> dict[int, bytes]:
        """Nothing: see the module."""
        return {}

    def begin_session(self, sync_id: bytes) -> None:
        """See IncomingLayer.begin_session. The first sync writes directly, any other buffered.

        Raises LayerFailed: then the copy must be dropped, and begin anew.
        """
        self.raise_if_failed()
        try:
            self._make_durable(self._unnoted, self.durable_offset)
            self.frames.file.truncate(self.complete.offset)
            self.frames.file.sync()
            self._first_sync = self._first_sync or sync_id
            self._switch(direct=sync_id == self._first_sync and not self._direct_refused)
        except (OSError, StoreFlushFailed) as error:
            raise self.failure(error) from error
        self._unnoted = []
        self._step = None
        self.restart(sync_id)

    def store(self, slot: Slot) -> None:
        """See IncomingLayer.store. After BlockMismatch, LayerSpace or OSError the session is void."""
        seed, head = self.frames.hash_seed, slot.head
        verify(slot, self._slices, seed)
        slot.regions = region_rows(head.extents, head.hashes, seed)
        slot.head_copy = bytes(slot.buffer[: head.padded_bytes])
        try:
            self._write_blocks(head, slot.buffer)
        except OSError as error:
            if error.errno in SPACE:
                raise LayerSpace(path=self._store.path) from error
            if error.errno == errno.EINVAL and self._direct is not None:
                self._direct_refused = True  # acted upon by begin_session, which comes after this has returned
            raise

    def entered(self, slot: Slot) -> None:
        """Its head goes to the journal with the next checkpoint."""
        self._unnoted.append(slot.head_copy)

    def checkpoint(self) -> Step[None] | None:
        """See IncomingLayer.checkpoint. The base first, then the journal."""
        self.raise_if_failed()
        if self._step is not None and not self._step.over:
            return self._step
        if not self._unnoted:
            return None
        self._step = self._checkpoint_step(None)
        return self._step

    def seal(self) -> Step[SealReceipt]:
        """See IncomingLayer.seal. The base has no file of its own: lengths and offsets in the receipt are 0.

        The digest covers what frames of this sync brought.
        """
        self.raise_if_failed()
        assert self.complete == self._cursor, "every admitted frame has landed before the seal"
        assert self._step is None or self._step.over, "no checkpoint runs beside the seal"
        return self._checkpoint_step(self.table.receipt(self.sync_id, length=0, directory_offset=0, directory_check=0))

    def apply_hashes(self, hashes: HashTable) -> None:
        """Put the hashes of all frames into the table, in order; the caller binds it to the point. Blocking."""
        for head in heads(self.frames):
            hashes.apply(head.extents, head.hashes)

    def close(self) -> None:
        """Close the journal; `recover` opens it again. The store stays open."""
        self.frames.file.close()
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    def drop(self) -> None:
        """Close and remove the journal, durably: what is in the base stands for nothing. Blocking."""
        self.close()
        self._disk.unlink(self.path)
        self._disk.sync_dir(os.path.dirname(self.path))

    def _checkpoint_step(self, result: T) -> Step[T]:
        """A step that makes what is complete now durable, and has `result`."""
        noted, session, unnoted, at = self.complete, self._session, list(self._unnoted), self.durable_offset

        def work() -> T:
            self._make_durable(unnoted, at)
            return result

        def settle(_: T) -> None:
            if session == self._session:
                del self._unnoted[: len(unnoted)]
                self.noted_durable(noted)

        return Step(work, settle, self.sync_failed, final=True)

    def _make_durable(self, unnoted: list[bytes], at: int) -> None:
        """The base, then the heads of what is in it, from `at` on in the journal. Blocking."""
        self._store.flush()
        if unnoted:
            self.frames.file.write(b"".join(unnoted), at)
            self.frames.file.datasync()

    def _write_blocks(self, head: FrameHead, buffer: memoryview) -> None:
        """Every extent to its own place in the base."""
        at = head.padded_bytes
        for first, count, kind in head.extents.tolist():
            offset, length = first * BLOCK, count * BLOCK
            if kind == DATA:
                self._write(buffer[at : at + length], offset)
                at += length
            elif kind == ZERO:
                self._store.zero(offset, length)
            elif kind == DISCARD:
                self._store.discard(offset, length)

    def _write(self, data: memoryview, offset: int) -> None:
        """Directly where that is in force and the store has whole blocks; its short tail never is."""
        if self._direct is None:
            self._store.write(data, offset)
            return
        whole = min(len(data), self._store.size_bytes // BLOCK * BLOCK - offset)
        if whole > 0:
            self._direct.write(data[:whole], offset)
        if whole < len(data):
            self._store.write(data[max(0, whole) :], offset + max(0, whole))

    def _switch(self, *, direct: bool) -> None:
        """One way of writing the base at a time, and nothing of the other left. Nothing is in flight. Blocking."""
        if direct == (self._direct is not None):
            return
        self._store.flush()
        self._store.drop_cache()
        if direct:
            self._direct = open_direct(self._disk, self._store.path)
            self._direct_refused = self._direct is None
        elif self._direct is not None:
            self._direct.close()
            self._direct = None

    def _check_kept(self, head: FrameHead) -> None:
        if (head.extents["kind"] == KEPT).any():
            raise FrameDamaged(reason="nothing can be kept in a first copy")


def journal_path(folder: str, owner: bytes) -> str:
    """Where the journal of the first copy `owner` lies."""
    return f"{folder}/{owner.hex()}.seed"


def _enter(table: RegionTable, head: FrameHead, hash_seed: int) -> None:
    table.enter(region_rows(head.extents, head.hashes, hash_seed), head.offset, head.sync)
