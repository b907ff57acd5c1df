"""SealedPack: a layer that is whole, read through its directory.

In memory it is one offset per region; everything else is read from the head of the frame that the directory
names (`docs/formats.md`, "Reading"). A lost directory is made again by the walk and must give the digest that
the records have. Sealed means immutable: this module must never write to a pack.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockstore.disk import Disk, DiskFile
from blockstore.errors import FrameDamaged, LayerDamaged
from blockstore.frame import (
    DATA,
    KEPT,
    MAX_HEAD_BYTES,
    Extents,
    FrameHead,
    Hashes,
    clip_extents,
    head_bytes,
    parse_head,
    region_rows,
    spread,
)
from blockstore.layer import SLOT_ABSENT, SLOT_ZERO, Readers, SealReceipt
from blockstore.pack_file import read_header
from blockstore.pack_format import NO_POINT, PackHeader, PackKind, parse_directory
from blockstore.pack_regions import RegionTable, digest_of
from blockstore.pack_walk import FrameFile, heads
from blockstore.units import BLOCK, BLOCKS_PER_REGION, align_up, regions_in


@dataclass(frozen=True, slots=True)
class RegionPart:
    """What a layer has of one region: extents cut to it, a hash per data block, the slot of the first of these."""

    region: int
    extents: Extents
    hashes: Hashes
    slot: int


class SealedPack(Readers):
    """An immutable pack. See `Layer`."""

    def __init__(self, disk: Disk, frames: FrameFile, rows: NDArray[Any]) -> None:
        super().__init__()
        self._disk = disk
        self._frames = frames
        self.layer_id = frames.owner
        self.image_bytes = frames.image_bytes
        self.file: DiskFile = frames.file
        self._offsets = np.zeros(regions_in(frames.image_bytes), np.uint64)
        self._offsets[rows["region"]] = rows["offset"]
        self._last: FrameHead | None = None

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: str,
        *,
        volume_id: bytes,
        layer_id: bytes,
        hash_seed: int,
        image_bytes: int,
        receipt: SealReceipt | None,
    ) -> SealedPack:
        """Open the file and read its directory; without a good one, and a `receipt` or not, walk it. Blocking.

        Raises LayerDamaged (also for a file that is lost or short), OSError.
        """
        header = PackHeader(PackKind.BLOCKS, volume_id, layer_id, NO_POINT, image_bytes, hash_seed)
        try:
            file = disk.open(path, write=False)
        except FileNotFoundError as error:
            raise LayerDamaged(path=path, reason="the file is missing") from error
        try:
            found = read_header(file, header)
            if receipt is not None and file.size() < receipt.length_bytes:
                raise LayerDamaged(path=path, reason=f"{file.size()} of {receipt.length_bytes} bytes are left")
            frames = FrameFile(file, layer_id, image_bytes, hash_seed, found.check)
            rows = _read_directory(frames, receipt) if receipt is not None else None
            if rows is None:
                rows = _walked_directory(frames, receipt)
        except BaseException:
            file.close()
            raise
        return cls(disk, frames, rows)

    def has_region(self, region: int) -> bool:
        """See Layer.has_region."""
        return region < len(self._offsets) and bool(self._offsets[region])

    def regions(self) -> Iterator[int]:
        """The regions that the layer has blocks of, ascending."""
        return iter(np.flatnonzero(self._offsets).tolist())

    def part(self, region: int) -> RegionPart:
        """What the layer has of a region that it has. Blocking. Raises LayerDamaged, OSError."""
        offset = int(self._offsets[region])
        head = self._last
        if head is None or head.offset != offset:
            try:
                head = self._frames.read_head(offset, memoryview(bytearray(MAX_HEAD_BYTES)))
            except FrameDamaged as error:
                raise LayerDamaged(path=self.file.path, reason=f"the frame at {offset}: {error.reason}") from error
            self._last = head  # neighbouring regions often share a frame; one assignment, safe between threads
        extents, of_region = clip_extents(head.extents)
        here = of_region == region
        mine = extents[here]
        if not len(mine) or (mine["kind"] == KEPT).any():
            raise LayerDamaged(path=self.file.path, reason=f"the frame at {offset} has no blocks of region {region}")
        data = np.where(extents["kind"] == DATA, extents["count"], 0)
        before = int(data[: int(np.flatnonzero(here)[0])].sum(dtype=np.uint64))
        count = int(data[here].sum(dtype=np.uint64))
        slot = (offset + head.padded_bytes) // BLOCK + before
        return RegionPart(region, mine, head.hashes[before : before + count], slot)

    def slots(self, region: int) -> NDArray[np.uint64]:
        """See Layer.slots."""
        slots = np.full(BLOCKS_PER_REGION, SLOT_ABSENT, np.uint64)
        if self.has_region(region):
            part = self.part(region)
            base = region * BLOCKS_PER_REGION
            for kind in np.unique(part.extents["kind"]).tolist():
                blocks = spread(part.extents, kind) - base
                slots[blocks] = SLOT_ZERO if kind != DATA else np.arange(part.slot, part.slot + len(blocks))
        return slots

    def close(self) -> None:
        """See Layer.close."""
        self.file.close()

    def drop(self) -> None:
        """Close and remove the file, durably; again after a crash: no error. Blocking."""
        self.close()
        self._disk.unlink(self.file.path)
        self._disk.sync_dir(os.path.dirname(self.file.path))


def _read_directory(frames: FrameFile, receipt: SealReceipt) -> NDArray[Any] | None:
    """The directory that the receipt names; None if it is not whole or not that one."""
    first = memoryview(bytearray(BLOCK))
    frames.file.read_into(first, receipt.directory_offset)
    try:
        length = head_bytes(first)
        if receipt.directory_offset + length > receipt.length_bytes:
            return None
        raw = memoryview(bytearray(length))
        frames.file.read_into(raw, receipt.directory_offset)
        head = parse_head(raw, filled=True)
        if head.check != int.from_bytes(receipt.directory_check, "little"):
            return None
        payload = memoryview(bytearray(align_up(head.payload_bytes)))
        frames.file.read_into(payload, receipt.directory_offset + length)
        rows = parse_directory(head, payload, frames.hash_seed)
    except FrameDamaged:  # it is made again by the walk
        return None
    return rows


def _walked_directory(frames: FrameFile, receipt: SealReceipt | None) -> NDArray[Any]:
    """The directory made again from the heads: what the sync of the last frame confirmed. Blocking."""
    table = RegionTable(frames.image_bytes)
    sync_id = bytes(16)
    for head in heads(frames):
        try:
            table.enter(region_rows(head.extents, head.hashes, frames.hash_seed), head.offset, head.sync)
        except FrameDamaged:  # it keeps what is not there: no frame that counted, nor is any after it
            break
        sync_id = head.sync
    rows = table.directory(sync_id)
    if receipt is not None and receipt.blocks == 0:
        rows = rows[:0]
    if receipt is not None and digest_of(rows) != receipt.digest:
        raise LayerDamaged(path=frames.file.path, reason="its directory is lost, and its frames are not all there")
    return rows
