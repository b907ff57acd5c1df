"""Digests of ranges, to compare two images of a volume without moving it: both ends reckon them from the bytes.

Digests of chunks first; where two differ, of their blocks. The key is fresh for every comparison, so that one unlucky
pair of blocks cannot hide twice: xxh3-128 under a seed of 64 bits, or a keyed BLAKE2b (RFC 7693) where somebody may
have chosen the bytes. This module must never ask a table of hashes: what is stored about bytes is not the bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from xxhash import xxh3_128_digest

from blockstore.units import BLOCK

KEY_BYTES = 32
DIGEST_BYTES = 16
_PIECE_BYTES = 1 << 20

Read = Callable[[int, memoryview], None]
"""read(offset, buffer): fill it; blocking."""


def digests(read: Read, first: int, count: int, chunk: int, *, size_bytes: int, key: bytes, strong: bool) -> bytes:
    """16 bytes for every `chunk` blocks of the `count` from `first`; the image ends at `size_bytes`. Blocking.

    Raises what `read` does.
    """
    assert chunk * BLOCK <= _PIECE_BYTES, "a chunk is read at once"
    seed = int.from_bytes(key[:8], "little")
    buffer = memoryview(bytearray(_PIECE_BYTES))
    found = bytearray()
    end = min((first + count) * BLOCK, size_bytes)
    step = chunk * BLOCK
    for at in range(first * BLOCK, end, _PIECE_BYTES):
        piece = buffer[: min(_PIECE_BYTES, end - at)]
        read(at, piece)
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            if strong:
                found += hashlib.blake2b(part, digest_size=DIGEST_BYTES, key=key).digest()
            else:
                found += xxh3_128_digest(part, seed)
    return bytes(found)
