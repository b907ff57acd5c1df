"""What the block store hands back when it cannot act at once.

A call on the owner's loop either acts at once and returns None, or returns a `Wait`. The caller lets the
wait be over and, unless it is `final`, makes the same call again from the start, for anything may have
changed meanwhile. A `Step` is a wait that ends when its blocking `work` has run; the work is a function
of descriptors, buffers and offsets that touches no shared state, so it may run in any thread. Everything
else here happens on the owner's loop only. This module must never know an event loop or a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Wait:
    """Something that must happen before a call can go on. Over once `fire` was called."""

    __slots__ = ("_callbacks", "error", "final", "over")

    def __init__(self, *, final: bool = False) -> None:
        self.over = False
        self.final = final
        """True: the call is complete when this is over. False: make the call again."""
        self.error: Exception | None = None
        self._callbacks: list[Callable[[], None]] = []

    def then(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the owner's loop when this is over; at once if it is."""
        if self.over:
            callback()
        else:
            self._callbacks.append(callback)

    def fire(self, error: Exception | None = None) -> None:
        """Mark this as over, failed if `error` is given. Once only."""
        assert not self.over, "a wait is over once"
        self.over = True
        self.error = error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Step(Wait, Generic[T]):
    """Blocking work, and what is done with its result on the owner's loop.

    `settle(result)` runs on the loop before any waiter goes on; `failed(error)`, if given, runs instead
    when the work raised. What `settle` or `failed` raises becomes the error of the wait; a `failed` that
    returns leaves the work's own error.
    """

    __slots__ = ("_failed", "_settle", "_work", "result", "started")

    def __init__(
        self,
        work: Callable[[], T],
        settle: Callable[[T], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
        *,
        final: bool = False,
    ) -> None:
        super().__init__(final=final)
        self._work = work
        self._settle = settle
        self._failed = failed
        self.started = False
        self.result: T | None = None

    def start(self) -> Callable[[], T]:
        """The work, for the one who runs it. Once only; everybody else waits with `then`."""
        assert not self.started, "a step runs once"
        self.started = True
        return self._work

    def complete(self, result: T) -> None:
        """The work returned `result`. On the owner's loop."""
        self.result = result
        try:
            if self._settle is not None:
                self._settle(result)
        except Exception as error:
            self.fire(error)
        else:
            self.fire()

    def fail(self, error: Exception) -> None:
        """The work raised `error`. On the owner's loop."""
        try:
            if self._failed is not None:
                self._failed(error)
        except Exception as other:
            error = other
        self.fire(error)

    def run(self) -> T:
        """Do it all here and now: for callers without a loop. Raises what the step failed with."""
        work = self.start()
        try:
            result = work()
        except Exception as error:
            self.fail(error)
        else:
            self.complete(result)
        if self.error is not None:
            raise self.error
        assert self.over
        return self.result  # type: ignore[return-value]
