"""The rules of what is received, sealed, folded and written over points, each broken by a patch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from crash_hosts import Sender

from blockstore import pack_walk
from blockstore.errors import BlockMismatch
from blockstore.fold import Fold
from blockstore.frame import DATA, REGION_ROW
from blockstore.overlay import Overlay
from blockstore.pack import OpenPack
from blockstore.pack_regions import RegionTable
from blockstore.pack_walk import heads
from blockstore.receiving import Receiving
from blockstore.seed import SeedBase
from blockstore.steps import Step
from blockstore.units import BLOCK
from engine.operations import snapshot as snapshot_story
from engine.records import folds, incoming, layers, points, snapshots
from engine.transfer.receiver import ReceiveSession

Patch = pytest.MonkeyPatch


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


def reset_unlinks_before_it_is_recorded(patch: Patch) -> None:
    begin_anew = snapshot_story._begin_anew

    async def mutant(ctx: Any, handle: Any, snapshot: Any) -> Any:
        for volume, layer in zip(handle.volumes, snapshot.record.layers, strict=True):
            folder, live = ctx.paths.layers(volume.record.id), ctx.paths.live_folder(volume.record.id)
            await ctx.pool.call(Overlay.remove, ctx.disk, folder, layer, live)
        return await begin_anew(ctx, handle, snapshot)

    patch.setattr(snapshot_story, "_begin_anew", mutant)


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
