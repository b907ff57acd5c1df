"""Conversation: ask the peer about one group and wait for the answer, on whatever link there is.

Answers come through the link's handler in order; a lost link or a refusal ends the wait with an error.
This module must never decide what an answer means.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar, cast

import msgspec

from engine.errors import PeerRefused, PeerUnreachable
from engine.link.peer import PeerLink
from engine.wire.messages import Refused

REPLY_DEADLINE_S = 60.0
"""A peer that takes longer to answer a question is treated as gone; long work on its side sends no answer late."""

M = TypeVar("M", bound=msgspec.Struct)


class LinkLost(PeerUnreachable):
    """The link ended while an answer was awaited; the sync resumes on the next one."""


class Conversation:
    """Questions and answers about one group over one link."""

    def __init__(self, link: PeerLink, group: bytes) -> None:
        self.link = link
        self.group = group
        self._answers: asyncio.Queue[msgspec.Struct | None] = asyncio.Queue()

    def answer(self, message: msgspec.Struct) -> None:
        """An answer arrived. Called by the link's handler, on the loop."""
        self._answers.put_nowait(message)

    def end(self) -> None:
        """The link is gone: whoever waits is told."""
        self._answers.put_nowait(None)

    async def ask(self, question: msgspec.Struct, expected: type[M], *, deadline_s: float = REPLY_DEADLINE_S) -> M:
        """Send `question` and return the answer. Raises LinkLost, PeerRefused."""
        await self.link.send(question)
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    message = await self._answers.get()
                    if message is None:
                        raise LinkLost(peer=self.link.peer.name)
                    if isinstance(message, Refused):
                        raise PeerRefused(
                            peer=self.link.peer.name, reason=message.message, cause=message.code, cure=message.remedy
                        )
                    if isinstance(message, expected):
                        return cast(M, message)
                    # An answer to a question that was given up: nobody waits for it any more.
        except TimeoutError:
            self.link.close("no answer in time")
            raise LinkLost(peer=self.link.peer.name) from None
