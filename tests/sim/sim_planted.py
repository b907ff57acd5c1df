"""Bugs to be planted one at a time, each by replacing one small thing of the product: the simulator must find them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blockstore.capture import Capture
from blockstore.tracking.intent import IntentLog
from blockstore.tracking.tracker import ChangeTracker
from engine.decide.lineage import PendingFate
from engine.operations import capture, contact, reverse, yielding
from rig.memory_disk import MemoryFile

PLANTED: dict[str, Callable[[], None]] = {}


def planted(plant: Callable[[], None]) -> Callable[[], None]:
    PLANTED[plant.__name__] = plant
    return plant


def _without_sync(is_meant: Callable[[str], bool]) -> None:
    real = MemoryFile.datasync

    def datasync(self: MemoryFile) -> None:
        if not is_meant(self.path):
            real(self)

    MemoryFile.datasync = MemoryFile.sync = datasync  # type: ignore[method-assign]


@planted
def a_bit_is_cleared_before_the_seal() -> None:
    """A sync that came to nothing forgets what it had frozen."""
    ChangeTracker.merge_frozen = ChangeTracker.drop_frozen  # type: ignore[method-assign]


@planted
def writes_leak_into_the_capture() -> None:
    Capture.preserve = lambda self, first, count: None  # type: ignore[method-assign]


@planted
def a_member_of_the_capture_is_forgotten() -> None:
    """Of the last volume of a group nothing is found to have changed."""
    real = capture.freeze

    def freeze(volumes: Any) -> Any:
        parts = real(volumes)
        parts[-1].regions = lambda: iter(())  # type: ignore[method-assign]
        return parts

    capture.freeze = freeze  # type: ignore[attr-defined]


@planted
def a_layer_is_sealed_before_it_is_synced() -> None:
    _without_sync(lambda path: path.endswith(".pack"))


@planted
def the_store_is_not_flushed_before_the_seal() -> None:
    _without_sync(lambda path: path.startswith("/stores/"))


@planted
def a_fold_is_over_before_its_base_is_synced() -> None:
    _without_sync(lambda path: path.startswith("/data/stores/"))


@planted
def the_intent_is_not_durable_before_the_data() -> None:
    IntentLog.write = lambda self, staged: self.file.write(staged[1], staged[0])  # type: ignore[method-assign]


@planted
def an_overlay_is_flushed_without_its_data() -> None:
    _without_sync(lambda path: path.endswith(".data"))


@planted
def a_write_is_not_marked() -> None:
    real = ChangeTracker.mark

    def mark(self: ChangeTracker, first: int, count: int) -> None:
        if first % 1024 != 3:
            real(self, first, count)

    ChangeTracker.mark = mark  # type: ignore[method-assign]


@planted
def a_doubtful_seal_is_adopted_unasked() -> None:
    contact.settle_pending = lambda own, peer: PendingFate.ADOPT  # type: ignore[attr-defined]


@planted
def a_doubtful_seal_is_abandoned_unasked() -> None:
    contact.settle_pending = lambda own, peer: PendingFate.ABANDON  # type: ignore[attr-defined]


@planted
def an_old_token_is_accepted() -> None:
    reverse._check_token = lambda handle, token, loser, winner: None


@planted
def nothing_is_set_aside() -> None:
    async def named(*_: Any) -> None:
        return None

    yielding._named = named  # type: ignore[assignment]
