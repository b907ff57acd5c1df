"""Sites with links and nothing else, in this process: real sockets, real TLS, a handler that writes down what it hears.

For tests of `engine.link` and of what stands on it. Patience is cut to fractions of a second, rules are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.clock import SystemClock
from engine.link import identity
from engine.link.identity import Identity
from engine.link.peer import Links
from engine.link.peer_link import PeerLink
from engine.link.timing import Timing
from engine.model import Peer, Site, SiteId
from engine.wire.messages import Data, Message

QUICK = Timing(
    ping_s=0.05, attempt_s=2.0, backoff_first_s=0.02, backoff_most_s=0.1, steady_s=0.05, stranger_s=2.0, linger_s=0.5
)
DEADLINE_S = 10.0


class News:
    """Wakes whoever waits for a condition whenever something was heard."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def heard(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Return when `condition()` is true. AssertionError naming `what` if it does not come true in time."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {what}") from None


@dataclass
class Recorder:
    """A link handler that remembers. `place` gives fresh memory and keeps it; `failure` is raised by `message`."""

    news: News
    links: list[PeerLink] = field(default_factory=list)
    over: list[PeerLink] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    payloads: list[bytearray] = field(default_factory=list)
    complete: list[tuple[Data, bytearray]] = field(default_factory=list)
    failure: Exception | None = None
    order: list[str] = field(default_factory=list)

    def connected(self, link: PeerLink) -> None:
        self.links.append(link)
        self.order.append("connected")
        self.news.heard()

    def disconnected(self, link: PeerLink) -> None:
        self.over.append(link)
        self.order.append("disconnected")
        self.news.heard()

    def message(self, link: PeerLink, message: Message) -> None:
        self.messages.append(message)
        self.news.heard()
        if self.failure is not None:
            raise self.failure

    def place(self, link: PeerLink, data: Data, payload_length: int) -> Sequence[memoryview]:
        self.payloads.append(bytearray(payload_length))
        whole = memoryview(self.payloads[-1])
        return [whole[: data.head_bytes], whole[data.head_bytes :]]

    def data(self, link: PeerLink, data: Data) -> None:
        self.complete.append((data, self.payloads[-1]))
        self.news.heard()


class LinkedSite:
    """One site. `events` holds what it reported: (level, code, message, details)."""

    def __init__(
        self, folder: Path, name: str, site_id: bytes, *, timing: Timing = QUICK, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.name = name
        self.news = News()
        self.handler = Recorder(self.news)
        self.events: list[tuple[str, str, str, dict[str, Any]]] = []
        self.identity = self._identity(folder / name, name)
        self.site = Site(SiteId(site_id), name)
        self.host = host
        self.links = Links(
            site=self.site,
            identity=self.identity,
            listen=(host, port),
            handler=self.handler,
            report=self._report,
            clock=SystemClock(),
            timing=timing,
        )

    @staticmethod
    def _identity(folder: Path, name: str) -> Identity:
        return identity.load(folder) if folder.exists() else identity.create(folder, name)

    def _report(self, level: str, code: str, message: str, details: dict[str, Any]) -> None:
        self.events.append((level, code, message, details))
        self.news.heard()

    @property
    def codes(self) -> list[str]:
        return [event[1] for event in self.events]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.links.port}"

    def as_peer(self, *, plain: bool = False, **changed: Any) -> Peer:
        """This site as another one records it."""
        fields = {"name": self.name, "address": self.address, "fingerprint": self.identity.fingerprint, "id": None}
        return Peer(plain=plain, **{**fields, **changed})

    async def hears(self, code: str) -> tuple[str, str, str, dict[str, Any]]:
        """The first event with this code."""
        await self.news.until(lambda: code in self.codes, f"{self.name} reports {code}, not only {self.codes}")
        return next(event for event in self.events if event[1] == code)
