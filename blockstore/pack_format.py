"""The bytes of a pack besides its frames of blocks: the header, and the directory that ends it.

`.pack` files hold blocks; `.redo` and `.seed` have the same frames without their payload (`docs/formats.md`,
"Pack"). Pure bytes and arrays: this module must never do I/O.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from blockstore.errors import FrameDamaged, LayerDamaged
from blockstore.frame import (
    DIRECTORY_FRAME,
    EXTENT,
    FrameHead,
    build_head,
    fill_head,
    hash_blocks,
    seed_check,
)
from blockstore.units import BLOCK, align_up

HEADER_BYTES = BLOCK
FIRST_FRAME = HEADER_BYTES
"""Offset of the first frame."""

NO_POINT = bytes(16)
"""In `builds_on`: the layer stands on no point."""

_MAGIC = b"LWPACK1\0"
_VERSION = 1
_HEADER = struct.Struct("<8sHHI16s16s16sQQQ")
_CHECK_AT = _HEADER.size - 8

DIRECTORY_ROW = np.dtype([("region", "<u4"), ("blocks", "<u4"), ("offset", "<u8"), ("digest", "<u8")])
"""A region of a layer: its number, blocks present, offset of its frame, digest."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place between two frames: `seq` and `check` of the frame before it (the header's), and the offset."""

    seq: int
    offset: int
    check: int


class PackKind(IntEnum):
    """What a file of frames is for."""

    BLOCKS = 0
    REDO = 1
    SEED = 2


@dataclass(frozen=True, slots=True)
class PackHeader:
    """What a file of frames is bound to. `owner`: the layer id, sync id or tracking id."""

    kind: PackKind
    volume_id: bytes
    owner: bytes
    builds_on: bytes
    image_bytes: int
    hash_seed: int

    def to_bytes(self) -> bytes:
        """The header, 4096 bytes."""
        raw = bytearray(HEADER_BYTES)
        ids = (self.volume_id, self.owner, self.builds_on)
        _HEADER.pack_into(raw, 0, _MAGIC, _VERSION, self.kind, 0, *ids, self.image_bytes, seed_check(self.hash_seed), 0)
        struct.pack_into("<Q", raw, _CHECK_AT, xxh3_64_intdigest(raw))
        return bytes(raw)


@dataclass(frozen=True, slots=True)
class FoundHeader:
    """A header that was read. `check` is what the first frame names as its `prev`."""

    builds_on: bytes
    image_bytes: int
    check: int


def parse_header(raw: bytes | memoryview, path: str, expects: PackHeader) -> FoundHeader:
    """The header `raw`, bound to what `expects` says. Its `builds_on` may differ: the caller judges it.

    `image_bytes` 0 in `expects`: any.
    Raises LayerDamaged: the header is not whole, of another version, or another file's.
    """
    if len(raw) < HEADER_BYTES:
        raise LayerDamaged(path=path, reason="it has no header")
    fixed = bytearray(raw[:HEADER_BYTES])
    magic, version, kind, zero, volume_id, owner, builds_on, image_bytes, seeded, check = _HEADER.unpack_from(fixed)
    struct.pack_into("<Q", fixed, _CHECK_AT, 0)
    if magic != _MAGIC or zero or xxh3_64_intdigest(fixed) != check or any(fixed[_HEADER.size :]):
        raise LayerDamaged(path=path, reason="its header is not valid")
    if version != _VERSION:
        raise LayerDamaged(path=path, reason=f"its format is version {version}; this program knows {_VERSION}")
    if (kind, volume_id, owner) != (expects.kind, expects.volume_id, expects.owner):
        raise LayerDamaged(path=path, reason="it belongs to another volume or layer")
    if expects.image_bytes not in (0, image_bytes) or seeded != seed_check(expects.hash_seed):
        raise LayerDamaged(path=path, reason="it was made for another image size or hash seed")
    return FoundHeader(builds_on, image_bytes, check)


def build_directory(
    rows: NDArray[Any], at: Mark, *, owner: bytes, sync_id: bytes, durable: int, hash_seed: int
) -> tuple[bytearray, int]:
    """A directory frame to stand at `at`, whole and padded to 4096, and its check; `rows` of DIRECTORY_ROW ascend."""
    payload = rows.astype(DIRECTORY_ROW, copy=False).tobytes()
    padded = bytearray(align_up(len(payload)))
    padded[: len(payload)] = payload
    hashes = hash_blocks(memoryview(padded), hash_seed)
    head = FrameHead(DIRECTORY_FRAME, np.zeros(0, EXTENT), hashes, len(payload))
    head.seq, head.offset, head.durable, head.prev = at.seq + 1, at.offset, durable, at.check
    head.owner, head.sync = owner, sync_id
    frame = bytearray(head.padded_bytes + len(padded))
    frame[: head.wire_bytes] = build_head(head.extents, hashes, len(payload), kind=DIRECTORY_FRAME)
    fill_head(memoryview(frame), head)
    frame[head.padded_bytes :] = padded
    return frame, head.check


def parse_directory(head: FrameHead, payload: memoryview, hash_seed: int) -> NDArray[Any]:
    """The DIRECTORY_ROW array in `payload` (padded to 4096), its hashes checked. Raises FrameDamaged."""
    if head.kind != DIRECTORY_FRAME or len(payload) != align_up(head.payload_bytes):
        raise FrameDamaged(reason="it is not a whole directory")
    if head.payload_bytes % DIRECTORY_ROW.itemsize or (hash_blocks(payload, hash_seed) != head.hashes).any():
        raise FrameDamaged(reason="the hashes of the directory do not fit")
    rows = np.frombuffer(payload[: head.payload_bytes], DIRECTORY_ROW).copy()
    if any(payload[head.payload_bytes :]) or (rows["region"][:-1] >= rows["region"][1:]).any():
        raise FrameDamaged(reason="the directory does not ascend")
    return rows
