"""Making the files of a tracking, and reading them again after a stop, a kill or a power cut.

What a restart believes (`docs/formats.md`, 2.1): a clean record, if the store still looks as it did: the pages. Else
live maps that a killed process left, if all of them are there and trusted. Else the pages and every block of every
hot region, all of them suspect. No valid record: tracking is lost. This module must never act on bytes of an
earlier process before they were synced, and never empty the hot set.
"""

from __future__ import annotations

import os.path
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from blockstore.blockset import RegionBits
from blockstore.disk import Disk
from blockstore.errors import TrackingFailed, TrackingLost
from blockstore.tracking.bitmap import LiveMap, LiveName
from blockstore.tracking.intent import IntentLog
from blockstore.tracking.pmap import KIND_DIRTY, REGIONS_PER_PAGE, ROWS_BYTES, PagedBitmap, pages_for
from blockstore.tracking.tracker import ChangeTracker
from blockstore.units import BLOCKS_PER_REGION, REGION_BITS_BYTES, WHOLE_REGION, blocks_in, regions_in, run_bits

UNTRUSTED_WRITES = 1 << 32
"""What the counter of writes jumps by when it cannot be known: no token from before matches any more."""


@dataclass(frozen=True, slots=True)
class TrackingPlace:
    """Where the files of one tracking lie. `live_folder` is on tmpfs, or None."""

    disk: Disk
    folder: str
    live_folder: str | None
    volume_id: bytes
    tracking_id: bytes
    size_bytes: int

    @property
    def intent_path(self) -> str:
        return f"{self.folder}/intent.{self.tracking_id.hex()}"

    @property
    def dirty_path(self) -> str:
        return f"{self.folder}/dirty.{self.tracking_id.hex()}.pmap"

    @property
    def regions(self) -> int:
        return regions_in(self.size_bytes)

    def whole(self, region: int) -> int:
        """All blocks of a region, fewer in the last."""
        blocks = blocks_in(self.size_bytes) - region * BLOCKS_PER_REGION
        return WHOLE_REGION if blocks >= BLOCKS_PER_REGION else run_bits(0, blocks)

    def live_paths(self) -> list[str]:
        """All live maps of this tracking that are there, of whatever nonce."""
        if self.live_folder is None:
            return []
        start = f"{self.tracking_id.hex()}."
        names = self.disk.list(self.live_folder)
        return [f"{self.live_folder}/{name}" for name in names if name.startswith(start) and name.endswith(".live")]


@dataclass(frozen=True, slots=True)
class Found:
    """What a restart found. `lost`: why nothing could be believed, so that every block counts as changed."""

    tracker: ChangeTracker
    nonce: bytes
    suspect_blocks: int
    lost: str
    writes: int


def make_tracking(place: TrackingPlace, *, all_dirty: bool) -> None:
    """Make the files of a new tracking, durable. Blocking. Raises FileExistsError; OSError ENOSPC; TrackingFailed.

    The log comes last: without it tracking is lost, so pages that a crash left half written are never believed.
    """
    disk = place.disk
    disk.make_dir(place.folder)
    pages = PagedBitmap.create(
        disk,
        place.dirty_path,
        kind=KIND_DIRTY,
        volume_id=place.volume_id,
        owner=place.tracking_id,
        regions=place.regions,
        allocate=True,
    )
    try:
        if all_dirty:
            staged = [pages.stage(page, _page_of(place, page)) for page in range(pages_for(place.regions))]
            pages.write(staged)
    finally:
        pages.close()
    IntentLog.create(disk, place.intent_path, volume_id=place.volume_id, owner=place.tracking_id).close()
    disk.sync_dir(place.folder)


def drop_tracking(place: TrackingPlace) -> None:
    """Remove the files of a tracking that no row names any more. Blocking; may be repeated."""
    for path in (place.intent_path, place.dirty_path, *place.live_paths()):
        place.disk.unlink(path)
    place.disk.sync_dir(place.folder)


def open_tracking(
    place: TrackingPlace,
    *,
    nonce: bytes,
    clean: bool,
    pending: bool,
    fresh: bool,
    writes: int,
    fail: Callable[[TrackingFailed], None],
) -> Found:
    """Open a tracking and make the maps of this run, under a new nonce. Blocking. Raises OSError.

    `nonce` is what the database holds, `clean` that the store looks as at the clean stop the database knows,
    `pending` that the outcome of a sync is unknown, `fresh` that this process made the files and nobody wrote since.
    """
    try:
        return _open(place, nonce, clean=clean, pending=pending, fresh=fresh, writes=writes, fail=fail)
    except TrackingLost as error:
        lost = error.message
    # Tracking starts afresh in new files. Maps go first: none of an earlier run may speak for the new files.
    drop_tracking(place)
    make_tracking(place, all_dirty=True)
    writes += UNTRUSTED_WRITES
    found = _open(place, bytes(16), clean=False, pending=False, fresh=True, writes=writes, fail=fail)
    return Found(found.tracker, found.nonce, blocks_in(place.size_bytes), lost, writes)


def _open(
    place: TrackingPlace,
    nonce: bytes,
    *,
    clean: bool,
    pending: bool,
    fresh: bool,
    writes: int,
    fail: Callable[[TrackingFailed], None],
) -> Found:
    log = IntentLog.open(place.disk, place.intent_path, volume_id=place.volume_id, owner=place.tracking_id)
    pages = None
    try:
        pages = PagedBitmap.open(
            place.disk,
            place.dirty_path,
            kind=KIND_DIRTY,
            volume_id=place.volume_id,
            owner=place.tracking_id,
            regions=place.regions,
        )
        if log.newest.is_clean and not clean:
            raise TrackingLost(path=os.path.basename(place.intent_path), reason="the store was written while stopped")
        return _Opening(place, log, pages, pending=pending, fail=fail).run(nonce, fresh=fresh, writes=writes)
    except BaseException:
        log.close()
        if pages is not None:
            pages.close()
        raise


class _Opening:
    """One opening: from what lies there to the maps of this run."""

    def __init__(
        self,
        place: TrackingPlace,
        log: IntentLog,
        pages: PagedBitmap,
        *,
        pending: bool,
        fail: Callable[[TrackingFailed], None],
    ) -> None:
        self._place = place
        self._log = log
        self._pages = pages
        self._pending = pending
        self._fail = fail
        self._saved: dict[int, bytes] = {}

    def run(self, nonce: bytes, *, fresh: bool, writes: int) -> Found:
        place = self._place
        for page, rows in self._pages.load():
            # A page with one bad twin is a torn write or a newer version gone bad: nobody can tell, so all of it.
            trusted = rows is not None and page not in self._pages.torn
            self._saved[page] = rows if rows is not None and trusted else bytes(_page_of(place, page))
        paths = place.live_paths()
        named = (LiveMap.open(place.disk, path, place.regions, place.volume_id, place.tracking_id) for path in paths)
        there = [bits for bits in named if bits is not None]
        epoch = 1 + max((bits.name.epoch for bits in there), default=0)
        old = [bits for bits in there if bits.name.nonce == nonce]
        trusted = _is_complete(old)
        fresh_nonce = secrets.token_bytes(16)
        current = frozen = None
        try:
            frozen = self._make(fresh_nonce, epoch) if trusted and self._pending else None
            current = self._make(fresh_nonce, epoch + 1)
            if frozen is not None:
                frozen.freeze()
                current.oldest = epoch
            if trusted:
                needed = _newest(old).oldest
                for bits in (bits for bits in old if bits.name.epoch >= needed):  # older ones were merged or dropped
                    (frozen if frozen is not None and bits.is_frozen else current).merge(bits)
                writes = max(writes, *(bits.writes[0] for bits in old))
            if not trusted or self._log.newest.is_clean:
                self._add_saved(current)
            suspect = 0
            if not trusted and not fresh and not self._log.newest.is_clean:
                writes += UNTRUSTED_WRITES
                suspect = current.count()
            return self._finish(current, frozen, fresh_nonce, suspect, writes)
        except BaseException:
            for made in (current, frozen):
                if made is not None:
                    made.remove(place.disk)
            raise
        finally:
            for bits in there:
                bits.close()

    def _make(self, nonce: bytes, epoch: int) -> LiveMap:
        place = self._place
        name = LiveName(place.volume_id, place.tracking_id, epoch, nonce)
        return LiveMap.create(place.disk, place.live_folder, name, place.regions)

    def _add_saved(self, current: LiveMap) -> None:
        """The pages, and every block of every hot region."""
        for page, rows in self._saved.items():
            for region, bits in _rows(page, rows, self._place.regions):
                current.add(region, bits & self._place.whole(region))
        for region in self._log.newest.regions:
            if region < self._place.regions:
                current.add(region, self._place.whole(region))

    def _finish(self, current: LiveMap, frozen: LiveMap | None, nonce: bytes, suspect: int, writes: int) -> Found:
        place = self._place
        current.writes[0] = writes
        blocks = blocks_in(place.size_bytes)
        tracker = ChangeTracker(current, frozen, self._log, self._pages, blocks, self._fail)
        # A cold region's bits must be on disk; marks without a write of a killed process are not, yet.
        tracker.pages.unsaved.update(self._pages.torn)
        for region, bits in tracker.dirty_regions():
            page, inside = divmod(region, REGIONS_PER_PAGE)
            at = inside * REGION_BITS_BYTES
            saved = int.from_bytes(self._saved.get(page, b"")[at : at + REGION_BITS_BYTES], "little")
            if bits & ~saved and region not in tracker.hot.used:
                tracker.pages.unsaved.add(page)
        if self._log.newest.is_clean:
            # The records forget next what the store looked like: a kill before the first write must not find a log
            # that calls it clean, and records that cannot tell whether it still is.
            self._log.write(self._log.stage(()))
        for bits_of_run in (frozen, current):
            if bits_of_run is not None:
                bits_of_run.set_ready()
        return Found(tracker, nonce, suspect, "", writes)


def _newest(maps: list[LiveMap]) -> LiveMap:
    return max(maps, key=lambda bits: bits.name.epoch)


def _is_complete(maps: list[LiveMap]) -> bool:
    """All maps that belong together are there and trusted: the newest, and all back to the oldest it needs."""
    if not maps or not all(bits.is_trusted for bits in maps):
        return False
    newest = _newest(maps)
    epochs = {bits.name.epoch for bits in maps}
    return not newest.is_frozen and epochs.issuperset(range(newest.oldest, newest.name.epoch))


def _page_of(place: TrackingPlace, page: int) -> bytearray:
    """The bits of a page with every block of its regions set."""
    rows = bytearray(ROWS_BYTES)
    first = page * REGIONS_PER_PAGE
    for inside in range(min(REGIONS_PER_PAGE, place.regions - first)):
        at = inside * REGION_BITS_BYTES
        rows[at : at + REGION_BITS_BYTES] = place.whole(first + inside).to_bytes(REGION_BITS_BYTES, "little")
    return rows


def _rows(page: int, rows: bytes, regions: int) -> list[RegionBits]:
    first = page * REGIONS_PER_PAGE
    found = []
    for inside in range(min(REGIONS_PER_PAGE, regions - first)):
        at = inside * REGION_BITS_BYTES
        bits = int.from_bytes(rows[at : at + REGION_BITS_BYTES], "little")
        if bits:
            found.append((first + inside, bits))
    return found
