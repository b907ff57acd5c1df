"""The first exchange of a link: what both sides can do together, which of two crossing connections stays.

The dialler sends HELLO first; the other side answers with its own HELLO or with REFUSED, and the link stands. Both
compute the same agreement from the same two messages. This module must never look at addresses, keys or records:
who a peer is was settled below (TLS) and is compared above (`link`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from engine.errors import HandshakeFailed, LeewardError, PeerRefused, ProtocolVersion, WireDamaged
from engine.wire.messages import Hello, Message, Pair, Paired, Refused

VERSION: Final = 1
"""The newest version of the protocol that is spoken here."""

OLDEST_VERSION: Final = 1

FEATURES: Final[tuple[str, ...]] = ()
"""Names of what a peer may use beyond its version's minimum."""

_TEXT_BYTES: Final = 1200
_FACTS: Final = 8
_FACT_BYTES: Final = 100
"""A refusal may have to fit the header of a HELLO."""

CODECS: Final = ("plain", "lz4", "zstd")


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides of a link can do."""

    version: int
    features: frozenset[str]
    codecs: tuple[str, ...]


def agree(ours: Hello, theirs: Hello) -> Agreed:
    """The agreement of these two HELLOs, the same at both ends. Raises ProtocolVersion, HandshakeFailed."""
    version = min(ours.version, theirs.version)
    if version < OLDEST_VERSION:
        spoken = str(VERSION) if OLDEST_VERSION == VERSION else f"{OLDEST_VERSION} to {VERSION}"
        raise ProtocolVersion(peer=theirs.site_name, theirs=theirs.version, ours=spoken)
    if ours.site_id == theirs.site_id:
        raise HandshakeFailed(address=theirs.site_name, reason="it is this site itself")
    codecs = tuple(codec for codec in CODECS if codec == "plain" or {codec} <= {*ours.codecs} & {*theirs.codecs})
    return Agreed(version, frozenset(ours.features) & frozenset(theirs.features), codecs)


def expect_hello(message: Message, peer: str) -> Hello:
    """`message` as the HELLO that it has to be. Raises PeerRefused, WireDamaged."""
    if isinstance(message, Refused):
        raise refusal(message, peer)
    if not isinstance(message, Hello):
        raise WireDamaged(reason=f"{type(message).__name__} came before HELLO")
    return message


def require_version(pair: Pair) -> None:
    """Whether the site that wants to be paired can be talked to. Raises ProtocolVersion."""
    if pair.version < OLDEST_VERSION:
        raise ProtocolVersion(peer=pair.site_name, theirs=pair.version, ours=str(VERSION))


def expect_paired(message: Message, peer: str) -> Paired:
    """`message` as the PAIRED that it has to be. Raises PeerRefused, WireDamaged."""
    if isinstance(message, Refused):
        raise refusal(message, peer)
    if not isinstance(message, Paired):
        raise WireDamaged(reason=f"{type(message).__name__} came as the answer to PAIR")
    return message


def gives_way(ours: Hello, theirs: Hello, standing: Hello | None, *, is_dialling: bool) -> bool:
    """Whether the connection that `theirs` came on has to give way, at the side that was dialled.

    `standing` is the peer's HELLO on the link there is; `is_dialling`: a HELLO of ours is under way to the same peer.
    A peer dials only while it holds no link: its newer HELLO means that it lost the standing one. Where both dialled
    at once the connection of the lower site id stays, at both ends.
    """
    if standing is not None and standing.session == theirs.session and theirs.number < standing.number:
        return True
    return is_dialling and ours.site_id < theirs.site_id


def refused_by(error: LeewardError) -> Refused:
    """The message that ends a link because of `error`."""
    facts = list(error.details().items())[:_FACTS]
    details = {key: _cut(value, _FACT_BYTES) if isinstance(value, str) else value for key, value in facts}
    return Refused(None, None, error.code, _cut(error.message, _TEXT_BYTES), _cut(error.advice, _TEXT_BYTES), details)


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")


def refusal(message: Refused, peer: str) -> LeewardError:
    """The peer's refusal as an error of this side."""
    return PeerRefused(peer=peer, reason=message.message, cause=message.code, cure=message.remedy)
