"""Writer: the one way to change a volume's bytes; and `freeze`, which captures many volumes at one instant.

Order of a write (`docs/formats.md`, 2.2), begun anew after every wait: the role and the range; all regions hot;
frozen blocks preserved; what the surface needs first; then, in one tick, the bits and the dispatch. A write
inside a region that `tracker.quick` names has nothing to ask and goes straight to the last step. This module must
never let anything come between setting a bit and dispatching the write that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from blockstore.capture import Capture
from blockstore.layer import Surface
from blockstore.steps import Step, Wait
from blockstore.stores.surface import INLINE_BYTES, StoreSurface
from blockstore.tracking.tracker import ChangeTracker
from blockstore.units import BLOCK, REGION

_BLOCK_SHIFT = BLOCK.bit_length() - 1
_REGION_SHIFT = REGION.bit_length() - 1
_BIT = tuple(1 << bit for bit in range(8))
_NEVER: frozenset[int] = frozenset()


class Freezable(Protocol):
    """A volume, as `freeze` sees it."""

    def ready_to_freeze(self) -> None:
        """Raises if it cannot be captured now."""

    def switch(self) -> Capture:
        """Freeze the current epoch. Cannot fail, waits for nothing."""


def freeze(volumes: Sequence[Freezable]) -> list[Capture]:
    """Capture all `volumes` at one instant: no write is dispatched between the first and the last.

    Each was prepared by `prepare_capture`. Raises CaptureFailed, VolumeFailed; then none is captured.
    """
    for volume in volumes:
        volume.ready_to_freeze()
    return [volume.switch() for volume in volumes]


class Writer:
    """Block I/O on one volume, writes tracked. Everything on the owner's loop. Made by `Volume.open_writer`."""

    def __init__(self, tracker: ChangeTracker, surface: Surface) -> None:
        self.size_bytes = surface.size_bytes
        self.revoked = False
        self._refusal: Callable[[], Exception] | None = None
        self._tracker = tracker
        self._surface = surface
        self._plain = surface if isinstance(surface, StoreSurface) else None
        self._put: Callable[..., None] = self._plain.store.file.write if self._plain else _no_store
        self._quick: set[int] | frozenset[int] = tracker.quick if self._plain else _NEVER
        self._running: _Flush | None = None

    # Writing

    def write(self, offset: int, data: memoryview, durable: bool) -> Wait | None:
        """As BlockIO.write. Raises WriteRefused, VolumeFailed; OSError ENOSPC, EIO."""
        length = len(data)
        last = offset + length - 1
        region = offset >> _REGION_SHIFT
        if (
            region in self._quick
            and last >> _REGION_SHIFT == region
            and 0 < length < INLINE_BYTES
            and last < self.size_bytes
            and not durable
        ):
            tracker = self._tracker
            first = offset >> _BLOCK_SHIFT
            if last >> _BLOCK_SHIFT == first:
                tracker.bits_of[first >> 3] |= _BIT[first & 7]
                tracker.writes[0] += 1
            else:
                tracker.mark(first, (last >> _BLOCK_SHIFT) - first + 1)
            self._put(data, offset)
            return None
        wait = self._before(offset, length)
        if wait is not None or not length:
            return wait
        step = self._surface.write(offset, data, durable)
        if step is not None:
            self._tracker.in_flight.add(step)
        return step

    def zero(self, offset: int, length: int, durable: bool, may_punch: bool) -> Wait | None:
        """As BlockIO.zero. Raises as `write`."""
        wait = self._before(offset, length)
        if wait is not None or not length:
            return wait
        step = self._surface.zero(offset, length, durable, may_punch)
        self._tracker.in_flight.add(step)
        return step

    def discard(self, offset: int, length: int, durable: bool) -> Wait | None:
        """As BlockIO.discard. Raises as `write`."""
        wait = self._before(offset, length)
        if wait is not None or not length:
            return wait
        step = self._surface.discard(offset, length, durable)
        self._tracker.in_flight.add(step)
        return step

    def _before(self, offset: int, length: int) -> Wait | None:
        """All that comes before the bytes; None: the bits are set, and the write is dispatched in this tick."""
        if self._refusal is not None:
            raise self._refusal()
        assert 0 <= offset <= offset + length <= self.size_bytes, "the export checks the range"
        if not length:
            return None
        tracker, last = self._tracker, offset + length - 1
        region, last_region = offset >> _REGION_SHIFT, last >> _REGION_SHIFT
        wait = tracker.admit(region, last_region)
        if wait is not None:
            return wait
        first = offset >> _BLOCK_SHIFT
        count = (last >> _BLOCK_SHIFT) - first + 1
        guard = tracker.guard
        if guard is not None:
            wait = guard.preserve(first, count)
            if wait is not None:
                return wait
        wait = self._surface.prepare(offset, length)
        if wait is not None:
            return wait
        tracker.mark(first, count)
        if region == last_region and (guard is None or not guard.guards(region)):
            tracker.quick.add(region)
        return None

    # Reading and flushing

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        """As BlockIO.read_into."""
        return self._surface.read_into(offset, buffer)

    def flush(self) -> Wait | None:
        """As BlockIO.flush. One that finds another at work waits for the next, which all such share."""
        if self._refusal is not None and not self.revoked:
            raise self._refusal()
        if self._plain is None:
            return self._surface.flush()
        if self._running is None:
            self._running = _Flush(self._plain, self._flushed)
        running = self._running
        return running.after if running.has_begun else running.step

    def allocated(self, offset: int, length: int) -> Step[list[tuple[int, int, bool]]]:
        """As BlockIO.allocated."""
        return self._surface.allocated(offset, length)

    def _flushed(self) -> None:
        self._running = None

    # Taking the right to write away

    def revoke(self, refusal: Callable[[], Exception]) -> Wait:
        """Refuse every later write; over when none is in flight."""
        self.refuse(refusal)
        self.revoked = True
        return self._tracker.in_flight.drained()

    def refuse(self, refusal: Callable[[], Exception]) -> None:
        """Answer every later write with what `refusal` makes."""
        self._refusal = refusal
        self._quick = _NEVER


class _Flush:
    """One flush of a plain store. Whoever comes before its work begins is covered by it; later ones are not."""

    def __init__(self, surface: StoreSurface, ended: Callable[[], None]) -> None:
        self.has_begun = False
        self.after = Wait()
        self._store = surface.store
        self._ended = ended
        self.step: Step[Any] = Step(self._work, failed=surface.failed, final=True)
        self.step.then(self._over)

    def _work(self) -> None:
        self.has_begun = True
        self._store.flush()

    def _over(self) -> None:
        self._ended()
        self.after.fire()


def _no_store(*_: object) -> None:
    raise AssertionError("an overlay has no region that is quick")
