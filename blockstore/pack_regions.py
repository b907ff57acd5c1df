"""The directory in memory of a pack that grows: where each region's newest frame is, and what it digests to.

Arrays over all regions of the image, untouched pages of which cost nothing: 32 bytes a region that is here,
8 MiB for a TiB. Frames must enter in order of seq. This module must never do I/O.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockstore.errors import FrameDamaged
from blockstore.frame import LayerDigest
from blockstore.layer import SealReceipt
from blockstore.pack_format import DIRECTORY_ROW
from blockstore.units import BLOCK, regions_in


class RegionTable:
    """Regions of the frames that count, each under the sync that confirmed it last."""

    def __init__(self, image_bytes: int) -> None:
        regions = regions_in(image_bytes)
        # np.zeros maps fresh memory for a large array: a region that is never named costs nothing.
        self._offset = np.zeros(regions, np.uint64)
        self._digest = np.zeros(regions, np.uint64)
        self._blocks = np.zeros(regions, np.uint32)
        self._data = np.zeros(regions, np.uint32)
        self._sync = np.zeros(regions, np.uint32)
        self._syncs: dict[bytes, int] = {}
        self.entered_blocks = 0
        """Data blocks of all frames that count: a region that came twice counts twice."""

    def has(self, regions: NDArray[Any]) -> bool:
        """True if every one of `regions` has blocks here."""
        return bool(self._offset[regions].all())

    def enter(self, rows: NDArray[Any], offset: int, sync_id: bytes) -> None:
        """A frame at `offset` counts: `rows` of REGION_ROW. Kept regions are confirmed, others replaced.

        Raises FrameDamaged if a region is kept that has no blocks here.
        """
        number = self._syncs.setdefault(sync_id, len(self._syncs) + 1)
        kept = rows["kept"]
        if kept.any():
            if not self.has(rows["region"][kept]):
                raise FrameDamaged(reason="a kept region has no blocks here")
            self._sync[rows["region"][kept]] = number
            rows = rows[~kept]
        regions = rows["region"]
        self._offset[regions] = offset
        self._digest[regions] = rows["digest"]
        self._blocks[regions] = rows["blocks"]
        self._data[regions] = rows["data"]
        self._sync[regions] = number
        self.entered_blocks += int(rows["data"].sum(dtype=np.uint64))

    def first_sync(self) -> bytes:
        """The first sync that a frame was entered under; empty if there is none."""
        return next(iter(self._syncs), b"")

    def confirmed(self, sync_id: bytes) -> dict[int, bytes]:
        """Region -> digest (8 bytes) of what frames of this sync confirm."""
        return self._digests(self._confirmed(sync_id))

    def others(self, sync_id: bytes) -> dict[int, bytes]:
        """Region -> digest (8 bytes) of what is here under other syncs only."""
        number = self._syncs.get(sync_id, 0)
        return self._digests(np.flatnonzero((self._sync != 0) & (self._sync != number)))

    def directory(self, sync_id: bytes) -> NDArray[Any]:
        """DIRECTORY_ROW of what this sync confirms, ascending."""
        regions = self._confirmed(sync_id)
        rows = np.zeros(len(regions), DIRECTORY_ROW)
        rows["region"] = regions
        rows["blocks"] = self._blocks[regions]
        rows["offset"] = self._offset[regions]
        rows["digest"] = self._digest[regions]
        return rows

    def receipt(self, sync_id: bytes, *, length: int, directory_offset: int, directory_check: int) -> SealReceipt:
        """What is confirmed, as the receipt of a seal."""
        rows = self.directory(sync_id)
        return SealReceipt(
            length_bytes=length,
            directory_offset=directory_offset,
            directory_check=directory_check.to_bytes(8, "little"),
            blocks=int(rows["blocks"].sum(dtype=np.uint64)),
            payload_bytes=int(self._data[rows["region"]].sum(dtype=np.uint64)) * BLOCK,
            digest=digest_of(rows),
        )

    def _confirmed(self, sync_id: bytes) -> NDArray[np.int64]:
        number = self._syncs.get(sync_id, 0)
        return np.flatnonzero(self._sync == number) if number else np.zeros(0, np.int64)

    def _digests(self, regions: NDArray[np.int64]) -> dict[int, bytes]:
        raw = self._digest[regions].astype("<u8").tobytes()
        return {region: raw[8 * at : 8 * at + 8] for at, region in enumerate(regions.tolist())}


def digest_of(rows: NDArray[Any]) -> bytes:
    """The layer's digest (16 bytes) of DIRECTORY_ROW, ascending."""
    packed = np.zeros(len(rows), np.dtype([("region", "<u4"), ("blocks", "<u4"), ("digest", "<u8")]))
    for name in ("region", "blocks", "digest"):
        packed[name] = rows[name]
    digest = LayerDigest()
    digest.add_rows(packed.tobytes())
    return digest.digest()
