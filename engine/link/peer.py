"""The links of a site: one for every peer, whoever of the two dialled, made again whenever it breaks.

Here meet those who dial (`dialer.py`), those who are dialled (`listener.py`) and the rule that leaves one connection
of two. Everything happens on the loop; a link replaces its predecessor within one call, so nobody sees two. This
module must never keep a connection whose other end is not a peer, and never decide what a message means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from engine.clock import Clock
from engine.errors import (
    LeewardError,
    LinkCrossed,
    PeerFingerprintWrong,
    PeerSiteChanged,
    PeerUnknown,
    PeerUnreachable,
    PlainNotAgreed,
    UnknownName,
)
from engine.link.candidate import Candidate
from engine.link.complaints import Complaints
from engine.link.dialer import Dialer
from engine.link.identity import Identity
from engine.link.listener import Listener
from engine.link.pairing import Pairing
from engine.link.peer_link import LinkHandler, PeerLink
from engine.link.timing import Timing
from engine.link.tls import client_context, server_context
from engine.model import Peer, Site
from engine.version import VERSION as SOFTWARE
from engine.wire.hello import CODECS, FEATURES, VERSION, agree, expect_hello, gives_way
from engine.wire.messages import Hello, Message, Pair

__all__ = ["LinkHandler", "Links", "PeerLink", "Report"]

_TURNS_TO_CLOSE = 3
"""A connection that was cancelled in its TLS handshake has no owner to tell: the loop closes it some turns later."""

Report: TypeAlias = Callable[[str, str, str, dict[str, Any]], None]
"""report(level, code, message, details): an event for operators; never blocks."""


class Links:
    """All links of one site. `site_name` and ids go out in HELLO; `listen` is (host, port), port 0 for any."""

    def __init__(
        self,
        *,
        site: Site,
        identity: Identity,
        listen: tuple[str, int],
        handler: LinkHandler,
        report: Report,
        clock: Clock,
        timing: Timing | None = None,
    ) -> None:
        self.timing = timing or Timing()
        self.clock = clock
        self.client_tls = client_context(identity)
        self.pairing = Pairing(self.client_tls, self.timing)
        self._site = site
        self._identity = identity
        self._handler = handler
        self._report = report
        self._complaints = Complaints(report, self.timing.complain_s)
        self._listener = Listener(self, listen, server_context(identity), self.timing)
        self._session = clock.token(16)
        self._hellos = 0
        self._dialers: dict[str, Dialer] = {}
        self._retired: list[Dialer] = []
        self._links: dict[str, PeerLink] = {}
        self._ending: list[PeerLink] = []
        self._waiters: dict[str, list[asyncio.Future[PeerLink]]] = {}
        self._is_closed = False

    # --- what a site asks for

    async def start(self) -> None:
        """Listen, then dial every peer that was set. Raises PortTaken, ListenFailed."""
        await self._listener.start()
        for dialer in self._dialers.values():
            dialer.start()

    async def close(self) -> None:
        """Stop listening and dialling, end all links orderly. Returns when every socket is closed."""
        self._is_closed = True
        dialers, self._dialers = [*self._dialers.values(), *self._retired], {}
        for link in list(self._links.values()):
            link.close("this site shuts down")
        for name in self._waiters:
            self._disappoint(name)
        await asyncio.gather(self._listener.close(), self.pairing.close(), *(dialer.close() for dialer in dialers))
        await asyncio.gather(*(link.gone() for link in self._ending))
        for _ in range(_TURNS_TO_CLOSE):
            await asyncio.sleep(0)

    @property
    def fingerprint(self) -> str:
        """Of this site's certificate."""
        return self._identity.fingerprint

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    def set_peers(self, peers: Sequence[Peer]) -> None:
        """Keep a link with each of these and with nobody else.

        A changed address, fingerprint or `plain` ends a link; an id that was learnt does not.
        """
        wanted = {peer.name: peer for peer in peers}
        self._retired = [dialer for dialer in self._retired if not dialer.is_finished]
        for name, dialer in list(self._dialers.items()):
            peer = wanted.get(name)
            if peer is None or _route(peer) != _route(dialer.peer):
                del self._dialers[name]
                dialer.stop()
                self._retired.append(dialer)
                self._disappoint(name)
                if (link := self._links.get(name)) is not None:
                    link.close("the peer was removed" if peer is None else "the peer was changed")
            else:
                dialer.peer = peer
                if (link := self._links.get(name)) is not None:
                    link.peer = peer
        for name, peer in wanted.items():
            if name not in self._dialers:
                self._dialers[name] = Dialer(self, peer)
                if self._listener.is_open:
                    self._dialers[name].start()

    def get(self, peer_name: str) -> PeerLink | None:
        """The link with this peer, if it stands."""
        return self._links.get(peer_name)

    async def wait(self, peer_name: str, timeout_s: float) -> PeerLink:
        """The link with this peer, dialled at once if need be. Raises UnknownName, PeerUnreachable after the time."""
        if (link := self._links.get(peer_name)) is not None:
            return link
        dialer = self._dialers.get(peer_name)
        if dialer is None:
            raise UnknownName(what="peer", name=peer_name)
        dialer.hurry()
        waiter: asyncio.Future[PeerLink] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(peer_name, [])
        waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            raise PeerUnreachable(peer=peer_name) from None
        finally:
            waiters.remove(waiter)

    def redial(self, peer_name: str) -> None:
        """Drop the link with this peer, if there is one, and dial at once."""
        if (dialer := self._dialers.get(peer_name)) is not None:
            dialer.hurry()
        if (link := self._links.get(peer_name)) is not None:
            link.close("it is dialled again")

    # --- what dialers and the listener ask for

    def hello(self) -> Hello:
        """A HELLO of this site, newer than all before."""
        self._hellos += 1
        return Hello(
            version=VERSION,
            features=FEATURES,
            codecs=CODECS,
            site_id=self._site.id,
            site_name=self._site.name,
            session=self._session,
            number=self._hellos,
            fingerprint=self._identity.fingerprint,
            software=f"leeward {SOFTWARE}",
        )

    def answered(self, dialer: Dialer, candidate: Candidate, message: Message) -> None:
        """The peer that was dialled answered. Raises PeerRefused, WireDamaged, ProtocolVersion and the like."""
        assert candidate.hello is not None
        peer = dialer.peer
        theirs = expect_hello(message, peer.name)
        found = candidate.fingerprint or theirs.fingerprint
        if found != peer.fingerprint:
            raise PeerFingerprintWrong(
                peer=peer.name, address=candidate.address, expected=peer.fingerprint, found=found
            )
        self._stand(peer, candidate, candidate.hello, theirs)

    def accepted(self, candidate: Candidate, message: Message) -> None:
        """Someone who dialled says who he is. Raises PeerUnknown, PlainNotAgreed, LinkCrossed and the like."""
        if isinstance(message, Pair):
            self.pairing.accepted(candidate, message)
            return
        theirs = expect_hello(message, candidate.address)
        found = candidate.fingerprint or theirs.fingerprint
        dialer = next((d for d in self._dialers.values() if d.peer.fingerprint == found), None)
        if dialer is None and self.pairing.is_joining(found):
            raise LinkCrossed(peer=self._site.name)  # it wrote us down before we did it: it dials again, and so do we
        if dialer is None or self._is_closed:
            raise PeerUnknown(address=candidate.address, site=theirs.site_name, fingerprint=found)
        if candidate.fingerprint is None and not dialer.peer.plain:
            raise PlainNotAgreed(peer=dialer.peer.name)
        ours = self.hello()
        standing = self._links.get(dialer.peer.name)
        if gives_way(ours, theirs, standing.hello if standing else None, is_dialling=dialer.is_dialling):
            raise LinkCrossed(peer=self._site.name)
        self._check(dialer.peer, ours, theirs)
        candidate.transport.post(ours)
        self._stand(dialer.peer, candidate, ours, theirs)

    def complain(self, key: str, error: LeewardError, level: str = "warning") -> None:
        """Report `error` unless the same was reported about the same `key` a short while ago."""
        self._complaints.add(key, error, level)

    def _disappoint(self, peer_name: str) -> None:
        for waiter in self._waiters.get(peer_name, ()):
            if not waiter.done():
                waiter.set_exception(PeerUnreachable(peer=peer_name))

    def _check(self, peer: Peer, ours: Hello, theirs: Hello) -> None:
        agree(ours, theirs)
        if peer.id is not None and theirs.site_id != peer.id:
            raise PeerSiteChanged(peer=peer.name, expected=peer.id.hex(), found=theirs.site_id.hex())

    def _stand(self, peer: Peer, candidate: Candidate, ours: Hello, theirs: Hello) -> None:
        """Make the link of this connection, in the place of the one there may be."""
        self._check(peer, ours, theirs)
        if (older := self._links.get(peer.name)) is not None:
            older.close("a newer connection took its place")
        link = PeerLink(
            peer, candidate.transport, theirs, agree(ours, theirs), _Watched(self, self._handler), self.timing
        )
        self._links[peer.name] = link
        self._complaints.forget(peer.name)
        self._report("info", "peer_connected", f"The link with peer {peer.name} stands.", {"peer": peer.name})
        link.begin()
        if (dialer := self._dialers.get(peer.name)) is not None:
            dialer.linked(link, candidate)
        for waiter in self._waiters.get(peer.name, ()):
            if not waiter.done():
                waiter.set_result(link)

    def ended(self, link: PeerLink) -> None:
        """A link is over. Called before the site's handler hears of it."""
        name = link.peer.name
        if self._links.get(name) is link:
            del self._links[name]
        self._ending = [one for one in self._ending if not one.is_gone] + [link]
        level = "info" if link.error is None else "warning"
        code = link.error.code if isinstance(link.error, LeewardError) else "peer_disconnected"
        text = f"The link with peer {name} ended: {link.reason.rstrip('.')}."
        self._report(level, code, text, {"peer": name, "reason": link.reason})


class _Watched:
    """The site's handler, with `links` told first when a link ends."""

    def __init__(self, links: Links, handler: LinkHandler) -> None:
        self._links = links
        self.connected = handler.connected
        self.message = handler.message
        self.place = handler.place
        self.data = handler.data
        self._disconnected = handler.disconnected

    def disconnected(self, link: PeerLink) -> None:
        self._links.ended(link)
        self._disconnected(link)


def _route(peer: Peer) -> tuple[str, str, bool]:
    return peer.address, peer.fingerprint, peer.plain
