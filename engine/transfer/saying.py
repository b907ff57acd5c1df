"""What a receiver says while it works: RETRY, LANDED, GRANT, in that order, the newest of each and no more.

Whoever has something to say never waits for the link; one task says it. A lost link ends it quietly, for the
link's own handler tells of that. On the loop only. This module must never say that something is durable on
its own account.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from engine.errors import PeerUnreachable
from engine.wire.messages import Grant, Landed, Message, Retry


class Saying:
    """The voice of one session."""

    def __init__(self, sync: bytes, send: Callable[[Message], Awaitable[None]]) -> None:
        self._sync = sync
        self._send = send
        self._granted = 0
        self._landed: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._retries: deque[Retry] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._lost: Exception | None = None

    def grant(self, count: int) -> None:
        """`count` bytes of the window are open again."""
        self._granted += count
        self._speak()

    def landed(self, index: int, frames: int) -> None:
        """The first `frames` frames of a volume in this session are durable."""
        if frames > self._told.get(index, 0):
            self._landed[index] = self._told[index] = frames
            self._speak()

    def retry(self, index: int, regions: bytes) -> None:
        """Send `regions` (packed) again; frames of this volume are counted anew from the next FLUSHED on."""
        self._retries.append(Retry(self._sync, index, regions))
        self._speak()

    def restart(self, index: int) -> None:
        """Frames of this volume are counted from 0 again."""
        self._told.pop(index, None)
        # What was to be told of the frames before is still true, and goes out before the next FLUSHED does.

    async def said(self) -> None:
        """Return when all was handed to the link. Raises what the link raised when it was lost."""
        while self._task is not None:
            await asyncio.wait((self._task,))
        if self._lost is not None:
            raise self._lost

    def end(self) -> None:
        """Say nothing any more; what is being said is finished by itself."""
        self._is_over = True

    def _speak(self) -> None:
        if self._task is None and not self._is_over:
            self._task = asyncio.get_running_loop().create_task(self._say())

    def _next(self) -> Message | None:
        if self._retries:
            return self._retries.popleft()
        if self._landed:
            return Landed(self._sync, *self._landed.popitem())
        if self._granted:
            granted, self._granted = self._granted, 0
            return Grant(self._sync, granted)
        return None

    async def _say(self) -> None:
        try:
            while not self._is_over and (message := self._next()) is not None:
                await self._send(message)
        except (ConnectionError, PeerUnreachable) as error:
            self._is_over = True
            self._lost = error
        finally:
            self._task = None
