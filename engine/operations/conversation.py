"""Conversation: ask the peer about one group and wait for the answer, on the link that stands now.

Answers come through the link's handler in order; a lost link or a refusal ends the wait with an error.
While blocks are shipped, what the receiver says of them goes to the shipper. This module must never decide
what an answer means.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from engine.errors import LeewardError, PeerRefused, PeerUnreachable
from engine.link.peer_link import PeerLink
from engine.transfer.sender import Shipper
from engine.wire.messages import Flushed, Grant, Landed, Message, Refused, Retry

if TYPE_CHECKING:
    from engine.operations.handles import GroupHandle

ANSWER_DEADLINE_S = 120.0
"""Longer than any honest answer takes: a seal that flushes slow disks. PINGs find a dead peer long before."""

M = TypeVar("M", bound=Message)
FOR_SHIPPER = (Grant, Landed, Retry, Flushed)


class Conversation:
    """Questions and answers about one group over one link."""

    def __init__(self, link: PeerLink) -> None:
        self.link = link
        self.shipper: Shipper | None = None
        self.sync: bytes | None = None
        self.is_sync = False
        """True if it is a running sync that talks."""
        self._answers: asyncio.Queue[Message | LeewardError] = asyncio.Queue()

    def hear(self, message: Message) -> None:
        """A message for this side of the group arrived. Called by the link's handler, on the loop."""
        if isinstance(message, Refused) and message.sync not in (None, self.sync):
            return  # about a sync that was given up: it must not end this one
        if self.shipper is not None and isinstance(message, FOR_SHIPPER):
            self.shipper.message(message)
        elif self.shipper is not None and isinstance(message, Refused):
            self.shipper.fail(self._refused(message))
        else:
            self._answers.put_nowait(message)

    def end(self, why: LeewardError | None = None) -> None:
        """Whoever waits is told `why`; None: the link is gone."""
        told = why or PeerUnreachable(peer=self.link.peer.name)
        if self.shipper is not None:
            self.shipper.fail(told)
        self._answers.put_nowait(told)

    async def ask(self, question: Message, expected: type[M]) -> M:
        """Send `question` and return the answer. Raises PeerUnreachable when the link is lost, PeerRefused.

        And what `end` was told.
        """
        await self.link.send(question)
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                return await self._answer(expected)
        except TimeoutError:
            self.link.close("no answer in time")
            raise PeerUnreachable(peer=self.link.peer.name) from None

    async def _answer(self, expected: type[M]) -> M:
        while True:
            message = await self._answers.get()
            if isinstance(message, LeewardError):
                raise message
            if isinstance(message, Refused):
                raise self._refused(message)
            if isinstance(message, expected):
                return message
            # An answer to a question that was given up: nobody waits for it any more.

    def _refused(self, message: Refused) -> PeerRefused:
        return PeerRefused(peer=self.link.peer.name, reason=message.message, cause=message.code, cure=message.remedy)


@asynccontextmanager
async def converse(handle: GroupHandle, link: PeerLink) -> AsyncIterator[Conversation]:
    """Talk about the group on this link; one conversation a group at a time: another one is waited for."""
    async with handle.talking:
        talk = handle.talk = Conversation(link)
        try:
            yield talk
        finally:
            handle.talk = None
