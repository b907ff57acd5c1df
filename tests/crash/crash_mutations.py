"""Each rule of the block store that concerns one host, broken by a patch; what the checker must find out.

The rules stand in `docs/formats.md`, "Order". `MUTATIONS` names for each patch the script whose crashes show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from crash_explore import Script
from crash_hosts import Sender
from crash_protected import Captured, CaptureGivenUp, WritePath
from crash_recovery import Folded, Promoted, Seeded, Snapshots, Staging
from crash_site import Site

from blockstore import pack_walk, writer
from blockstore.capture import Capture
from blockstore.errors import BlockMismatch
from blockstore.fold import Fold
from blockstore.frame import DATA, REGION_ROW
from blockstore.overlay import Overlay
from blockstore.pack import OpenPack
from blockstore.pack_regions import RegionTable
from blockstore.pack_walk import heads
from blockstore.receiving import Receiving
from blockstore.redo import RedoPack
from blockstore.seed import SeedBase
from blockstore.steps import Step, Wait
from blockstore.tracking.hot import HotSet
from blockstore.tracking.intent import IntentLog
from blockstore.tracking.tracker import ChangeTracker
from blockstore.units import BLOCK
from blockstore.writer import Writer
from engine.operations import capture as capturing
from engine.records import folds, incoming, layers, points, snapshots
from engine.transfer.receiver import ReceiveSession

Patch = pytest.MonkeyPatch


def over() -> Wait:
    wait = Wait()
    wait.fire()
    return wait


# Marks and writes


def bits_after_data(patch: Patch) -> None:
    write = Writer.write

    def mutant(self: Writer, offset: int, data: memoryview, durable: bool) -> Wait | None:
        self._quick = frozenset()
        tracker: Any = self._tracker
        later: list[tuple[int, int]] = []
        tracker.mark = lambda first, count: later.append((first, count))
        wait = write(self, offset, data, durable)
        del tracker.mark
        for first, count in later:
            if wait is None:
                tracker.mark(first, count)
            else:
                wait.then(lambda first=first, count=count: tracker.mark(first, count))
        return wait

    patch.setattr(Writer, "write", mutant)


def no_wait_for_heat(patch: Patch) -> None:
    def mutant(self: HotSet, missing: list[int]) -> None:
        self.used.update(dict.fromkeys(missing, 0.0))

    patch.setattr(HotSet, "heat", mutant)


def record_not_synced(patch: Patch) -> None:
    patch.setattr(IntentLog, "write", lambda self, staged: self.file.write(staged[1], staged[0]))


def bit_set_before_an_await(patch: Patch) -> None:
    before, mark = Writer._before, ChangeTracker.mark
    marked: set[tuple[int, int]] = set()

    def mutant(self: Writer, offset: int, length: int) -> Wait | None:
        self._quick = frozenset()
        if length and (offset, length) not in marked:
            marked.add((offset, length))
            first = offset // BLOCK
            mark(self._tracker, first, (offset + length - 1) // BLOCK - first + 1)
        wait = before(self, offset, length)
        if wait is None:
            marked.discard((offset, length))
        return wait

    patch.setattr(Writer, "_before", mutant)
    patch.setattr(ChangeTracker, "mark", lambda self, first, count: None)


def flush_joins_a_running_one(patch: Patch) -> None:
    patch.setattr(writer._Flush, "has_begun", property(lambda self: False, lambda self, value: None), raising=False)


def hot_set_emptied_at_open(patch: Patch) -> None:
    make = HotSet.__init__

    def mutant(self: HotSet, *parts: Any) -> None:
        make(self, *parts)
        self.used.clear()

    patch.setattr(HotSet, "__init__", mutant)


def write_to_a_cooling_region_ignored(patch: Patch) -> None:
    class Sticky(set[int]):
        """Regions that go on cooling whatever happens."""

        def discard(self, region: int) -> None:
            pass

        def difference_update(self, *others: Any) -> None:
            pass

    cool = ChangeTracker._cool

    def mutant(self: ChangeTracker, batch: Any) -> Step[None]:
        step = cool(self, batch)
        self.hot.cooling = Sticky(self.hot.cooling)
        return step

    patch.setattr(ChangeTracker, "_cool", mutant)


def no_sync_at_open(patch: Patch) -> None:
    boot = Site.boot

    async def mutant(self: Site) -> Any:
        self.disk.is_deaf = True
        try:
            return await boot(self)
        finally:
            self.disk.is_deaf = False

    patch.setattr(Site, "boot", mutant)


# Captures


def no_quiesce(patch: Patch) -> None:
    make = Capture.__init__

    def mutant(self: Capture, *parts: Any) -> None:
        make(self, *parts)
        self.quiesced = over()

    patch.setattr(Capture, "__init__", mutant)


def done_at_send(patch: Patch) -> None:
    """The rule is the sender's: blocks are done when they have landed, not when they left."""
    patch.setattr(Captured, "sent", lambda self, part, region, bits: part.done(region, bits))


def frozen_dropped_without_the_flush(patch: Patch) -> None:
    def mutant(self: Capture) -> Step[Any]:
        self.flushed = True
        return Step(lambda: None, final=True)

    patch.setattr(Capture, "flush", mutant)


def hashes_written_before_sealed(patch: Patch) -> None:
    make, append = capturing._make_redo, RedoPack.append

    def making(ctx: Any, volume: Any, point: Any, parent: bytes) -> RedoPack:
        redo: Any = make(ctx, volume, point, parent)
        redo.mutant_hashes = volume.require_open().hashes
        return redo

    def appending(self: Any, head: bytes) -> None:
        append(self, head)
        self.mutant_hashes.store_head(head)
        self.mutant_hashes.flush()

    patch.setattr(capturing, "_make_redo", making)
    patch.setattr(RedoPack, "append", appending)


# Packs


def tail_trusted_unhashed(patch: Patch) -> None:
    patch.setattr(pack_walk, "payload_fits", lambda *parts: True)


def durable_claimed_before_its_sync(patch: Patch) -> None:
    admit = Receiving.admit

    def mutant(self: Receiving, buffer: memoryview, wire_head_bytes: int) -> Any:
        honest, self.durable_offset = self.durable_offset, self.complete.offset
        try:
            return admit(self, buffer, wire_head_bytes)
        finally:
            self.durable_offset = honest

    patch.setattr(Receiving, "admit", mutant)


def noted_after_the_sync(patch: Patch) -> None:
    def mutant(self: OpenPack) -> Step[None] | None:
        if self._checkpoint is not None and not self._checkpoint.over:
            return self._checkpoint
        if self.complete.offset <= self.durable_offset:
            return None
        self._checkpoint = Step(self.frames.file.datasync, lambda _: self.noted_durable(self.complete), final=True)
        return self._checkpoint

    patch.setattr(OpenPack, "checkpoint", mutant)


def named_behind_a_gap(patch: Patch) -> None:
    def mutant(self: Receiving, slot: Any) -> None:
        if slot.session == self._session:
            self.table.enter(slot.regions, slot.head.offset, slot.head.sync)
            if slot.head.seq > self.complete.seq:
                self.complete = self.frames.after(slot.head)
            self.complete_frames = self.complete.seq - self._base

    patch.setattr(Receiving, "landed", mutant)


def gap_kept(patch: Patch) -> None:
    begin = OpenPack.begin_session

    def mutant(self: OpenPack, sync_id: bytes) -> None:
        self.complete = self._cursor
        begin(self, sync_id)

    patch.setattr(OpenPack, "begin_session", mutant)


def writers_not_joined(patch: Patch) -> None:
    async def mutant(self: ReceiveSession) -> None:
        self._is_over = True
        self._saying.end()
        await self._end_checkpoints()

    patch.setattr(ReceiveSession, "join", mutant)


def bad_frame_skipped(patch: Patch) -> None:
    store = OpenPack.store

    def mutant(self: OpenPack, slot: Any) -> None:
        try:
            store(self, slot)
        except BlockMismatch:
            slot.regions = np.zeros(0, REGION_ROW)

    patch.setattr(OpenPack, "store", mutant)


def presence_stated_before_the_sync(patch: Patch) -> None:
    recover, begin = OpenPack.recover.__func__, OpenPack.begin_session  # type: ignore[attr-defined]

    def recovering(cls: type[OpenPack], disk: Any, path: str, **bound: Any) -> OpenPack:
        return without_syncs(disk, lambda: recover(cls, disk, path, **bound))

    patch.setattr(OpenPack, "recover", classmethod(recovering))
    patch.setattr(
        OpenPack, "begin_session", lambda self, sync_id: without_syncs(self._disk, lambda: begin(self, sync_id))
    )


def without_syncs(disk: Any, call: Callable[[], Any]) -> Any:
    """Make the call, its syncs left out."""
    disk.is_deaf = True
    try:
        return call()
    finally:
        disk.is_deaf = False


def region_by_halves(patch: Patch) -> None:
    """The rule is the sender's: one frame holds all that a sync has of a region."""
    frame = Sender.frame

    def mutant(self: Sender, volume: int, regions: list[int], *, spoil: bool = False) -> None:
        plan = self.sync.plans[volume]
        mine = [block for block in plan if block // 1024 in regions]
        for half in (mine[: len(mine) // 2], mine[len(mine) // 2 :]):
            if half:
                self.sync.plans[volume] = {block: plan[block] for block in half}
                self.left[volume].extend(region for region in regions if region not in self.left[volume])
                frame(self, volume, sorted({block // 1024 for block in half}), spoil=spoil)
        self.sync.plans[volume] = plan
        self.left[volume] = [region for region in self.left[volume] if region not in regions]

    patch.setattr(Sender, "frame", mutant)


def unconfirmed_regions_sealed(patch: Patch) -> None:
    patch.setattr(RegionTable, "_confirmed", lambda self, sync_id: np.flatnonzero(self._offset))


def sync_id_without_a_transaction(patch: Patch) -> None:
    patch.setattr(incoming, "renew", lambda conn, group, wanted, *, expects: layers.receiving(conn, group))


def sealed_before_the_sync(patch: Patch) -> None:
    write = OpenPack._write_directory

    patch.setattr(OpenPack, "_write_directory", lambda self: without_syncs(self._disk, lambda: write(self)))


# Folding, pins, overlays, seeds


def fold_before_its_sync(patch: Patch) -> None:
    make = Fold.__init__

    def mutant(self: Any, disk: Any, pack: Any, store: Any, *rest: Any) -> None:
        make(self, disk, pack, store, *rest)
        self._store = Unflushed(store)

    patch.setattr(Fold, "__init__", mutant)


class Unflushed:
    """A store whose flush does nothing."""

    def __init__(self, store: Any) -> None:
        self._inner = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def flush(self) -> None:
        pass


def fold_by_walking(patch: Patch) -> None:
    def mutant(self: Any, most_bytes: int) -> bool:
        for head in heads(self._pack._frames):
            at = head.offset + head.padded_bytes
            for first, count, kind in head.extents.tolist():
                if kind == DATA:
                    self._store.write(self._pack.file.read(count * BLOCK, at), first * BLOCK)
                    at += count * BLOCK
                elif kind < 3:
                    self._store.discard(first * BLOCK, count * BLOCK)
        self._store.flush()
        self._hashes.forget_all()
        return True

    patch.setattr(Fold, "step", mutant)


def fold_past_a_pin(patch: Patch) -> None:
    def retention(conn: Any, group: Any, keep: int) -> Any:
        return tuple(points.of_group(conn, group)[max(1, keep) :])

    def delete(conn: Any, point: bytes) -> None:
        conn.execute("DELETE FROM pin WHERE point = ?", (point,))
        conn.execute("DELETE FROM snapshot WHERE point = ?", (point,))
        conn.execute("DELETE FROM point WHERE id = ?", (point,))

    patch.setattr(folds, "retention", retention)
    patch.setattr(points, "delete", delete)


def pin_removed_first(patch: Patch) -> None:
    deleting = snapshots.deleting

    def mutant(conn: Any, snapshot: Any) -> None:
        conn.execute("DELETE FROM pin WHERE holder = ?", (snapshots.pins.of_snapshot(snapshot),))

    def later(conn: Any, snapshot: Any) -> None:
        deleting(conn, snapshot)
        delete(conn, snapshot)

    delete = snapshots.delete
    patch.setattr(snapshots, "deleting", mutant)
    patch.setattr(snapshots, "delete", later)


def presence_copied_after_the_sync(patch: Patch) -> None:
    def mutant(self: Any) -> Step[None]:
        def settle(_: None) -> None:
            self._flushing = None
            touched, self._new_pages = self._new_pages, set()
            staged = [self._pages.stage(page, self._rows(page)) for page in sorted(touched)]
            self._pages.write(staged)
            self._pages.landed(staged)

        self._flushing = Step(self.data.datasync, settle, final=True)
        return self._flushing

    patch.setattr(Overlay, "flush", mutant)


def presence_written_before_the_data(patch: Patch) -> None:
    def mutant(self: Any) -> Step[None]:
        touched, self._new_pages = self._new_pages, set()
        staged = [self._pages.stage(page, self._rows(page)) for page in sorted(touched)]

        def work() -> None:
            if staged:
                self._pages.write(staged)
            self.data.datasync()

        def settle(_: None) -> None:
            self._flushing = None
            self._pages.landed(staged)

        self._flushing = Step(work, settle, final=True)
        return self._flushing

    patch.setattr(Overlay, "flush", mutant)


def seed_head_before_the_base(patch: Patch) -> None:
    def mutant(self: Any, unnoted: list[bytes], at: int) -> None:
        if unnoted:
            self.frames.file.write(b"".join(unnoted), at)
            self.frames.file.datasync()
        self._store.flush()

    patch.setattr(SeedBase, "_make_durable", mutant)


FIRST_ORDER = {
    noted_after_the_sync: 2,
    no_quiesce: 45,
    done_at_send: 4,
    gap_kept: 3,
    writers_not_joined: 8,
    presence_copied_after_the_sync: 10,
}
"""Orders known to show what few do: they are tried first. Any other order may be asked for with --seed."""

MUTATIONS: list[tuple[Callable[[Patch], None], type[Script]]] = [
    (bits_after_data, WritePath),
    (no_wait_for_heat, WritePath),
    (record_not_synced, WritePath),
    (bit_set_before_an_await, Captured),
    (flush_joins_a_running_one, WritePath),
    (hot_set_emptied_at_open, WritePath),
    (write_to_a_cooling_region_ignored, WritePath),
    (no_sync_at_open, WritePath),
    (no_quiesce, Captured),
    (done_at_send, Captured),
    (frozen_dropped_without_the_flush, Captured),
    (hashes_written_before_sealed, CaptureGivenUp),
    (tail_trusted_unhashed, Staging),
    (durable_claimed_before_its_sync, Staging),
    (noted_after_the_sync, Staging),
    (named_behind_a_gap, Staging),
    (gap_kept, Staging),
    (writers_not_joined, Staging),
    (bad_frame_skipped, Staging),
    (presence_stated_before_the_sync, Staging),
    (region_by_halves, Staging),
    (unconfirmed_regions_sealed, Staging),
    (sync_id_without_a_transaction, Staging),
    (sealed_before_the_sync, Staging),
    (fold_before_its_sync, Folded),
    (fold_by_walking, Folded),
    (fold_past_a_pin, Folded),
    (pin_removed_first, Snapshots),
    (presence_copied_after_the_sync, Snapshots),
    (presence_written_before_the_data, Promoted),
    (seed_head_before_the_base, Seeded),
]
