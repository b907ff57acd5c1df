"""Volume: one store under replication: it opens the store, its tracking and its hashes, and hands out the one Writer.

Captures, cooling and the clean stop are called here and done below. This module must never decide a policy: when
to sync, to cool or to stop is the engine's to say. "Blocking" methods run in the pool, everything else on the
owner's loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from blockstore.blockset import BlockSet, RegionBits
from blockstore.capture import Capture, Doomed, FrozenSurface
from blockstore.disk import Disk
from blockstore.errors import CaptureFailed, LeewardError, StoreSizeChanged, VolumeFailed, WriteRefused
from blockstore.hashes import HashTable
from blockstore.layer import Surface
from blockstore.prepared import Prepared, drop_prepared, prepare
from blockstore.steps import Step, Wait
from blockstore.stores.base import BlockStore
from blockstore.stores.kinds import open_store
from blockstore.stores.surface import StoreSurface
from blockstore.tracking.bitmap import LiveMap, LiveName
from blockstore.tracking.recovery import Found as Opened
from blockstore.tracking.recovery import TrackingPlace, drop_tracking, make_tracking, open_tracking
from blockstore.tracking.tracker import ChangeTracker
from blockstore.writer import Writer


class Volume:
    """An open volume. Made by `open`; without tracking it is a store and a hash table."""

    def __init__(self, disk: Disk, name: str, store: BlockStore, hashes: HashTable, place: TrackingPlace) -> None:
        self.name = name
        self.store = store
        self.hashes = hashes
        self.failed = ""
        """Why nothing may be written any more; empty while all is well."""
        self._disk = disk
        self._place = place
        self._plain = StoreSurface(store, self.fail)
        self._frozen_surface: FrozenSurface | None = self._plain
        """What a capture reads: the surface that the writer writes on, if it can be read in the pool."""
        self._tracker: ChangeTracker | None = None
        self._left: ChangeTracker | None = None
        """One that is not in force any more, until its files are removed."""
        self._writer: Writer | None = None
        self._capture: Capture | None = None
        self._prepared: list[Prepared] = []
        self._doomed = Doomed()
        self._fresh = b""
        self._pending = False
        self._stopped = False

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        name: str,
        volume_id: bytes,
        store_path: str,
        size_bytes: int,
        store_bytes: int | None = None,
        folder: str,
        live_folder: str | None,
        hash_seed: int,
    ) -> Volume:
        """Open the store alone, and the hash table of `folder`; makes the folder. Blocking.

        `store_bytes`: what the store has, where that is more than the volume's `size_bytes`; the rest is left alone.
        Raises StoreMissing, StoreInUse, StoreNotAllowed, StoreKindRefused, StoreSizeChanged, StoreFlushFailed; OSError.
        """
        store = open_store(disk, store_path)
        try:
            expected = size_bytes if store_bytes is None else store_bytes
            if store.size_bytes != expected:
                raise StoreSizeChanged(path=store_path, size_bytes=store.size_bytes, expected_bytes=expected)
            store.narrow(size_bytes)
            store.flush()  # what a dead process left in the page cache may not be on the disk yet
            disk.make_dir(folder)
            path = f"{folder}/hashes"
            hashes = HashTable.open(disk, path, volume_id=volume_id, hash_seed=hash_seed, size_bytes=size_bytes)
            hashes.flush()
        except BaseException:
            store.close()
            raise
        return cls(disk, name, store, hashes, TrackingPlace(disk, folder, live_folder, volume_id, b"", size_bytes))

    @property
    def is_tracked(self) -> bool:
        """True while a tracking is open: what hosts change, or had changed, is counted."""
        return self._tracker is not None

    @property
    def size_bytes(self) -> int:
        return self._place.size_bytes

    @property
    def folder(self) -> str:
        return self._place.folder

    @property
    def volume_id(self) -> bytes:
        return self._place.volume_id

    @property
    def hash_seed(self) -> int:
        return self.hashes.hash_seed

    @property
    def writes(self) -> int:
        """Writes ever dispatched, as the token of a verdict counts them; 0 without tracking."""
        return self._tracker.writes[0] if self._tracker else 0

    # Tracking

    def start_tracking(self, tracking_id: bytes, *, all_dirty: bool) -> None:
        """Make the files of a new tracking, durable; to be put in force by the records, then opened. Blocking.

        Raises FileExistsError; OSError ENOSPC; StoreFlushFailed.
        """
        make_tracking(self._at(tracking_id), all_dirty=all_dirty)
        self._fresh = tracking_id

    def open_tracking(self, tracking_id: bytes, *, nonce: bytes, clean: bool, pending: bool, writes: int = 0) -> Opened:
        """Open a tracking, fill the live maps of this run. Blocking, before there is a writer. Raises OSError.

        `nonce` and `writes` are what the records hold; `clean`: the store looks as the records say that the last clean
        stop left it; `pending`: a sync was `sealing`, so what its capture froze is kept apart until `settle_pending`.
        The answer's `nonce` and `writes` are to be recorded, then `maps_committed` called. `lost`, if not empty: why
        nothing could be believed; tracking then went on in new files with every block dirty.
        """
        self._close_tracking()
        self._place = self._at(tracking_id)
        if self._place.live_folder is not None:
            self._disk.make_dir(self._place.live_folder)
        found = open_tracking(
            self._place,
            nonce=nonce,
            clean=clean,
            pending=pending,
            fresh=tracking_id == self._fresh,
            writes=writes,
            fail=self.fail,
        )
        self._tracker = found.tracker
        self._pending = found.tracker.frozen is not None
        self._fresh, self._stopped = b"", False
        return found

    def maps_committed(self) -> None:
        """The nonce of `open_tracking` is recorded: remove the maps of earlier runs. Blocking. Raises OSError."""
        tracker = self._open_tracker()
        mine = {bits.path for bits in (tracker.current, tracker.frozen) if bits is not None}
        for path in self._place.live_paths():
            if path not in mine:
                self._disk.unlink(path)

    def let_go(self, tracking_id: bytes) -> Wait | None:
        """No record names this tracking any more: nothing begins to write its files. Ask again after the wait.

        None: nothing writes them, and `drop_tracking` may close and remove them.
        """
        tracker = self._tracker
        if tracker is None or tracking_id != self._place.tracking_id:
            return None
        assert self._writer is None or self._writer.revoked, "nobody may write under it any more"
        if tracker.pages.busy is not None:
            return tracker.pages.busy
        self._tracker, self._left = None, tracker
        return None

    def drop_tracking(self, tracking_id: bytes) -> None:
        """Remove the files of a tracking after `let_go`. Blocking; may be repeated. Raises OSError."""
        assert self._tracker is None or tracking_id != self._place.tracking_id, "let_go comes first"
        if self._left is not None:
            self._left.close()
            self._left = None
        drop_tracking(self._at(tracking_id))

    @property
    def pending_frozen(self) -> BlockSet:
        """What the capture of a sync with unknown outcome had frozen; empty if there is none."""
        if not self._pending or self._tracker is None or self._tracker.frozen is None:
            return BlockSet()
        return BlockSet(dict(self._tracker.frozen.regions()))

    def settle_pending(self, sealed: bool) -> None:
        """The peer says whether the point of that sync exists: then its blocks are clean, else dirty again."""
        if self._pending and self._tracker is not None:
            old = self._tracker.drop_frozen() if sealed else self._tracker.merge_frozen()
            self._pending = False
            if old is not None:
                self._doomed.add(lambda: old.remove(self._disk))

    # What is dirty

    @property
    def dirty_blocks(self) -> int:
        """Blocks that may differ from the newest sealed point; 0 without tracking."""
        return self._tracker.count() if self._tracker else 0

    def dirty_bits(self, region: int) -> int:
        """The dirty blocks of a region; 0 without tracking."""
        return self._tracker.dirty_bits(region) if self._tracker else 0

    def dirty_regions(self) -> Iterator[RegionBits]:
        """(region, dirty blocks), ascending, lazily; writes may go on meanwhile."""
        return self._tracker.dirty_regions() if self._tracker else iter(())

    def dirty(self) -> BlockSet:
        """All dirty blocks as one value: for small volumes."""
        return BlockSet(dict(self.dirty_regions()))

    def mark_blocks(self, first: int, count: int) -> None:
        """Count blocks as dirty that nobody wrote (scans). On disk after `save_marks`. OSError ENOSPC."""
        self._open_tracker().mark_only(first, count)

    def save_marks(self) -> Step[None] | None:
        """Make such marks durable; call again until it answers None."""
        self._check()
        return self._open_tracker().save_marks()

    def set_clean_everything(self) -> Wait:
        """Forget every dirty block, at once: what reads the whole volume after the wait misses nothing (seeding)."""
        return self._open_tracker().start_afresh()

    # Writing

    def open_writer(self, surface: Surface | None = None) -> Writer:
        """The right to write, on the store or on a top layer. One at a time. Raises VolumeFailed."""
        self._check()
        assert self._writer is None or self._writer.revoked, "one writer at a time"
        self._writer = Writer(self._open_tracker(), surface if surface is not None else self._plain)
        self._frozen_surface = self._plain
        if surface is not None:
            self._frozen_surface = surface if isinstance(surface, FrozenSurface) else None
        return self._writer

    def revoke_writer(self) -> Wait:
        """Take the right to write away, at once; over when no write is in flight."""
        if self._writer is None:
            done = Wait()
            done.fire()
            return done
        name = self.name
        return self._writer.revoke(lambda: WriteRefused(volume=name, reason="it is not writable at this site"))

    def cool(self, now_s: float, *, all: bool = False) -> Step[None] | None:
        """Let a batch of regions cool that was not written for a minute, `all`: any. None: nothing to do now.

        `now_s` is monotonic seconds; called every few seconds, for it is also the clock of what is idle.
        """
        if self._tracker is None or self.failed:
            return None
        return self._tracker.cool(now_s, all_of_them=all)

    @property
    def surface(self) -> FrozenSurface:
        """What hosts see, read in the pool while they write."""
        assert self._frozen_surface is not None, "a captured volume can be read"
        return self._frozen_surface

    # Captures

    def prepare_capture(self, sync_id: bytes, theirs: Iterable[RegionBits] = ()) -> None:
        """Make what the next capture needs. Blocking. Raises VolumeFailed; OSError.

        `theirs`: blocks that the receiver changed since the common point; they are captured too.
        """
        self._check()
        tracker = self._open_tracker()
        self._doomed.bury()
        drop_prepared(self._disk, self._prepared)
        self._prepared.clear()
        name = tracker.current.name
        epoch = 1 + max(name.epoch, tracker.frozen.name.epoch if tracker.frozen else 0)
        place = self._place
        fresh_name = LiveName(name.volume_id, name.owner, epoch, name.nonce)
        fresh = LiveMap.create(self._disk, place.live_folder, fresh_name, place.regions)
        made = prepare(self._disk, place.folder, sync_id, tracker, fresh, place.size_bytes)
        self._prepared.append(made)
        for region, bits in theirs:
            made.theirs.add(region, bits)

    def ready_to_freeze(self) -> None:
        """Raises VolumeFailed, CaptureFailed if `switch` cannot be called now."""
        self._check()
        if self._pending or self._capture is not None or not self._prepared:
            why = "the sync before it is not settled" if self._prepared else "it was not prepared"
            raise CaptureFailed(reason=why)
        if self._frozen_surface is None:
            raise CaptureFailed(reason="the top layer of this volume cannot be captured")
        tracker = self._open_tracker()
        if tracker.frozen is not None:  # an abandoned capture that there was no memory to merge
            try:
                old = tracker.merge_frozen()
            except OSError as error:
                raise CaptureFailed(reason=str(error.strerror)) from error
            if old is not None:
                self._doomed.add(lambda: old.remove(self._disk))

    def switch(self) -> Capture:
        """Freeze the current epoch: for `writer.freeze`, which does it for all volumes of a group in one tick."""
        tracker = self._open_tracker()
        assert self._frozen_surface is not None, "checked by ready_to_freeze"
        prepared = self._prepared.pop()
        capture = Capture(self._disk, tracker, self._frozen_surface, prepared, self._doomed, self._capture_ended)
        tracker.guard = self._capture = capture
        return capture

    def _capture_ended(self) -> None:
        self._capture = None
        self._open_tracker().guard = None

    # The end

    def stop_clean(self) -> Wait:
        """Leave nothing to recover: flush, save every bit, record a clean stop; a capture is abandoned.

        After the writer was revoked and its wait is over. Not final: call again after it. Raises as a flush does.
        """
        if self._tracker is None:
            return self._plain.flush()
        self._check()
        if self._capture is not None:
            self._capture.abandon()
        tracker = self._tracker
        if tracker.pages.busy is not None:
            return tracker.pages.busy
        assert self._writer is None or self._writer.revoked, "nobody may write any more"
        store, record = self.store, tracker.stop()

        def work() -> None:
            store.flush()
            record()

        def settle(_: None) -> None:
            self._stopped = True

        return Step(work, settle, self.fail, final=True)

    def close(self) -> None:
        """Close everything; the live maps stay for the next run unless the stop was clean. Blocking."""
        drop_prepared(self._disk, self._prepared)
        self._prepared.clear()
        self._close_tracking()
        if self._left is not None:
            self._left.close()
        self._doomed.bury()
        self.hashes.close()
        self.store.close()

    def _close_tracking(self) -> None:
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None
            if self._stopped:
                for path in self._place.live_paths():
                    self._disk.unlink(path)

    def _at(self, tracking_id: bytes) -> TrackingPlace:
        place = self._place
        return TrackingPlace(
            self._disk, place.folder, place.live_folder, place.volume_id, tracking_id, place.size_bytes
        )

    def _open_tracker(self) -> ChangeTracker:
        assert self._tracker is not None, "tracking is open"
        return self._tracker

    def _check(self) -> None:
        if self.failed:
            raise VolumeFailed(volume=self.name, reason=self.failed)

    def fail(self, error: Exception) -> None:
        """A flush or a mark failed, of the store or of what lies on it: stop writing.

        No later run trusts the maps of this one.
        """
        if self._tracker is not None:
            self._tracker.poison()
        if not self.failed:
            self.failed = error.message if isinstance(error, LeewardError) else str(error)
        if self._writer is not None:
            name, reason = self.name, self.failed
            self._writer.refuse(lambda: VolumeFailed(volume=name, reason=reason))
