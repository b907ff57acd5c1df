"""Histories of a pack under a seed: nothing told is lost, nothing unplanned is sealed; and every rule broken once.

The mutations are those of the design's own model; each must be found, or the histories prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from pack_story import Wrong, tell

from blockstore import pack, pack_walk
from blockstore.disk import DiskFile
from blockstore.errors import LeewardError
from blockstore.layer import Slot
from blockstore.pack import OpenPack
from blockstore.pack_regions import RegionTable
from blockstore.receiving import Receiving
from blockstore.steps import Step

ACTIONS = 80
MOST_SEEDS = 2000

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("number", range(60))
def test_no_history_loses_what_was_told_nor_seals_what_was_not_planned(live: Path, seed: int, number: int) -> None:
    tell(live, Random(f"{seed}-{number}"), ACTIONS)


def tail_trusted_unhashed(patch: Patch) -> None:
    patch.setattr(pack_walk, "payload_fits", lambda *_: True)


def durable_claimed_before_its_sync(patch: Patch) -> None:
    def admit(self: OpenPack, buffer: memoryview, length: int) -> Slot:
        self.durable_offset = self.complete.offset
        return Receiving.admit(self, buffer, length)

    patch.setattr(OpenPack, "admit", admit)


def noted_after_the_sync(patch: Patch) -> None:
    def checkpoint(self: OpenPack) -> Step[None]:
        return Step(self.frames.file.datasync, lambda _: self.noted_durable(self.complete))

    patch.setattr(OpenPack, "checkpoint", checkpoint)


def told_before_the_sync(patch: Patch) -> None:
    def checkpoint(self: OpenPack) -> Step[None]:
        return Step(lambda: None, lambda _: self.noted_durable(self.complete))

    patch.setattr(OpenPack, "checkpoint", checkpoint)


def frames_behind_a_gap_count(patch: Patch) -> None:
    def landed(self: OpenPack, slot: Slot) -> None:
        assert slot.regions is not None
        self.table.enter(slot.regions, slot.head.offset, slot.head.sync)
        after = self.frames.after(slot.head)
        if after.seq > self.complete.seq:
            self.complete = after
            self.complete_frames = after.seq - self._base

    patch.setattr(OpenPack, "landed", landed)


def the_gap_is_kept(patch: Patch) -> None:
    def restart(self: OpenPack, sync_id: bytes) -> None:
        at = self._cursor
        Receiving.restart(self, sync_id)
        self._cursor = self.complete = at

    patch.setattr(OpenPack, "restart", restart)


def presence_is_stated_before_the_sync(patch: Patch) -> None:
    def begin_session(self: OpenPack, sync_id: bytes) -> None:
        self.frames.file.truncate(self.complete.offset)
        self._checkpoint = None
        self.restart(sync_id)

    patch.setattr(OpenPack, "begin_session", begin_session)


def nothing_is_synced_at_open(patch: Patch) -> None:
    recover, sync = OpenPack.recover.__func__, DiskFile.sync  # type: ignore[attr-defined]

    def deaf(cls: type[OpenPack], disk: Any, path: str, **ids: Any) -> OpenPack:
        disk.is_deaf = True
        found: OpenPack = recover(cls, disk, path, **ids)
        found.restart(bytes(16))
        disk.is_deaf = False
        return found

    def begin_session(self: OpenPack, sync_id: bytes) -> None:
        if self.frames.file.size() != self.complete.offset:
            self.frames.file.truncate(self.complete.offset)
            sync(self.frames.file)
        self._checkpoint = None
        self.restart(sync_id)

    patch.setattr(OpenPack, "recover", classmethod(deaf))
    patch.setattr(OpenPack, "begin_session", begin_session)


def what_is_there_counts_for_any_sync(patch: Patch) -> None:
    patch.setattr(RegionTable, "confirmed", lambda self, _: self._digests(np.flatnonzero(self._sync)))


def unconfirmed_regions_are_sealed(patch: Patch) -> None:
    patch.setattr(RegionTable, "_confirmed", lambda self, _: np.flatnonzero(self._sync))


def sealed_before_the_sync(patch: Patch) -> None:
    write = pack.write_directory

    def deaf(frames: Any, *rest: Any) -> Any:
        frames.file._disk.is_deaf = True
        return write(frames, *rest)

    patch.setattr(pack, "write_directory", deaf)


def a_walk_goes_on_behind_a_gap(patch: Patch) -> None:
    walk = pack_walk.heads

    def heads(frames: Any) -> Any:
        size, mark = frames.file.size(), frames.start.offset
        good = list(walk(frames))
        yield from good
        mark = frames.after(good[-1]).offset if good else mark
        buffer = memoryview(bytearray(pack_walk.MAX_HEAD_BYTES))
        while mark < size:
            try:
                head = frames.read_head(mark, buffer)
            except LeewardError:
                mark += 4096
                continue
            if head.kind == 0 and frames.after(head).offset <= size:
                yield head
            mark = frames.after(head).offset

    patch.setattr(pack_walk, "heads", heads)


def a_region_comes_by_halves(patch: Patch) -> None:
    """The frame replaces only what it names: the table remembers the first frame, as if both counted."""

    def enter(self: RegionTable, rows: Any, offset: int, sync_id: bytes) -> None:
        new = self._offset[rows["region"]] == 0
        plain(self, rows[new | rows["kept"]], offset, sync_id)

    plain = RegionTable.enter
    patch.setattr(RegionTable, "enter", enter)


@pytest.mark.parametrize(
    "break_rule",
    [
        tail_trusted_unhashed,
        durable_claimed_before_its_sync,
        noted_after_the_sync,
        told_before_the_sync,
        frames_behind_a_gap_count,
        the_gap_is_kept,
        presence_is_stated_before_the_sync,
        nothing_is_synced_at_open,
        what_is_there_counts_for_any_sync,
        unconfirmed_regions_are_sealed,
        sealed_before_the_sync,
        a_walk_goes_on_behind_a_gap,
        a_region_comes_by_halves,
    ],
    ids=lambda rule: rule.__name__.replace("_", " "),
)
def test_a_broken_rule_is_found(break_rule: Callable[[Patch], None], monkeypatch: Patch, live: Path, seed: int) -> None:
    break_rule(monkeypatch)
    for number in range(MOST_SEEDS):
        (live / str(number)).mkdir()
        try:
            tell(live / str(number), Random(f"{seed}-{number}"), ACTIONS)
        except (Wrong, LeewardError, OSError):
            return
    pytest.fail(f"{MOST_SEEDS} histories show nothing wrong")
