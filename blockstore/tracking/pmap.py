"""PagedBitmap: a bitmap in a file of checksummed twin pages, written by `pwrite`, never mapped.

The dirty checkpoint of a tracking and the presence of an overlay are kept so. A page goes to the slot that does
not hold its newest valid version, so a torn write never costs what was there before. Nobody else may write the
file, and a page must never be staged again before the sync of its last write has returned.

Format (`docs/formats.md`, paged bitmap): header of 4 KiB, magic "LWPMAP1\\0"; page i, slot s at
65536 + (i//16)*131072 + s*65536 + (i%16)*4096; 128 bytes of head, then 31 regions of 128 bytes.
"""

from __future__ import annotations

import os.path
import struct
from collections.abc import Iterable, Iterator, Sequence

from xxhash import xxh3_64_intdigest

from blockstore.disk import Disk, DiskFile
from blockstore.errors import LayerDamaged, LeewardError, TrackingLost
from blockstore.units import BLOCK, REGION_BITS_BYTES

KIND_DIRTY, KIND_PRESENCE, KIND_ROLLED = 1, 2, 3
"""What the bits say: changed blocks of a tracking, blocks that an overlay has, blocks above a promoted older point."""

REGIONS_PER_PAGE = 31
ROWS_BYTES = REGIONS_PER_PAGE * REGION_BITS_BYTES
"""Bytes of bits in a page (3,968)."""

Staged = tuple[int, int, bytes]
"""A page number, its offset in the file, its 4,096 bytes."""

_MAGIC = b"LWPMAP1\0"
_VERSION = 1
_HEADER = struct.Struct("<8sHHI16s16sQ")
_PAGE = struct.Struct("<4sHHIIQ16sQ")
_PAGE_MAGIC = b"LWPG"
_PAGE_CHECK_AT = 40
_ROWS_AT = 128
_FIRST_PAGE = 65536
_PAGES_PER_GROUP = 16
_CLEAR = bytes(BLOCK)
_NO_BITS = bytes(BLOCK - _ROWS_AT)


def pages_for(regions: int) -> int:
    """Pages that hold `regions`."""
    return -(-regions // REGIONS_PER_PAGE)


class PagedBitmap:
    """The file. `stage` and `landed` on the owner's loop, `write` in the pool, everything else before it is shared."""

    def __init__(self, file: DiskFile, kind: int, owner: bytes, regions: int) -> None:
        self.file = file
        self.regions = regions
        self._kind = kind
        self._owner = owner
        self._versions: dict[int, int] = {}
        """Page -> its newest version, shifted left, and the slot that holds it."""
        self._staged: set[int] = set()
        self.shown: set[int] = set()
        """Pages of which the newest version has bits."""
        self.torn: set[int] = set()
        """Pages of which `load` found one twin valid and the other not: a torn write, or a newer page gone bad."""

    @classmethod
    def create(
        cls, disk: Disk, path: str, *, kind: int, volume_id: bytes, owner: bytes, regions: int, allocate: bool
    ) -> PagedBitmap:
        """Make the file, its header and size durable; the name is, after `sync_dir`. `allocate`: all pages too.

        Raises FileExistsError; OSError ENOSPC.
        """
        file = disk.open(path, create=True)
        try:
            head = bytearray(BLOCK)
            _HEADER.pack_into(head, 0, _MAGIC, _VERSION, kind, BLOCK, volume_id, owner, 0)
            struct.pack_into("<Q", head, _HEADER.size - 8, xxh3_64_intdigest(head))
            length = _offset(max(0, pages_for(regions) - 1), 1) + BLOCK
            if allocate:
                file.allocate(0, length)
            else:
                file.truncate(length)
            file.write(head, 0)
            file.sync()
            return cls(file, kind, owner, regions)
        except BaseException:
            file.close()
            disk.unlink(path)
            raise

    @classmethod
    def open(cls, disk: Disk, path: str, *, kind: int, volume_id: bytes, owner: bytes, regions: int) -> PagedBitmap:
        """Open it, what is in the page cache synced first. Raises TrackingLost or LayerDamaged, by kind."""
        try:
            file = disk.open(path)
        except FileNotFoundError as error:
            raise _refusal(kind, path, "it is missing") from error
        try:
            file.datasync()
            head = bytearray(file.read(BLOCK, 0))
            if len(head) < BLOCK:
                raise _refusal(kind, path, "it is too short")
            check = struct.unpack_from("<Q", head, _HEADER.size - 8)[0]
            struct.pack_into("<Q", head, _HEADER.size - 8, 0)
            expected = (_MAGIC, _VERSION, kind, BLOCK, volume_id, owner, 0)
            if _HEADER.unpack_from(head) != expected or check != xxh3_64_intdigest(head):
                raise _refusal(kind, path, "its header is damaged or of another volume")
            return cls(file, kind, owner, regions)
        except BaseException:
            file.close()
            raise

    def load(self) -> Iterator[tuple[int, bytes | None]]:
        """(page, its bits) for each page that is not empty, ascending; None: damaged. Blocking, once, after `open`."""
        pages = pages_for(self.regions)
        for page in self._pages_with_data(pages):
            twins = [self._read(page, slot) for slot in (0, 1)]
            valid = [(version, slot, rows) for slot, (version, rows) in enumerate(twins) if rows]
            if valid:
                version, slot, rows = max(valid)
                self._versions[page] = version << 1 | slot
                if rows != _NO_BITS:
                    self.shown.add(page)
                if any(other < 0 for other, _ in twins):
                    self.torn.add(page)
                yield page, rows
            elif any(version < 0 for version, _ in twins):
                yield page, None

    def stage(self, page: int, rows: bytes | bytearray) -> Staged:
        """The next version of a page with `rows` (3,968 bytes), to be written by `write`."""
        assert page not in self._staged, "a page is written again after its sync only"
        self._staged.add(page)
        newest = self._versions.get(page, 1)
        version, slot = (newest >> 1) + 1, (newest & 1) ^ 1
        image = bytearray(BLOCK)
        _PAGE.pack_into(image, 0, _PAGE_MAGIC, _VERSION, self._kind, page, REGIONS_PER_PAGE, version, self._owner, 0)
        image[_ROWS_AT:] = rows
        struct.pack_into("<Q", image, _PAGE_CHECK_AT, xxh3_64_intdigest(image))
        return page, _offset(page, slot), bytes(image)

    def write(self, staged: Sequence[Staged]) -> None:
        """Write staged pages and sync. Blocking. OSError, StoreFlushFailed."""
        for _, offset, image in staged:
            self.file.write(image, offset)
        self.file.datasync()

    def landed(self, staged: Iterable[Staged]) -> None:
        """`write` returned: the next version of these pages goes to the other slot."""
        for page, _, image in staged:
            newest = self._versions.get(page, 1)
            self._versions[page] = ((newest >> 1) + 1) << 1 | ((newest & 1) ^ 1)
            self._staged.discard(page)
            if image.endswith(_NO_BITS):
                self.shown.discard(page)
            else:
                self.shown.add(page)

    def not_landed(self, staged: Iterable[Staged]) -> None:
        """`write` found no space: these pages may be staged again, for the same slot."""
        for page, _, _ in staged:
            self._staged.discard(page)

    def close(self) -> None:
        self.file.close()

    def _pages_with_data(self, pages: int) -> Iterator[int]:
        """Pages of which a slot may hold something; holes and reserved space are left out."""
        end = _offset(max(0, pages - 1), 1) + BLOCK
        group_bytes = 2 * _PAGES_PER_GROUP * BLOCK
        nothing_before = 0
        for offset, length, is_data in self.file.data_ranges(_FIRST_PAGE, end - _FIRST_PAGE):
            if not is_data:
                continue
            first = (offset - _FIRST_PAGE) // group_bytes * _PAGES_PER_GROUP
            last = -(-(offset + length - _FIRST_PAGE) // group_bytes) * _PAGES_PER_GROUP
            yield from range(max(first, nothing_before), min(last, pages))
            nothing_before = max(nothing_before, last)

    def _read(self, page: int, slot: int) -> tuple[int, bytes]:
        """(version, bits) of a twin; (0, b"") if it was never written, (-1, b"") if it is not valid."""
        image = bytearray(self.file.read(BLOCK, _offset(page, slot)))
        if not any(image):
            return 0, b""
        if len(image) < BLOCK:
            return -1, b""
        magic, version, kind, number, count, page_version, owner, check = _PAGE.unpack_from(image)
        struct.pack_into("<Q", image, _PAGE_CHECK_AT, 0)
        known = (magic, version, kind, number, count, owner)
        if known != (_PAGE_MAGIC, _VERSION, self._kind, page, REGIONS_PER_PAGE, self._owner):
            return -1, b""
        return (page_version, bytes(image[_ROWS_AT:])) if check == xxh3_64_intdigest(image) else (-1, b"")


def _offset(page: int, slot: int) -> int:
    group, inside = divmod(page, _PAGES_PER_GROUP)
    return _FIRST_PAGE + group * 131072 + slot * 65536 + inside * BLOCK


def _refusal(kind: int, path: str, reason: str) -> LeewardError:
    name = os.path.basename(path)
    return TrackingLost(path=name, reason=reason) if kind == KIND_DIRTY else LayerDamaged(path=name, reason=reason)
