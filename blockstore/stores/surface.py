"""StoreSurface: a plain store as the surface that a writer's bytes land on.

Small writes and cached reads act at once on the owner's loop; everything that may take long is handed back
as a step. A durable write that fails with an I/O error counts as a failed flush: the kernel has dropped the
page, so no later flush can be believed. This module must never mark blocks; the writer does, before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blockstore.errors import StoreFlushFailed
from blockstore.steps import Step, Wait
from blockstore.stores.base import BlockStore

INLINE_BYTES = 1 << 20
"""Requests of this size and more go to the pool; below it a thread hop costs more than the copy."""


class StoreSurface:
    """`fail` is told, on the loop, of a flush that failed: then the volume has."""

    def __init__(self, store: BlockStore, fail: Callable[[StoreFlushFailed], None]) -> None:
        self.store = store
        self.size_bytes = store.size_bytes
        self._fail = fail

    def prepare(self, offset: int, length: int) -> Wait | None:
        """Nothing has to come first."""
        return None

    def write(self, offset: int, data: memoryview, durable: bool) -> Step[Any] | None:
        store = self.store
        if durable or len(data) >= INLINE_BYTES:
            return self._step(lambda: store.write(data, offset, durable))
        store.write(data, offset)
        return None

    def zero(self, offset: int, length: int, durable: bool, may_punch: bool) -> Step[Any]:
        store = self.store

        def work() -> None:
            store.zero(offset, length, may_punch)
            if durable:
                store.flush()

        return self._step(work)

    def discard(self, offset: int, length: int, durable: bool) -> Step[Any]:
        store = self.store

        def work() -> None:
            store.discard(offset, length)
            if durable:
                store.flush()

        return self._step(work)

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        store = self.store
        if len(buffer) <= INLINE_BYTES and store.read_cached(buffer, offset):
            return None
        return self._step(lambda: store.read_into(buffer, offset))

    def read_cached(self, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` if that needs no disk."""
        return self.store.read_cached(buffer, offset)

    def read_blocking(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; blocking."""
        self.store.read_into(buffer, offset)

    def flush(self) -> Step[Any]:
        return self._step(self.store.flush)

    def allocated(self, offset: int, length: int) -> Step[list[tuple[int, int, bool]]]:
        store = self.store
        return Step(lambda: list(store.data_ranges(offset, length)), final=True)

    def _step(self, work: Callable[[], Any]) -> Step[Any]:
        return Step(work, failed=self.failed, final=True)

    def failed(self, error: Exception) -> None:
        """What to do on the loop when work on the store raised `error`."""
        if isinstance(error, StoreFlushFailed):
            self._fail(error)
