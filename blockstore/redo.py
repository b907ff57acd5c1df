"""RedoPack: the hashes of a sync that is under way, kept apart from the table until its point is known to exist.

It takes the heads of the frames that are sent, as if everything were sent, so that directory and digest are those
of the peer's pack, by the same code. Applied to the table after SEALED, as often as need be: the same entries
come out. A redo of a sync that came to nothing is deleted (`docs/formats.md`, "Redo"). This module must never
touch the table before it is told to.
"""

from __future__ import annotations

import os

from blockstore.disk import Disk
from blockstore.errors import LayerDamaged, LayerSpace
from blockstore.frame import fill_head, parse_head, region_rows
from blockstore.hashes import HashTable
from blockstore.layer import SealReceipt
from blockstore.pack_file import SPACE, create_file, read_header, write_directory
from blockstore.pack_format import NO_POINT, PackHeader, PackKind
from blockstore.pack_regions import RegionTable
from blockstore.pack_walk import FrameFile, directory_head, heads
from blockstore.units import align_up, blocks_in


class RedoPack:
    """Made by `create` to be filled, or by `open` to be applied. All calls are blocking, one at a time."""

    def __init__(self, disk: Disk, frames: FrameFile, builds_on: bytes) -> None:
        self._disk = disk
        self._frames = frames
        self.builds_on = builds_on
        """The point (16 bytes) that the hashes were compared with."""
        self._table = RegionTable(frames.image_bytes)
        self._end = frames.start

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: str,
        *,
        volume_id: bytes,
        sync_id: bytes,
        builds_on: bytes,
        image_bytes: int,
        hash_seed: int,
    ) -> RedoPack:
        """Make the file, durable. Raises LayerSpace, FileExistsError, OSError, StoreFlushFailed."""
        header = PackHeader(PackKind.REDO, volume_id, sync_id, builds_on, image_bytes, hash_seed)
        file, check = create_file(disk, path, header)
        return cls(disk, FrameFile(file, sync_id, image_bytes, hash_seed, check, payload=False), builds_on)

    @classmethod
    def open(cls, disk: Disk, path: str, *, volume_id: bytes, sync_id: bytes, hash_seed: int) -> RedoPack:
        """Open a redo that was sealed. Raises LayerDamaged, FileNotFoundError, OSError."""
        file = disk.open(path)
        try:
            file.sync()  # what a dead process left in the page cache is acted upon
            found = read_header(file, PackHeader(PackKind.REDO, volume_id, sync_id, NO_POINT, 0, hash_seed))
        except BaseException:
            file.close()
            raise
        frames = FrameFile(file, sync_id, found.image_bytes, hash_seed, found.check, payload=False)
        return cls(disk, frames, found.builds_on)

    @property
    def path(self) -> str:
        """The file."""
        return self._frames.file.path

    def append(self, head: bytes | bytearray) -> None:
        """Take in the head of a frame as it travels, in the order of sending. Buffered until `seal`.

        Raises FrameDamaged for a head that is no good; LayerSpace, OSError: then the sync fails.
        """
        frames = self._frames
        parsed = parse_head(memoryview(head), filled=False, image_blocks=blocks_in(frames.image_bytes))
        rows = region_rows(parsed.extents, parsed.hashes, frames.hash_seed)
        raw = bytearray(align_up(len(head)))
        raw[: len(head)] = head
        parsed.seq, parsed.offset, parsed.prev = self._end.seq + 1, self._end.offset, self._end.check
        parsed.owner = parsed.sync = frames.owner
        fill_head(memoryview(raw), parsed)
        self._table.enter(rows, parsed.offset, frames.owner)
        try:
            frames.file.write(raw, parsed.offset)
        except OSError as error:
            if error.errno in SPACE:
                raise LayerSpace(path=self.path) from error
            raise
        self._end = frames.after(parsed)

    def seal(self) -> SealReceipt:
        """Make the redo whole and durable; the digest is what the peer's pack must have.

        Raises LayerSpace, OSError, StoreFlushFailed.
        """
        try:
            return write_directory(self._frames, self._table, self._end, self._frames.owner, 0)
        except OSError as error:
            if error.errno in SPACE:
                raise LayerSpace(path=self.path) from error
            raise

    def apply(self, hashes: HashTable) -> None:
        """Bring the table to this sync's point: data its hashes, zeros the constant, discards unknown.

        The caller binds the table to the point afterwards, which also makes the entries durable. Until then it
        names the parent, which nobody asks for any more. Raises LayerDamaged if the redo is not whole, OSError.
        """
        end = self._frames.start
        for head in heads(self._frames):
            end = self._frames.after(head)
        if directory_head(self._frames, end) is None:
            raise LayerDamaged(path=self.path, reason="its frames do not lead to its directory")
        for head in heads(self._frames):
            hashes.apply(head.extents, head.hashes)

    def close(self) -> None:
        """Close the file."""
        self._frames.file.close()

    def drop(self) -> None:
        """Close and remove the file, durably; a missing file is no error."""
        self.close()
        self._disk.unlink(self.path)
        self._disk.sync_dir(os.path.dirname(self.path))
