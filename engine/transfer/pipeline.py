"""What both ends of the copy path are built of: page-aligned buffers, a window in bytes, and joining.

Buffers are made once and go round: memory follows neither the size of a volume nor the amount of change.
This module must never know what a frame is.

Measured: four 4 MiB buffers at the sender and eight at the receiver are where
more stops helping; smaller frames fall behind on direct writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

from blockstore.disk import aligned_buffer
from blockstore.frame import BUFFER_BYTES, blocks_of


class Buffer:
    """`BUFFER_BYTES` of page-aligned memory, with a slice per block made once (hashing is a quarter faster so)."""

    __slots__ = ("slices", "view")

    def __init__(self) -> None:
        self.view = aligned_buffer(BUFFER_BYTES)
        self.slices = blocks_of(self.view)


class Buffers:
    """A fixed number of buffers, made when first needed. On the loop only."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._made = 0
        self._free: list[Buffer] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """How many can be taken at once."""
        return self.count - self._made + len(self._free)

    def take(self) -> Buffer | None:
        """A buffer, or None: all are in use. Whoever takes one gives it back."""
        if self._free:
            return self._free.pop()
        if self._made == self.count:
            return None
        self._made += 1
        return Buffer()

    async def wait(self) -> None:
        """Return when a buffer may be free; look again with `take`, another may have been quicker."""
        if self.free:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise

    def give(self, buffer: Buffer) -> None:
        """The buffer is free: no thread and no socket touches it any more."""
        self._free.append(buffer)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Window:
    """Bytes that the receiver has room for. One taker at a time; on the loop only."""

    def __init__(self, size: int) -> None:
        self.open = size
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    async def take(self, count: int) -> None:
        """Take `count` bytes, waiting for grants. Raises what `fail` was told."""
        while self._error is None and self.open < count:
            assert self._waiter is None, "one taker at a time"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error
        self.open -= count

    def give(self, count: int) -> None:
        """The receiver granted `count` bytes."""
        self.open += count
        self._wake()

    def fail(self, error: Exception) -> None:
        """There will be no more grants: whoever waits, now or later, is told why."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def joined(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Return when all `tasks` have ended, however they ended. They are not cancelled: threads cannot be.

    If the caller is cancelled, that is passed on only afterwards: until then the buffers are in use.
    """
    running = {task for task in tasks if not task.done()}
    cancelled: asyncio.CancelledError | None = None
    while running:
        try:
            _, running = await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
            running = {task for task in running if not task.done()}
    if cancelled is not None:
        raise cancelled
