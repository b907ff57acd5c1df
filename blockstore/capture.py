"""Capture: the frozen image of one volume, kept by copying a block before the first write that hits it.

From the switch on the image is what writes dispatched before it made. A write to a frozen block that the receiver
does not hold durably yet first copies the old block into the capture file, which has no name: it dies with the
daemon. A reader reads the store and then asks which of its blocks were kept meanwhile; those it reads from the
capture file, for its read may have been torn by the write. That question may be asked in a thread of the pool:
a block is marked kept before any write to it is dispatched, so "not kept" after the read means "not written before".

This module must never clear a dirty bit before the volume was flushed, once every write from before the
switch was complete (`docs/formats.md`, 2.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from blockstore.blockset import RegionBits, runs_of, split_by_region
from blockstore.disk import Disk
from blockstore.errors import CaptureFailed, LeewardError
from blockstore.prepared import Prepared
from blockstore.steps import Step, Wait
from blockstore.tracking.bitmap import LiveMap
from blockstore.tracking.tracker import ChangeTracker
from blockstore.units import BLOCK, BLOCKS_PER_REGION

T = TypeVar("T")

INLINE_BLOCKS = 16
"""Blocks of one region that a write preserves at once if they are in the page cache; more go to the pool."""


@runtime_checkable
class FrozenSurface(Protocol):
    """What the volume's bytes are read from while they are captured."""

    size_bytes: int

    def read_cached(self, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` if that needs no disk."""

    def read_blocking(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; in the pool."""

    def flush(self) -> Step[Any]:
        """Everything written and complete before this call is on the disk."""


class Doomed:
    """What is to be closed and removed once nobody uses it: slow, so never on the loop."""

    def __init__(self) -> None:
        self._removals: list[Callable[[], None]] = []

    def add(self, removal: Callable[[], None]) -> None:
        self._removals.append(removal)

    def bury(self) -> None:
        """Do all of it. Blocking."""
        while self._removals:
            self._removals.pop()()


class Capture:
    """One capture under way. Everything on the owner's loop but the work of its steps. Made by `freeze`."""

    def __init__(
        self,
        disk: Disk,
        tracker: ChangeTracker,
        surface: FrozenSurface,
        prepared: Prepared,
        doomed: Doomed,
        ended: Callable[[], None],
    ) -> None:
        self.quiesced = tracker.in_flight.drained()
        """Over when every write that was dispatched before the switch is complete."""
        self.flushed = False
        """True once the volume was flushed after that."""
        self.failed: CaptureFailed | None = None
        """Why the frozen image is not whole any more; the sync fails, hosts go on."""
        self._disk = disk
        self._tracker = tracker
        self._surface = surface
        self._frozen = tracker.switch(prepared.fresh)
        self._parts = prepared
        self._doomed = doomed
        self._when_ended: Callable[[], None] | None = ended
        self._free = bytearray(len(self._frozen.touched))
        self._copying: dict[int, list[tuple[int, Step[Any]]]] = {}
        self._users = 0
        self._blocks = -1
        self._done_blocks = 0
        self._scratch = memoryview(bytearray(INLINE_BLOCKS * BLOCK))

    # What is frozen

    @property
    def blocks(self) -> int:
        """Blocks frozen at the switch; counted when first asked, for the switch has no time to."""
        if self._blocks < 0:
            theirs = self._parts.theirs
            self._blocks = self._frozen.count() + theirs.count() - theirs.count_common(self._frozen)
        return self._blocks

    @property
    def remaining(self) -> int:
        """Frozen blocks that are not done."""
        return self.blocks - self._done_blocks

    def bits(self, region: int) -> int:
        """The frozen blocks of a region, done or not; none once the capture has ended."""
        return self._wanted(region) if self._when_ended is not None else 0

    def theirs(self, region: int) -> int:
        """Of these, the blocks that the receiver changed: it needs them, whatever is known of their content here."""
        return self._parts.theirs.bits(region) if self._when_ended is not None else 0

    def _wanted(self, region: int) -> int:
        bits = self._frozen.bits(region)
        return bits | self._parts.theirs.bits(region) if self._parts.theirs.touched[region] else bits

    def _next_region(self, region: int) -> int:
        found = [at for at in (self._frozen.next_region(region), self._parts.theirs.next_region(region)) if at >= 0]
        return min(found, default=-1)

    def regions(self) -> Iterator[RegionBits]:
        """(region, blocks not done), ascending, lazily; ends early if the capture does."""
        region = self._next_region(0)
        while region >= 0 and self._when_ended is not None:
            bits = self._wanted(region) & ~self._parts.done.bits(region)
            if bits:
                yield region, bits
            region = self._next_region(region + 1)

    def done(self, region: int, bits: int) -> None:
        """These blocks are durable at the receiver, or equal to the parent point: writes need not preserve them."""
        if self._when_ended is None:
            return
        news = bits & self._wanted(region) & ~self._parts.done.bits(region)
        if news:
            self._parts.done.add(region, news)
            self._done_blocks += news.bit_count()
            self._look_if_free(region)

    # Reading the frozen image

    def read(self, first: int, count: int, buffer: memoryview) -> Step[None]:
        """As `read_runs`, one run of blocks."""
        return self.read_runs([(first, count)], buffer, _nothing)

    def read_runs(self, runs: Sequence[tuple[int, int]], buffer: memoryview, examine: Callable[[], T]) -> Step[T]:
        """Fill `buffer` with frozen blocks, `runs` (first, count) end to end; then `examine()` in the same thread.

        One final step, only after `quiesced`; its result is what `examine` returned. The short last block of an
        image is padded with zeros. Only for frozen blocks that are not done. Raises CaptureFailed; OSError EIO.
        """
        assert self.quiesced.over, "a frozen image is read after the writes from before it"
        self._check()
        self._users += 1

        def settle(_: T) -> None:
            self._leave()
            self._check()

        def failed(_: Exception) -> None:
            self._leave()

        return Step(lambda: self._read(runs, buffer, examine), settle, failed, final=True)

    def _read(self, runs: Sequence[tuple[int, int]], buffer: memoryview, examine: Callable[[], T]) -> T:
        """In the pool: the store first, and only then the question what was kept."""
        at = 0
        for first, count in runs:
            self._surface.read_blocking(first * BLOCK, buffer[at : at + count * BLOCK])
            at += count * BLOCK
        at = 0
        kept, file = self._parts.kept, self._parts.file
        for first, count in runs:
            for region, bits in split_by_region(first, count):
                for start, length in runs_of(kept.bits(region) & bits):
                    offset = (region * BLOCKS_PER_REGION + start) * BLOCK
                    place = at + offset - first * BLOCK
                    file.read_into(buffer[place : place + length * BLOCK], offset)
            at += count * BLOCK
        return examine()

    def flush(self) -> Step[Any]:
        """Flush the volume, after `quiesced`; sets `flushed`. Final. Raises StoreFlushFailed."""
        assert self.quiesced.over, "what is flushed must hold every write from before the switch"
        step = self._surface.flush()

        def over() -> None:
            self.flushed = step.error is None

        step.then(over)
        return step

    # Writers

    def guards(self, region: int) -> bool:
        is_wanted = self._frozen.touched[region] or self._parts.theirs.touched[region]
        return bool(is_wanted) and not self._free[region] and self._is_keeping

    def preserve(self, first: int, count: int) -> Wait | None:
        if count == 1 and self._keep_one(first):
            return None
        for region, bits in split_by_region(first, count):
            if self.guards(region):
                left = self._needed(region)
                wait = self._keep(region, bits & left, left) if bits & left else None
                if wait is not None:
                    return wait
        return None

    def _keep_one(self, block: int) -> bool:
        """The common case, without big numbers: one block, cached. False: ask in full."""
        region, byte, bit = block // BLOCKS_PER_REGION, block >> 3, 1 << (block & 7)
        if not self.guards(region):
            return True
        parts = self._parts
        left = self._frozen.bits_of[byte]
        if parts.theirs.touched[region]:
            left |= parts.theirs.bits_of[byte]
        if parts.done.touched[region]:
            left &= ~parts.done.bits_of[byte]
        if parts.kept.touched[region]:
            left &= ~parts.kept.bits_of[byte]
        if not left & bit:
            return True
        if not self.quiesced.over or region in self._copying:
            return False
        content = self._scratch[:BLOCK]
        try:
            if not self._surface.read_cached(block * BLOCK, content):
                return False
            parts.file.write(content, block * BLOCK)
        except (OSError, LeewardError) as error:
            self._fail(error)
            return True
        parts.kept.mark(block, 1)
        if left == bit:  # the last of eight: a good moment to look at the region
            self._look_if_free(region)
        return True

    def _keep(self, region: int, need: int, left: int) -> Wait | None:
        if not self.quiesced.over:
            return self.quiesced
        for bits, step in self._copying.get(region, ()):
            if bits & need:
                return step
        if need.bit_count() <= INLINE_BLOCKS and self._copy_cached(region, need, left):
            return None
        return self._copy_in_pool(region, self._needed(region) & need)

    def _copy_cached(self, region: int, need: int, left: int) -> bool:
        """Copy what is in the page cache, now. False: some was not; the capture failed: True, nothing is needed."""
        try:
            for start, count in runs_of(need):
                offset, block = (region * BLOCKS_PER_REGION + start) * BLOCK, self._scratch[: count * BLOCK]
                if not self._surface.read_cached(offset, block):
                    return False
                self._parts.file.write(block, offset)
                self._parts.kept.add(region, ((1 << count) - 1) << start)
        except (OSError, LeewardError) as error:
            self._fail(error)
        else:
            if left == need:
                self._free[region] = 1
        return True

    def _copy_in_pool(self, region: int, need: int) -> Step[Any]:
        surface, file = self._surface, self._parts.file

        def work() -> Exception | None:
            """An error is no error of the write that waits: that goes on, and the capture fails."""
            try:
                for start, count in runs_of(need):
                    offset, blocks = (region * BLOCKS_PER_REGION + start) * BLOCK, memoryview(bytearray(count * BLOCK))
                    surface.read_blocking(offset, blocks)
                    file.write(blocks, offset)
            except (OSError, LeewardError) as error:
                return error
            return None

        def settle(error: Exception | None) -> None:
            copies = self._copying[region]
            copies.remove(entry)
            if not copies:
                del self._copying[region]
            if error is not None:
                self._fail(error)
            elif self._when_ended is not None:
                self._parts.kept.add(region, need & self._needed(region))
                self._look_if_free(region)
            self._leave()

        step: Step[Exception | None] = Step(work, settle)
        entry = (need, step)
        self._copying.setdefault(region, []).append(entry)
        self._users += 1
        return step

    def _needed(self, region: int) -> int:
        """The blocks of a region that a write must not change before they are kept."""
        if not self._is_keeping:
            return 0
        parts = self._parts
        return self._wanted(region) & ~parts.done.bits(region) & ~parts.kept.bits(region)

    def _look_if_free(self, region: int) -> None:
        if self._is_keeping and not self._needed(region):
            self._free[region] = 1

    @property
    def _is_keeping(self) -> bool:
        return self.failed is None and self._when_ended is not None

    def _fail(self, error: Exception) -> None:
        if self.failed is None:
            self.failed = CaptureFailed(reason=getattr(error, "strerror", None) or str(error))

    def _check(self) -> None:
        if self.failed is not None:
            raise CaptureFailed(reason=self.failed.reason)
        if self._when_ended is None:
            raise CaptureFailed(reason="it has ended")

    # The end

    def settle(self) -> Step[None]:
        """The point is recorded: frozen bits are clean, at once; the step removes the files. Raises CaptureFailed."""
        self._check()
        if not self.flushed:
            raise CaptureFailed(reason="the volume was not flushed after it")
        self._end(self._tracker.drop_frozen)
        return Step(self._doomed.bury, final=True)

    def abandon(self) -> None:
        """The frozen blocks are dirty again, at once. Files are closed by the next preparation or the volume's end."""
        if self._when_ended is not None:
            try:
                self._end(self._tracker.merge_frozen)
            except OSError:  # no memory to merge: they stay dirty in a map of their own, until the next freeze
                self._end(lambda: None)

    def _end(self, release: Callable[[], LiveMap | None]) -> None:
        self.blocks  # noqa: B018  # counted while the map is there
        old = release()
        if old is not None:
            self._doomed.add(lambda: old.remove(self._disk))
        ended, self._when_ended = self._when_ended, None
        self._users += 1
        self._leave()
        if ended is not None:
            ended()

    def _leave(self) -> None:
        """One user of the capture file less; after the end the last one lets it go."""
        self._users -= 1
        if self._users == 0 and self._when_ended is None:
            self._doomed.add(self._parts.close)


def _nothing() -> None:
    """What a plain read examines."""
