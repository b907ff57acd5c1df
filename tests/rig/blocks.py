"""An independent record of writes: numbered, self-describing blocks, and the instant that an image shows.

Every block that is written says in itself which write it belongs to. One counter, the clock, ticks at each
request and each answer, over all volumes. So an image tells by itself when it was taken: at an instant T it must
show, for every block, a write that was asked for before T, and no later write to that block may have been
answered before T. `Record.instant` finds all T that fit every block of every volume; none means that the image
is no image of one instant (a write missing, or one too many), and an AssertionError names the blocks.

A write whose answer never came (the daemon was killed) may be there or not. At most one request a block is in
flight; `Load` keeps to that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK = 4096
NEVER = 1 << 62
MAGIC = 0x6C65652D626C6B31  # "lee-blk1"

Words = npt.NDArray[np.uint64]


@dataclass(slots=True)
class Write:
    """One request: `number` is also the tick at which it was asked for, `answered` the tick of its answer."""

    number: int
    volume: int
    first: int
    count: int
    zeros: bool
    answered: int = NEVER


@dataclass(frozen=True, slots=True)
class Instant:
    """The image fits any T with `after` < T < `before` in ticks of the record."""

    after: int
    before: int


def block_content(volume: int, first: int, count: int, number: int) -> bytes:
    """The bytes of `count` blocks of write `number`: four words that name it, then noise that follows from them."""
    words = _noise(np.arange(first, first + count, dtype=np.uint64), np.full(count, number, dtype=np.uint64))
    words[:, 0] = MAGIC
    words[:, 1] = volume
    words[:, 2] = np.arange(first, first + count, dtype=np.uint64)
    words[:, 3] = number
    return words.tobytes()


def _noise(blocks: Words, numbers: Words) -> Words:
    """512 words a block, incompressible, of block and write number (splitmix64's mixing)."""
    start = blocks * np.uint64(0x9E3779B97F4A7C15) ^ numbers * np.uint64(0xD6E8FEB86659FD93)
    words: Words = start[:, None] + np.arange(512, dtype=np.uint64)[None, :] * np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(27)
    return words


def numbers_in(volume: int, first: int, data: bytes | bytearray | memoryview) -> npt.NDArray[np.int64]:
    """The write number of each block in `data`, which starts at block `first`; 0 for zeros.

    AssertionError for a block that is torn, or stands in the wrong place.
    """
    words = np.frombuffer(data, dtype=np.uint64).reshape(-1, 512)
    zeros = ~words.any(axis=1)
    blocks = np.arange(first, first + len(words), dtype=np.uint64)
    numbers = np.where(zeros, np.uint64(0), words[:, 3])
    expected = _noise(blocks, numbers)
    expected[:, 0] = MAGIC
    expected[:, 1] = volume
    expected[:, 2] = blocks
    expected[:, 3] = numbers
    wrong = ~zeros & (words != expected).any(axis=1)
    if wrong.any():
        at = int(wrong.argmax())
        raise AssertionError(
            f"volume {volume}: {int(wrong.sum())} blocks hold no write of the record; the first is block "
            f"{first + at}, whose head says {[int(word) for word in words[at, :4]]}"
        )
    return numbers.astype(np.int64)


class Record:
    """All requests to the blocks of `volumes` volumes of `blocks` blocks each. Used from any thread."""

    def __init__(self, volumes: int, blocks: int) -> None:
        self.volumes = volumes
        self.blocks = blocks
        self._lock = threading.Lock()
        self._tick = 0
        self._history: list[dict[int, list[Write]]] = [{} for _ in range(volumes)]
        self._flying: list[set[int]] = [set() for _ in range(volumes)]

    def now(self) -> int:
        """The tick of this moment: later than everything that was answered before the call."""
        with self._lock:
            self._tick += 1
            return self._tick

    def ask(self, volume: int, first: int, count: int, *, zeros: bool = False) -> Write | None:
        """Note a request before it is sent. None if another one is in flight at one of its blocks."""
        span = range(first, first + count)
        with self._lock:
            flying = self._flying[volume]
            if any(block in flying for block in span):
                return None
            flying.update(span)
            self._tick += 1
            write = Write(self._tick, volume, first, count, zeros)
            history = self._history[volume]
            for block in span:
                history.setdefault(block, []).append(write)
            return write

    def answer(self, write: Write) -> None:
        """Note that the request was answered with success."""
        with self._lock:
            self._tick += 1
            write.answered = self._tick
            self._flying[write.volume].difference_update(range(write.first, write.first + write.count))

    def lose(self, write: Write) -> None:
        """Note that no answer will come: the write may be there or not."""
        with self._lock:
            self._flying[write.volume].difference_update(range(write.first, write.first + write.count))

    def changed(self, volume: int, after: int = 0) -> set[int]:
        """The blocks of `volume` that a request touched after the tick `after`."""
        with self._lock:
            return {block for block, writes in self._history[volume].items() if any(w.number > after for w in writes)}

    def instant(
        self, read: Sequence[Callable[[int, int], bytes | bytearray]], *, after: int = 0, before: int = NEVER
    ) -> Instant:
        """The instants between `after` and `before` at which an image of all volumes can have been taken.

        `read[volume](offset, length)` returns bytes of the image. AssertionError if no instant fits.
        """
        fits = _Fits(after, before)
        for volume in range(self.volumes):
            for first in range(0, self.blocks, 1024):
                count = min(1024, self.blocks - first)
                numbers = numbers_in(volume, first, read[volume](first * BLOCK, count * BLOCK))
                self._narrow(fits, volume, first, numbers.tolist())
        return fits.instant()

    def _narrow(self, fits: _Fits, volume: int, first: int, numbers: list[int]) -> None:
        history = self._history[volume]
        for block, number in enumerate(numbers, first):
            writes = history.get(block)
            if writes is None:
                assert number == 0, f"volume {volume} block {block} shows write {number}, which was never asked for"
                continue
            fits.narrow(f"volume {volume} block {block}", _spans(writes, number))


def _spans(writes: list[Write], number: int) -> list[tuple[int, int]]:
    """When a block with these writes shows `number` (0: zeros): (after, before) in ticks, ascending.

    The writes stand in the order in which they were asked for; one ends when a later one is answered.
    """
    spans = []
    ends = NEVER
    for write in reversed(writes):
        if (write.zeros and number == 0) or write.number == number:
            spans.append((write.number, ends))
        ends = min(ends, write.answered)
    if number == 0:
        spans.append((0, ends))
    return [span for span in reversed(spans) if span[0] < span[1]]


class _Fits:
    """The instants that are still possible: (after, before) spans, and who set their limits."""

    def __init__(self, after: int, before: int) -> None:
        self._spans = [(after, before)]
        self._limits = (f"the caller ({after})", f"the caller ({before})")

    def narrow(self, who: str, spans: list[tuple[int, int]]) -> None:
        low, high = self._spans[0][0], self._spans[-1][1]
        if len(spans) == 1 and spans[0][0] <= low and spans[0][1] >= high:
            return
        assert spans, f"{who} shows a write that was overwritten before it was asked for, or was never asked for"
        if spans[0][0] > low:
            self._limits = (f"{who} (shows a write asked for at {spans[0][0]})", self._limits[1])
        if spans[-1][1] < high:
            self._limits = (self._limits[0], f"{who} (misses a write answered at {spans[-1][1]})")
        self._spans = [(max(a, c), min(b, d)) for a, b in self._spans for c, d in spans if max(a, c) < min(b, d)]
        assert self._spans, f"no one instant: not before {self._limits[0]}, not after {self._limits[1]}"

    def instant(self) -> Instant:
        return Instant(self._spans[0][0], self._spans[-1][1])
