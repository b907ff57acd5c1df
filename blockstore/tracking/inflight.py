"""InFlight: writes that were dispatched to the pool and are not complete, and waits for all of them to end.

A write that acts at once is never here. This module must never know what a write does.
"""

from __future__ import annotations

from collections.abc import Iterable

from blockstore.steps import Wait


class InFlight:
    """Everything on the owner's loop."""

    def __init__(self) -> None:
        self._writes: set[Wait] = set()

    @property
    def is_empty(self) -> bool:
        return not self._writes

    def add(self, write: Wait) -> None:
        """A write whose bits were set in this tick is under way."""
        self._writes.add(write)
        write.then(lambda: self._writes.discard(write))

    def drained(self) -> Wait:
        """Over when every write that is in flight now is complete; later ones do not count."""
        return all_over(self._writes)


def all_over(waits: Iterable[Wait]) -> Wait:
    """A wait that is over when all of `waits` are, whatever came of them."""
    pending = [wait for wait in waits if not wait.over]
    together = Wait()
    left = len(pending)

    def one() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            together.fire()

    if not pending:
        together.fire()
    for wait in pending:
        wait.then(one)
    return together
