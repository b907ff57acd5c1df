"""OverlayIO: block I/O on an overlay over an image: writes go to the overlay, reads fall through where it has nothing.

Everything on the owner's loop. Work in the pool that changes blocks holds their range: whatever overlaps waits
and is asked again. A flush that comes while another runs waits for a new one. It is a `Surface` as well, for the
writer of a promoted volume, which marks what is written. This module must never decide who may write.
"""

from __future__ import annotations

from collections.abc import Callable

from blockstore.blockset import runs_of
from blockstore.image import INLINE_BYTES as INLINE_READ_BYTES
from blockstore.image import Image
from blockstore.layer import Allocation, Layer
from blockstore.overlay import Overlay
from blockstore.steps import Step, Wait
from blockstore.units import BLOCK, BLOCKS_PER_REGION, cover

INLINE_WRITE_BYTES = 1 << 20
_ZEROS = bytes(1 << 20)

Part = tuple[int, int, bool]
"""(offset, length, is in the overlay)."""


class OverlayIO:
    """Block I/O and surface over one overlay."""

    def __init__(self, overlay: Overlay, image: Image) -> None:
        self.size_bytes = image.size_bytes
        self._overlay = overlay
        self._image = image
        self._held: list[tuple[int, int, Wait]] = []
        """Block ranges (first, end) that the pool works on."""
        self._done: set[tuple[int, int]] = set()
        """Durable ranges that are zeros by now and wait for their flush."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the image below, which must stay open."""
        return self._image.layers

    # Writing

    def prepare(self, offset: int, length: int) -> Wait | None:
        """As Surface.prepare: nothing at work on these blocks, and the edges of the range are in the overlay.

        Raises StoreFlushFailed once a flush has failed.
        """
        if self._overlay.failure is not None:
            raise self._overlay.failure
        first, count = cover(offset, length)
        for low, high, wait in self._held:
            if low < first + count and first < high:
                return wait
        self._overlay.touch(first // BLOCKS_PER_REGION, (first + count - 1) // BLOCKS_PER_REGION)
        end = offset + length
        edges = [first] if offset % BLOCK else []
        if end % BLOCK and end != self.size_bytes and first + count - 1 not in edges:
            edges.append(first + count - 1)
        absent = [block for block in edges if not self._has(block)]
        return self._copy_up(absent) if absent else None

    def write(self, offset: int, data: memoryview, durable: bool) -> Wait | None:
        """As BlockIO.write, and Surface.write. Raises OSError."""
        wait = self.prepare(offset, len(data))
        if wait is not None:
            return wait
        first, count = cover(offset, len(data))
        file = self._overlay.data
        if len(data) >= INLINE_WRITE_BYTES and not durable:
            return self._hold(first, count, lambda: file.write(data, offset), final=self._overlay.is_kept)
        is_new = not self._overlay.is_kept and not self._has_all(first, count)
        file.write(data, offset)
        self._overlay.written(first, count)
        return self.flush() if durable or is_new else None

    def zero(self, offset: int, length: int, durable: bool, may_punch: bool) -> Wait:
        """As BlockIO.zero; whole blocks are punched whatever `may_punch` says, for only a bit makes them exist."""
        return self._zero(offset, length, durable)

    def discard(self, offset: int, length: int, durable: bool) -> Wait:
        """As BlockIO.discard."""
        return self._zero(offset, length, durable)

    def _zero(self, offset: int, length: int, durable: bool) -> Wait:
        wait = self.prepare(offset, length)
        if wait is not None:
            return wait
        durable = durable or not self._overlay.is_kept
        if durable and (offset, length) in self._done:
            flush = self.flush()
            if flush.final:
                self._done.discard((offset, length))
            return flush
        first, count = cover(offset, length)
        step = self._hold(first, count, lambda: self._zero_blocking(offset, length), final=not durable)
        if durable:
            step.then(lambda: self._done.add((offset, length)))
        return step

    def _zero_blocking(self, offset: int, length: int) -> None:
        end, file = offset + length, self._overlay.data
        low = min(end, -(-offset // BLOCK) * BLOCK)
        high = end if end == self.size_bytes else max(low, end // BLOCK * BLOCK)
        if high > low:
            file.punch(low, high - low)
        for start, stop in ((offset, low), (high, end)):
            if stop > start:
                file.write(_ZEROS[: stop - start], start)

    def _copy_up(self, blocks: list[int]) -> Wait:
        """Bring blocks that are about to be written in part into the overlay, as they are below. Asked again after."""

        def work() -> None:
            for block in blocks:
                length = min(BLOCK, self.size_bytes - block * BLOCK)
                content = memoryview(bytearray(length))
                self._image.read_blocking(block * BLOCK, content)
                self._overlay.data.write(content, block * BLOCK)

        def settle(_: None) -> None:
            for block in blocks:
                self._overlay.written(block, 1)

        step: Step[None] = Step(work, settle)
        self._holding(blocks[0], blocks[-1] + 1, step)
        return step

    def _hold(self, first: int, count: int, work: Callable[[], None], *, final: bool) -> Step[None]:
        """Work in the pool that leaves these blocks in the overlay, whole."""
        step: Step[None] = Step(work, lambda _: self._overlay.written(first, count), final=final)
        self._holding(first, first + count, step)
        return step

    def _holding(self, first: int, end: int, step: Step[None]) -> None:
        entry = (first, end, step)
        self._held.append(entry)
        step.then(lambda: self._held.remove(entry))

    # Flushing

    def flush(self) -> Wait:
        """As BlockIO.flush."""
        running = self._overlay.flushing
        if running is None:
            return self._overlay.flush()
        again = Wait()
        running.then(again.fire)
        return again

    # Reading

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        """As BlockIO.read_into."""
        parts = self._parts(offset, len(buffer))
        if len(buffer) <= INLINE_READ_BYTES and all(self._read_cached(part, offset, buffer) for part in parts):
            return None
        return Step(lambda: self._read(parts, offset, buffer), final=True)

    def read_cached(self, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` if that needs no disk."""
        return all(self._read_cached(part, offset, buffer) for part in self._parts(offset, len(buffer)))

    def read_blocking(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; blocking. Past the end of the image are zeros."""
        inside = max(0, min(len(buffer), self.size_bytes - offset))
        self._read(self._parts(offset, inside), offset, buffer[:inside])
        buffer[inside:] = bytes(len(buffer) - inside)

    def allocated(self, offset: int, length: int) -> Step[Allocation]:
        """As BlockIO.allocated."""
        parts = self._parts(offset, length)

        def work() -> Allocation:
            found: Allocation = []
            for start, count, is_here in parts:
                if is_here:
                    found += list(self._overlay.data.data_ranges(start, count))
                else:
                    found += self._image.allocated_blocking(start, count)
            return found

        return Step(work, final=True)

    def _read(self, parts: list[Part], origin: int, buffer: memoryview) -> None:
        for start, count, is_here in parts:
            view = buffer[start - origin : start - origin + count]
            if is_here:
                self._overlay.data.read_into(view, start)
            else:
                self._image.read_blocking(start, view)

    def _read_cached(self, part: Part, origin: int, buffer: memoryview) -> bool:
        start, count, is_here = part
        view = buffer[start - origin : start - origin + count]
        return self._overlay.data.read_cached(view, start) if is_here else self._image.read_cached(start, view)

    def _parts(self, offset: int, length: int) -> list[Part]:
        """The range, cut where the overlay begins or ends to have the blocks."""
        parts: list[Part] = []
        at, end = offset, offset + length
        bits_of = self._overlay.bits.bits
        while at < end:
            block = at // BLOCK
            region, inside = divmod(block, BLOCKS_PER_REGION)
            bits = bits_of(region) >> inside
            is_here = bool(bits & 1)
            run = next(runs_of(bits if is_here else ~bits & ((1 << (BLOCKS_PER_REGION - inside)) - 1))).count
            stop = min(end, (block + run) * BLOCK)
            if parts and parts[-1][2] == is_here:
                parts[-1] = (parts[-1][0], stop - parts[-1][0], is_here)
            else:
                parts.append((at, stop - at, is_here))
            at = stop
        return parts

    def _has(self, block: int) -> bool:
        region, inside = divmod(block, BLOCKS_PER_REGION)
        return bool(self._overlay.bits.bits(region) >> inside & 1)

    def _has_all(self, first: int, count: int) -> bool:
        return all(is_here for _, _, is_here in self._parts(first * BLOCK, count * BLOCK))
