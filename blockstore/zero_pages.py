"""Which pages of a hash table are all zero blocks without being there: a bit a page, behind the last of them.

A page that is there outranks its bit, so a bit is what a page full of that one hash would be, and no more
(`docs/formats.md`, "Hashes"). This module must never be asked of a page that is there, whole or damaged.
"""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest

from blockstore.disk import DiskFile
from blockstore.units import BLOCK

_HEADER_BYTES = 64
_BITS_BYTES = BLOCK - _HEADER_BYTES
PAGES = _BITS_BYTES * 8
"""Pages of hashes that one page of bits is for: 62 GiB of a volume."""
_HEADER = struct.Struct("<4sHHII16sQ")
_CHECK_AT = _HEADER.size - 8


class ZeroPages:
    """The bits of one table of `pages` pages; they lie in `file` from `offset` on. All but `has` is blocking."""

    def __init__(self, file: DiskFile, offset: int, pages: int, volume_id: bytes) -> None:
        self._file = file
        self._offset = offset
        self._volume_id = volume_id
        self._bits = [0] * -(-pages // PAGES)
        """One large number a page of bits: a volume has few, and ranges of them are set at once."""
        self._changed: set[int] = set()

    def load(self) -> None:
        """What the file has; a page of bits that is not whole has none. Raises OSError."""
        for number in range(len(self._bits)):
            raw = bytearray(self._file.read(BLOCK, self._offset + number * BLOCK))
            self._bits[number] = self._parse(raw, number) if len(raw) == BLOCK else 0

    def has(self, page: int) -> bool:
        """True if the page is all zero blocks when it is not there."""
        number, at = divmod(page, PAGES)
        return bool(self._bits[number] >> at & 1)

    def add(self, page: int, count: int) -> None:
        """Set the bits of `count` pages that are not there any more."""
        self._change(page, count, is_set=True)

    def remove(self, page: int, count: int) -> None:
        """Clear the bits of `count` pages that are there now."""
        self._change(page, count, is_set=False)

    def clear(self) -> None:
        """No bit is set, and the file was cut off before them."""
        self._bits = [0] * len(self._bits)
        self._changed.clear()

    def write(self) -> None:
        """Write what has changed; on the disk with the next sync of the file. Raises OSError."""
        for number in sorted(self._changed):
            raw = bytearray(BLOCK)
            _HEADER.pack_into(raw, 0, b"LWHZ", 1, 0, number, 0, self._volume_id, 0)
            raw[_HEADER_BYTES:] = self._bits[number].to_bytes(_BITS_BYTES, "little")
            struct.pack_into("<Q", raw, _CHECK_AT, xxh3_64_intdigest(raw))
            self._file.write(raw, self._offset + number * BLOCK)
        self._changed.clear()

    def _change(self, page: int, count: int, *, is_set: bool) -> None:
        while count:
            number, at = divmod(page, PAGES)
            part = min(count, PAGES - at)
            mask = ((1 << part) - 1) << at
            old = self._bits[number]
            new = old | mask if is_set else old & ~mask if old else 0
            if new != old:
                self._bits[number] = new
                self._changed.add(number)
            page += part
            count -= part

    def _parse(self, raw: bytearray, number: int) -> int:
        magic, version, zero, found, zeros, owner, check = _HEADER.unpack_from(raw)
        raw[_CHECK_AT : _HEADER.size] = bytes(8)
        if (magic, version, zero, found, zeros, owner) != (b"LWHZ", 1, 0, number, 0, self._volume_id):
            return 0
        if any(raw[_HEADER.size : _HEADER_BYTES]) or xxh3_64_intdigest(raw) != check:
            return 0
        return int.from_bytes(raw[_HEADER_BYTES:], "little")
