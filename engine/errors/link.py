"""Peers and the link to them: pairing, dialling, the wire.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_REFUSED, EXIT_USAGE, LeewardError


@dataclass(eq=False)
class PeerUnreachable(LeewardError):
    peer: str
    code: ClassVar[str] = "peer_unreachable"
    meaning: ClassVar[str] = "There is no contact with peer {peer}."
    remedy: ClassVar[str] = (
        "Check that its daemon runs and that its address and fingerprint are right (`leeward peer list`)."
    )


@dataclass(eq=False)
class PeerUnknown(LeewardError):
    address: str
    site: str
    fingerprint: str
    code: ClassVar[str] = "unknown_peer"
    meaning: ClassVar[str] = "Site {site} with fingerprint {fingerprint} dialled from {address}, and is no peer here."
    remedy: ClassVar[str] = "If it should be: `leeward peer add NAME --address HOST:PORT --fingerprint {fingerprint}`."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PeerFingerprintWrong(LeewardError):
    """Who answers at the peer's address is someone else."""

    peer: str
    address: str
    expected: str
    found: str
    code: ClassVar[str] = "wrong_fingerprint"
    meaning: ClassVar[str] = (
        "{address} does not answer as peer {peer}: its fingerprint is {found}, the one paired is {expected}."
    )
    remedy: ClassVar[str] = (
        "Ask the other site for its fingerprint; if it truly is this one, `leeward peer remove {peer}` and add it anew."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PeerSiteChanged(LeewardError):
    peer: str
    expected: str
    found: str
    code: ClassVar[str] = "peer_site_changed"
    meaning: ClassVar[str] = "Peer {peer} is site {found} now; it was {expected} when the two first met."
    remedy: ClassVar[str] = "If its data directory was made anew, `leeward peer remove {peer}` and add it again."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PlainBeyondLoopback(LeewardError):
    address: str
    code: ClassVar[str] = "plain_beyond_loopback"
    meaning: ClassVar[str] = "{address} is not on this host: a link without TLS is allowed on loopback only."
    remedy: ClassVar[str] = "Add the peer without --plain."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class PlainNotAgreed(LeewardError):
    peer: str
    code: ClassVar[str] = "plain_not_agreed"
    meaning: ClassVar[str] = "Peer {peer} dialled without TLS, but was added with TLS here."
    remedy: ClassVar[str] = "Give --plain to `leeward peer add` on both sides, or on neither."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class ProtocolVersion(LeewardError):
    peer: str
    theirs: int
    ours: str
    code: ClassVar[str] = "protocol_version"
    meaning: ClassVar[str] = "Site {peer} speaks version {theirs} of the protocol, this one {ours}."
    remedy: ClassVar[str] = "Bring the older of the two daemons up to date."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class DialFailed(LeewardError):
    peer: str
    address: str
    reason: str
    code: ClassVar[str] = "dial_failed"
    meaning: ClassVar[str] = "Peer {peer} does not answer at {address}: {reason}. It is dialled again and again."
    remedy: ClassVar[str] = "Check that its daemon runs, that the address is right, and what lies between."


@dataclass(eq=False)
class HandshakeFailed(LeewardError):
    """A connection ended before both sides knew each other."""

    address: str
    reason: str
    code: ClassVar[str] = "handshake_failed"
    meaning: ClassVar[str] = "A connection with {address} came to nothing: {reason}."
    remedy: ClassVar[str] = (
        "If it is a peer: look at the events there, and compare the fingerprints on both sides (`leeward peer list`)."
    )


@dataclass(eq=False)
class LinkCrossed(LeewardError):
    """Both sides dialled at once; this connection is the one that gives way."""

    peer: str
    code: ClassVar[str] = "link_crossed"
    meaning: ClassVar[str] = "Another connection with {peer} takes the place of this one."
    remedy: ClassVar[str] = "Nothing: there is one link for two sites, whoever dialled."


@dataclass(eq=False)
class LinkSilent(LeewardError):
    peer: str
    silence_s: float
    code: ClassVar[str] = "link_silent"
    meaning: ClassVar[str] = "Nothing came from peer {peer} for {silence_s:g} s; the link is dialled again."
    remedy: ClassVar[str] = "If it stays away: check its host, its daemon and the network between."


@dataclass(eq=False)
class LinkStuck(LeewardError):
    peer: str
    backlog_bytes: int
    code: ClassVar[str] = "link_stuck"
    meaning: ClassVar[str] = "Peer {peer} sends but does not read: {backlog_bytes} bytes wait for it."
    remedy: ClassVar[str] = "The link is made anew; if it goes on, look at the daemon there."


@dataclass(eq=False)
class TooManyStrangers(LeewardError):
    address: str
    limit: int
    code: ClassVar[str] = "too_many_strangers"
    meaning: ClassVar[str] = (
        "A connection from {address} was dropped: {limit} that have not said who they are is the limit."
    )
    remedy: ClassVar[str] = "Find out who dials from there; peers get through as soon as the others have timed out."


@dataclass(eq=False)
class WireDamaged(LeewardError):
    reason: str
    code: ClassVar[str] = "wire_damaged"
    meaning: ClassVar[str] = "What arrived on a link is not the protocol: {reason}."
    remedy: ClassVar[str] = "The link is made anew; if it goes on, find out what else talks to this port."


@dataclass(eq=False)
class WireLimit(LeewardError):
    what: str
    size: int
    limit: int
    code: ClassVar[str] = "wire_limit"
    meaning: ClassVar[str] = "A message on a link is too large: {what} of {size}, the limit is {limit}."
    remedy: ClassVar[str] = "The link is made anew; if it goes on, find out what else talks to this port."
