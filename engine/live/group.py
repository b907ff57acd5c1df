"""One running group: its queue of syncs, and the order in which the peer's questions are answered.

One sync runs, at most one more waits; a third request gets the one that waits. What the peer asks is
answered one message after the other. This module must never decide: the stories are in `operations`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from engine.link.peer_link import PeerLink
from engine.live.jobs import Jobs, Running
from engine.operations import changed, contact, receive, retention, reverse, snapshot, verify
from engine.operations.context import Context
from engine.operations.handles import GroupHandle
from engine.operations.refusals import as_leeward, refused
from engine.operations.sync import sync
from engine.requests import Sync
from engine.wire.messages import Abort, AskChanged, AskHashes, AskYield, Begin, Equal, Flush, Lineage, Message, Seal

TIDY_EVERY_S = 1.0

Heard = tuple[PeerLink, Message | None]
"""A message of the peer; None: the link ended."""


class RunningGroup:
    """A group with its tasks. `begin` starts them, `close` ends them."""

    def __init__(self, ctx: Context, jobs: Jobs, handle: GroupHandle, newer: Callable[[], None]) -> None:
        """`newer` is called when the recovery copy may stand for a newer moment than before."""
        self.handle = handle
        self._newer = newer
        self._ctx = ctx
        self._jobs = jobs
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()
        self._current: Running | None = None
        self._next: Running | None = None
        self._wake = asyncio.Event()
        self._fold_due = asyncio.Event()
        self._tidy_due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Start answering the peer, syncing what is asked, folding what is due, and clearing away what is over."""
        for work in (self._answer(), self._sync_all(), self._fold_all(), self._tidy_all()):
            self._tasks.append(asyncio.create_task(work, name=f"group {self.handle.name}"))
        self._fold_due.set()
        self._tidy_due.set()

    async def close(self) -> None:
        """End the tasks; a sync that runs is cut, and runs again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await receive.end_session(self._ctx, self.handle)

    # --- syncs

    @property
    def is_syncing(self) -> bool:
        return self._current is not None

    @property
    def waiting(self) -> Running | None:
        """The sync that waits for its turn."""
        return self._next

    def queue_sync(self, job: Running) -> None:
        """Run it when the running one is over. Ask `waiting` first: there is room for one."""
        assert self._next is None, "one sync waits at most"
        self._next = job
        self._wake.set()

    async def _sync_all(self) -> None:
        while True:
            while (job := self._next) is None:
                self._wake.clear()
                await self._wake.wait()
            self._current, self._next = job, None
            try:
                await self._jobs.run(job, partial(sync, self._ctx, self.handle, Sync(group=self.handle.name)))
            finally:
                self._current = None
                self._newer()

    # --- what the peer says

    def hear(self, link: PeerLink, message: Message | None) -> None:
        """A question of the peer, or the end of a link. Answered in order."""
        self._heard.put_nowait((link, message))

    async def _answer(self) -> None:
        while True:
            link, message = await self._heard.get()
            async with self.handle.lock:
                try:
                    await self._answer_one(link, message)
                except Exception as error:
                    # Whatever went wrong concerns this question: the peer is told, the next one is answered.
                    told = as_leeward(error)
                    text = f"Answering the peer about {self.handle.name}: {told.message}"
                    self._ctx.report("warning", told.code, text, group=self.handle.name, trace=error)
                    link.post(refused(told, group=self.handle.id, sync=getattr(message, "sync", None)))

    async def _answer_one(self, link: PeerLink, message: Message | None) -> None:
        ctx, handle = self._ctx, self.handle
        if message is None:
            await receive.end_session(ctx, handle)
        elif isinstance(message, Lineage):
            await contact.answer(ctx, handle, link, message)
        elif isinstance(message, AskChanged):
            await changed.answer(handle, link, message)
        elif isinstance(message, AskHashes):
            await verify.answer(ctx, handle, link, message)
        elif isinstance(message, AskYield):
            if not link.closed.is_set():  # who asked is told that nobody answered, and may have done something else
                await reverse.answer(ctx, handle, link, message)
        elif isinstance(message, Begin):
            await receive.begin(ctx, handle, link, message)
        elif isinstance(message, Flush):
            await receive.flush(handle, link, message)
        elif isinstance(message, Seal):
            await receive.seal(ctx, handle, link, message)
            self._fold_due.set()
            self._newer()
        elif isinstance(message, Equal):
            await receive.equal(ctx, handle, link, message)
            self._newer()
        elif isinstance(message, Abort):
            await receive.end_session(ctx, handle)

    # --- retention

    def retain(self) -> None:
        """What stays was asked for anew, or a pin went."""
        self._fold_due.set()

    async def _fold_all(self) -> None:
        while True:
            await self._fold_due.wait()
            self._fold_due.clear()
            try:
                await retention.retain(self._ctx, self.handle)
            except Exception as error:
                # Points and layers stay and syncs go on; it is tried again after the next seal.
                told = as_leeward(error)
                text = f"Letting old points of {self.handle.name} go: {told.message}"
                self._ctx.report("error", told.code, text, group=self.handle.name, trace=error)

    # --- snapshots that are over

    def tidy(self) -> None:
        """Files wait to be cleared away, and points may have lost a pin."""
        self._tidy_due.set()

    async def _tidy_all(self) -> None:
        while True:
            try:
                await snapshot.expire(self._ctx, self.handle)
                if self._tidy_due.is_set():
                    self._tidy_due.clear()
                    await snapshot.clear_away(self._ctx, self.handle)
                    self._fold_due.set()
            except Exception as error:
                # Rows name what is left; it is tried again after the next deletion, and at the next start.
                told = as_leeward(error)
                text = f"Clearing away snapshots of {self.handle.name}: {told.message}"
                self._ctx.report("error", told.code, text, group=self.handle.name, trace=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._tidy_due.wait(), TIDY_EVERY_S)
