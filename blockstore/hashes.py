"""HashTable: the hash of every block of a volume as of one point, in a paged file.

0 is "unknown", and so is every entry of a page that is missing or fails its check: a lost hash costs a block on
the wire, a stale one would lose a change. A page of nothing but zero blocks is a bit (`zero_pages`), so that the table
is as sparse as the volume. So the table names the point that it stands for, and names none
while it is being changed (`docs/formats.md`, "Hashes"). Pages are read and written, never mapped; all calls but
the look at `point` are blocking, and one thread changes the table at a time.
"""

from __future__ import annotations

import errno
import os
import struct

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from blockstore.disk import Disk, DiskFile
from blockstore.frame import (
    DATA,
    DISCARD,
    EXTENT,
    ZERO,
    Extents,
    Hashes,
    clip_extents,
    parse_head,
    seed_check,
    spread,
    zero_hash,
)
from blockstore.units import BLOCK, blocks_in
from blockstore.zero_pages import ZeroPages

NO_POINT = bytes(16)
ENTRIES = 504
"""Hashes in a page."""
FIRST_PAGE = 65536
_PAGE_HEADER = 64
_BATCH_PAGES = 256
_MISSING = bytes(BLOCK)

_MAGIC = b"LWHASH1\0"
_VERSION = 1
_HEADER = struct.Struct("<8sHHI16s16sQ16sQ")
_PAGE = struct.Struct("<4sHHII16sQ")
_PAGE_CHECK_AT = _PAGE.size - 8


class HashTable:
    """The hashes of one volume. Made by `open`."""

    def __init__(self, file: DiskFile, volume_id: bytes, hash_seed: int, size_bytes: int) -> None:
        self.file = file
        self.volume_id = volume_id
        self.hash_seed = hash_seed
        self.blocks = blocks_in(size_bytes)
        self.point = NO_POINT
        """The point (16 bytes) that the entries stand for; zeros: none can be told."""
        self.reset = False
        """True if there was a file that could not be used: everything is unknown."""
        self._zero = zero_hash(hash_seed)
        pages = -(-self.blocks // ENTRIES)
        self._zero_pages = ZeroPages(file, FIRST_PAGE + pages * BLOCK, pages, volume_id)

    @classmethod
    def open(cls, disk: Disk, path: str, *, volume_id: bytes, hash_seed: int, size_bytes: int) -> HashTable:
        """Open the table; made when it is missing, and made new when it is another's. Blocking. Raises OSError."""
        existed = disk.exists(path)
        if existed:
            file = disk.open(path)
            table = cls(file, volume_id, hash_seed, size_bytes)
            if table._read_header():
                table._zero_pages.load()
                return table
            file.close()
            disk.unlink(path)
        table = cls(disk.open(path, create=True), volume_id, hash_seed, size_bytes)
        table.reset = existed
        table._write_header()
        table.file.sync()
        disk.sync_dir(os.path.dirname(path))
        return table

    def lookup(self, first: int, count: int, point: bytes | None = None) -> Hashes:
        """The hashes of `count` blocks from `first`, 0 where unknown; all 0 if `point` is given and another's."""
        if point is not None and (point != self.point or point == NO_POINT):
            return np.zeros(count, np.uint64)
        found = np.zeros(count, np.uint64)
        done = 0
        while done < count:
            page, inside = divmod(first + done, ENTRIES)
            pages = min(-(-(inside + count - done) // ENTRIES), _BATCH_PAGES)
            entries = self._read(page, pages)[1].reshape(-1)[inside : inside + count - done]
            found[done : done + len(entries)] = entries
            done += len(entries)
        return found

    def store(self, first: int, hashes: Hashes) -> None:
        """Set the entries from `first` on, buffered until `flush`. Raises OSError."""
        done = 0
        while done < len(hashes):
            page, inside = divmod(first + done, ENTRIES)
            pages = min(-(-(inside + len(hashes) - done) // ENTRIES), _BATCH_PAGES)
            raw, entries = self._read(page, pages)
            flat = entries.reshape(-1).copy()
            part = hashes[done : done + len(flat) - inside]
            flat[inside : inside + len(part)] = part
            entries[:] = flat.reshape(pages, ENTRIES)
            self._write(page, raw)
            done += len(part)

    def forget(self, first: int, count: int) -> None:
        """The entries are unknown from now on, buffered until `flush`."""
        for at in range(first, first + count, _BATCH_PAGES * ENTRIES):
            self.store(at, np.zeros(min(_BATCH_PAGES * ENTRIES, first + count - at), np.uint64))

    def forget_all(self) -> None:
        """Every entry is unknown and no point named, durably. Raises OSError, StoreFlushFailed."""
        self.bind(NO_POINT)
        self.file.truncate(FIRST_PAGE)
        self._zero_pages.clear()
        self.flush()

    def store_head(self, head: bytes | bytearray) -> None:
        """`apply` what the head of a frame as it travels says. Raises FrameDamaged."""
        parsed = parse_head(memoryview(head), filled=False, image_blocks=self.blocks)
        self.apply(parsed.extents, parsed.hashes)

    def apply(self, extents: Extents, hashes: Hashes) -> None:
        """Set what a frame says: data its hashes, zeros their hash, what was discarded unknown. Kept: nothing."""
        at = 0
        extents = self._without_long_zeros(extents)
        if not len(extents):
            return
        pieces, region = clip_extents(extents)
        starts = np.flatnonzero(np.diff(region, prepend=-1)).tolist()
        for low, high in zip(starts, [*starts[1:], len(pieces)], strict=True):
            part = pieces[low:high]
            base = int(part["first"][0])
            entries = self.lookup(base, int(part["first"][-1] + part["count"][-1]) - base)
            for kind in np.unique(part["kind"]).tolist():
                blocks = spread(part, kind) - base
                if kind == DATA:
                    entries[blocks] = hashes[at : at + len(blocks)]
                    at += len(blocks)
                elif kind <= DISCARD:
                    entries[blocks] = 0 if kind == DISCARD else self._zero
            self.store(base, entries)

    def _without_long_zeros(self, extents: Extents) -> Extents:
        """Set whole pages of zero blocks, and return the extents that are left: the ends of such runs are."""
        long = (extents["kind"] == ZERO) & (extents["count"] >= 2 * ENTRIES)
        if not long.any():
            return extents
        left: list[tuple[int, int, int]] = []
        for (first, count, kind), is_long in zip(extents.tolist(), long.tolist(), strict=True):
            if not is_long:
                left.append((first, count, kind))
                continue
            end = first + count
            low, high = -(-first // ENTRIES), -(-end // ENTRIES) if end == self.blocks else end // ENTRIES
            self._store_zero_pages(low, high - low)
            left += [(first, low * ENTRIES - first, kind)] if low * ENTRIES > first else []
            left += [(high * ENTRIES, end - high * ENTRIES, kind)] if high * ENTRIES < end else []
        return np.array(left, EXTENT)

    def _store_zero_pages(self, page: int, count: int) -> None:
        try:
            self.file.punch(FIRST_PAGE + page * BLOCK, count * BLOCK)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            for at in range(page, page + count, _BATCH_PAGES):
                pages = min(_BATCH_PAGES, page + count - at)
                self.store(at * ENTRIES, np.full(pages * ENTRIES, self._zero, np.uint64))
            return
        self._zero_pages.add(page, count)

    def flush(self) -> None:
        """What was stored is on the disk. Raises StoreFlushFailed, OSError."""
        self._zero_pages.write()
        self.file.datasync()

    def bind(self, point: bytes) -> None:
        """The entries stand for `point` (NO_POINT: for none), durably, and whatever was stored before with it."""
        self.flush()
        if point != self.point:
            self.point = NO_POINT
            self._write_header(point)
            self.flush()
            self.point = point

    def close(self) -> None:
        """Close the file; what was not flushed may be unknown after a power loss."""
        self.file.close()

    def _read_header(self) -> bool:
        raw = bytearray(self.file.read(BLOCK, 0))
        if len(raw) < BLOCK:
            return False
        magic, version, kind, page, volume_id, owner, seeded, point, check = _HEADER.unpack_from(raw)
        struct.pack_into("<Q", raw, _HEADER.size - 8, 0)
        whole = magic == _MAGIC and version == _VERSION and not kind and page == BLOCK
        if not whole or xxh3_64_intdigest(raw) != check or any(raw[_HEADER.size :]):
            return False
        self.point = point
        return (volume_id, owner, seeded) == (self.volume_id, self.volume_id, seed_check(self.hash_seed))

    def _write_header(self, point: bytes = NO_POINT) -> None:
        raw = bytearray(BLOCK)
        ids = (self.volume_id, self.volume_id, seed_check(self.hash_seed), point)
        _HEADER.pack_into(raw, 0, _MAGIC, _VERSION, 0, BLOCK, *ids, 0)
        struct.pack_into("<Q", raw, _HEADER.size - 8, xxh3_64_intdigest(raw))
        self.file.write(raw, 0)

    def _read(self, page: int, pages: int) -> tuple[memoryview, NDArray[np.uint64]]:
        """`pages` raw pages from `page`, and their entries (an array upon them), zero in pages that are not whole."""
        raw = memoryview(bytearray(pages * BLOCK))
        self.file.read_into(raw, FIRST_PAGE + page * BLOCK)
        entries = np.frombuffer(raw, np.uint64).reshape(pages, BLOCK // 8)[:, _PAGE_HEADER // 8 :]
        for at in range(pages):
            one = raw[at * BLOCK : (at + 1) * BLOCK]
            if self._zero_pages.has(page + at) and bytes(one) == _MISSING:
                entries[at] = self._zero
            elif not self._is_whole(one, page + at):
                entries[at] = 0
        return raw, entries

    def _is_whole(self, raw: memoryview, page: int) -> bool:
        """True if the page is valid; its check is zero afterwards."""
        magic, version, zero, number, zeros, owner, check = _PAGE.unpack_from(raw)
        if (magic, version, zero, number, zeros, owner) != (b"LWHP", _VERSION, 0, page, 0, self.volume_id):
            return False
        raw[_PAGE_CHECK_AT : _PAGE.size] = bytes(8)
        return bool(xxh3_64_intdigest(raw) == check)

    def _write(self, page: int, raw: memoryview) -> None:
        for at in range(len(raw) // BLOCK):
            one = raw[at * BLOCK : (at + 1) * BLOCK]
            one[:_PAGE_HEADER] = bytes(_PAGE_HEADER)
            _PAGE.pack_into(one, 0, b"LWHP", _VERSION, 0, page + at, 0, self.volume_id, 0)
            struct.pack_into("<Q", one, _PAGE_CHECK_AT, xxh3_64_intdigest(one))
        self.file.write(raw, FIRST_PAGE + page * BLOCK)
        self._zero_pages.remove(page, len(raw) // BLOCK)
