"""Pairing on the wire: one connection, one PAIR, one answer; never a link.

The joiner dials an address that its token names and says nothing before the fingerprint there is the token's. The
inviter hands a PAIR to whoever decides (`operations/pairing.py`) and closes behind the answer. This module must never
judge a proof, and never let a stranger say anything but PAIR.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from engine.errors import (
    HandshakeFailed,
    InvitationUnknown,
    InviterUnreachable,
    InviterWrong,
    LeewardError,
)
from engine.link.candidate import Candidate
from engine.link.connecting import connect, secure
from engine.link.sockets import discard
from engine.link.timing import Timing
from engine.wire.hello import expect_paired, require_version
from engine.wire.messages import Message, Pair, Paired

Welcome: TypeAlias = Callable[[Pair, str, str], Awaitable[Paired]]
"""welcome(pair, fingerprint, address): the answer, once it is durable. Raises LeewardError: what the joiner is told."""


class Pairing:
    """Both ends of pairing at one site. `tls` is that of a side that dials."""

    def __init__(self, tls: ssl.SSLContext, timing: Timing) -> None:
        self._tls = tls
        self._timing = timing
        self._welcome: Welcome | None = None
        self._joining: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def welcome(self, welcome: Welcome) -> None:
        """From now on strangers who were invited are answered."""
        self._welcome = welcome

    async def close(self) -> None:
        """Answer nobody any more."""
        self._welcome = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the inviting side

    def accepted(self, candidate: Candidate, pair: Pair) -> None:
        """A stranger says PAIR. Raises HandshakeFailed without TLS, ProtocolVersion, InvitationUnknown."""
        fingerprint = candidate.fingerprint
        if fingerprint is None:
            raise HandshakeFailed(address=candidate.address, reason="pairing by invitation needs TLS")
        require_version(pair)
        if self._welcome is None:
            raise InvitationUnknown(site=pair.site_name, address=candidate.address, fingerprint=fingerprint)
        candidate.postpone()
        task = asyncio.get_running_loop().create_task(self._answer(self._welcome, candidate, pair, fingerprint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, welcome: Welcome, candidate: Candidate, pair: Pair, fingerprint: str) -> None:
        try:
            paired = await welcome(pair, fingerprint, candidate.address)
        except LeewardError as error:
            candidate.refuse(error)
        except BaseException:
            candidate.refuse(LeewardError())
            raise
        else:
            candidate.answer(paired)

    # --- the joining side

    @contextmanager
    def joining(self, fingerprint: str) -> Iterator[None]:
        """While a pairing with this certificate is under way: it may dial before we have written it down."""
        self._joining.append(fingerprint)
        try:
            yield
        finally:
            self._joining.remove(fingerprint)

    def is_joining(self, fingerprint: str) -> bool:
        return fingerprint in self._joining

    async def ask(
        self, addresses: Sequence[str], fingerprint: str, site: str, make: Callable[[str], Pair]
    ) -> tuple[Paired, str]:
        """The answer of the site with this fingerprint to `make(our host, as it sees us)`, and where it answered.

        Tries the addresses in turn. Raises PeerRefused, InviterWrong, InviterUnreachable, WireDamaged.
        """
        failures: list[LeewardError] = []
        for address in addresses:
            try:
                return await self._ask_at(address, fingerprint, site, make), address
            except (InviterUnreachable, InviterWrong) as error:
                failures.append(error)
        raise next((error for error in failures if isinstance(error, InviterWrong)), failures[-1])

    async def _ask_at(self, address: str, fingerprint: str, site: str, make: Callable[[str], Pair]) -> Paired:
        answers: list[Paired] = []

        def heard(_: Candidate, message: Message) -> None:
            answers.append(expect_paired(message, site))

        candidate = Candidate(address, heard, linger_s=self._timing.linger_s)
        try:
            async with asyncio.timeout(self._timing.attempt_s):
                await self._exchange(candidate, fingerprint, make)
        except TimeoutError as error:
            reason = f"none came within {self._timing.attempt_s:g} s"
            raise InviterUnreachable(address=address, reason=reason) from error
        except HandshakeFailed as error:
            raise InviterUnreachable(address=address, reason="the connection ended before it came") from error
        except ssl.SSLError as error:
            raise InviterUnreachable(address=address, reason=error.reason or str(error)) from error
        except OSError as error:  # the look-up of the name, too
            raise InviterUnreachable(address=address, reason=error.strerror or str(error)) from error
        finally:
            if answers:
                candidate.transport.close()
                await candidate.transport.gone.wait()
            await candidate.let_go()
        return answers[0]

    async def _exchange(self, candidate: Candidate, fingerprint: str, make: Callable[[str], Pair]) -> None:
        connection = await connect(candidate.address, self._timing)
        own_host = str(connection.getsockname()[0])
        try:
            await secure(candidate, connection, self._tls, self._timing)
        finally:
            if not candidate.transport.is_connected:
                discard(connection)
        found = candidate.fingerprint or ""
        if found != fingerprint:
            error = InviterWrong(address=candidate.address, expected=fingerprint, found=found)
            candidate.refuse(error)
            raise error
        candidate.transport.post(make(own_host))
        await asyncio.shield(candidate.done)
