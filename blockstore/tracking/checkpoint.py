"""Checkpoint: writes pages of dirty bits to `dirty.pmap`, one step at a time.

The pages are made on the owner's loop from the bits as they are; only writing them is left to the pool. Two
things hang on it: regions may cool once their page is durable, and a range so large that the intent log cannot
name it is written under pages that show every block of it dirty. This module must never stage a page while a
step is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blockstore.errors import TrackingFailed
from blockstore.steps import Step
from blockstore.tracking.pmap import REGIONS_PER_PAGE, PagedBitmap
from blockstore.units import REGION_BITS_BYTES

MAX_PAGES = 256
"""Pages that one step writes while hosts write: 1 MiB."""


class Checkpoint:
    """The pages of one tracking. Everything on the owner's loop."""

    def __init__(
        self, file: PagedBitmap, bits_of: Callable[[int], int], last_bits: int, fail: Callable[[TrackingFailed], None]
    ) -> None:
        self.file = file
        self.busy: Step[None] | None = None
        """The step under way."""
        self.unsaved: set[int] = set()
        """Pages of cold regions with bits that no page on disk has: marks without a write."""
        self.stale: set[int] = set()
        """Pages that show bits of blocks which are dirty no more: after a crash they would be compared for nothing."""
        self.full: set[int] = set()
        """Cold or hot regions whose durable page shows every block dirty, as asked for by `save`."""
        self._bits_of = bits_of
        self._last_bits = last_bits
        self._fail = fail

    def save(self, pages: Iterable[int], then: Callable[[], None] | None = None, full: range = range(0)) -> Step[None]:
        """Write these pages and sync; on the loop after it `then`, and the regions of `full` count as full."""
        assert self.busy is None, "one page step at a time"
        wanted = sorted(pages)
        staged = [self.file.stage(page, self._rows(page)) for page in wanted]
        self.unsaved.difference_update(wanted)
        self.stale.difference_update(wanted)
        file = self.file

        def settle(_: None) -> None:
            file.landed(staged)
            self.busy = None
            self.full.update(full)
            if then is not None:
                then()

        self.busy = Step(lambda: file.write(staged), settle, self._failed)
        return self.busy

    def dropped(self, pages: Iterable[int]) -> None:
        """Bits in these pages are not dirty any more; they are written again in their turn."""
        self.stale.update(self.file.shown.intersection(pages))

    def due(self, most: int) -> list[int]:
        """So many pages at most that the disk should have anew, those with unsaved bits first."""
        found = sorted(self.unsaved)[:most]
        return found + sorted(self.stale - self.unsaved)[: most - len(found)]

    def _rows(self, page: int) -> bytearray:
        rows = bytearray(REGIONS_PER_PAGE * REGION_BITS_BYTES)
        first = page * REGIONS_PER_PAGE
        for inside in range(min(REGIONS_PER_PAGE, self.file.regions - first)):
            bits = self._bits_of(first + inside)
            if bits:
                at = inside * REGION_BITS_BYTES
                rows[at : at + REGION_BITS_BYTES] = bits.to_bytes(REGION_BITS_BYTES, "little")
            if self.full and first + inside in self.full and not self._is_full(first + inside, bits):
                self.full.discard(first + inside)
        return rows

    def _is_full(self, region: int, bits: int) -> bool:
        last = region == self.file.regions - 1
        return bits == (self._last_bits if last else (1 << REGION_BITS_BYTES * 8) - 1)

    def _failed(self, error: Exception) -> None:
        failure = TrackingFailed(path=self.file.file.path, reason=getattr(error, "reason", str(error)))
        self._fail(failure)
        raise failure from error
