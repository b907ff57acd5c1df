"""What was asked and cannot be done as things stand: names, states, syncs, stores of a peer.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_REFUSED, EXIT_USAGE, LeewardError


@dataclass(eq=False)
class UnknownName(LeewardError):
    """A group, volume, peer, point, snapshot or job that is not here."""

    what: str
    name: str
    code: ClassVar[str] = "unknown_name"
    meaning: ClassVar[str] = "There is no {what} named {name} here."
    remedy: ClassVar[str] = "Run `leeward status` to see what there is."


@dataclass(eq=False)
class NameTaken(LeewardError):
    what: str
    name: str
    code: ClassVar[str] = "name_taken"
    meaning: ClassVar[str] = "There is a {what} named {name} already."
    remedy: ClassVar[str] = "Choose another name."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class BadValue(LeewardError):
    what: str
    value: str
    reason: str
    code: ClassVar[str] = "bad_value"
    meaning: ClassVar[str] = "{value} is no valid {what}: {reason}."
    remedy: ClassVar[str] = "Correct it and try again."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class RefusedByState(LeewardError):
    """The request is well-formed, but not allowed as things stand."""

    operation: str
    group: str
    reason: str
    code: ClassVar[str] = "refused_by_state"
    meaning: ClassVar[str] = "{operation} of {group} is refused: {reason}."
    remedy: ClassVar[str] = "Run `leeward group show {group}` to see its state."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class GroupPaused(LeewardError):
    group: str
    since: str
    code: ClassVar[str] = "group_paused"
    meaning: ClassVar[str] = "Group {group} is paused since {since}, so nothing of it is sent."
    remedy: ClassVar[str] = "Run `leeward resume {group}` at this site, then sync again."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class WouldDiscard(LeewardError):
    """A role change would set aside what hosts wrote. `token` names the decision to do so as things stand."""

    group: str
    reason: str
    blocks: int
    token: str
    code: ClassVar[str] = "would_discard"
    meaning: ClassVar[str] = "Nothing was changed in {group}: {reason}."
    remedy: ClassVar[str] = (
        "Compare both sides first. To go on at this site, repeat the command with --token {token}; a reverse needs "
        "--discard-local-changes too. What is set aside is kept, see `leeward set-aside list`."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class TokenStale(LeewardError):
    """The decision that a token names was taken on another state of the group."""

    group: str
    code: ClassVar[str] = "token_stale"
    meaning: ClassVar[str] = "The token does not fit {group} any more: it was written, or changed its role, since."
    remedy: ClassVar[str] = "Repeat the command without --token to see how both sides stand now."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PeerRefused(LeewardError):
    """The peer said no. `cause` is the peer's catalogue code."""

    peer: str
    reason: str
    cause: str
    cure: str
    code: ClassVar[str] = "peer_refused"
    meaning: ClassVar[str] = "Peer {peer} refused: {reason}"
    remedy: ClassVar[str] = "{cure}"
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PointPinned(LeewardError):
    """`holders` says what keeps the point, as the records name it: `snapshot:<id>`, `promoted`."""

    point: str
    holders: str
    code: ClassVar[str] = "point_pinned"
    meaning: ClassVar[str] = "Point {point} is held by {holders}."
    remedy: ClassVar[str] = "Delete what holds it first (`leeward snapshot list`)."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class Raced(LeewardError):
    """A compare-and-set lost: what the change was decided on is no longer so. Read again, decide again."""

    what: str
    name: str
    reason: str
    code: ClassVar[str] = "raced"
    meaning: ClassVar[str] = "The {what} {name} changed meanwhile: {reason}."
    remedy: ClassVar[str] = "Try again."


@dataclass(eq=False)
class SealMismatch(LeewardError):
    """What the receiver holds is not what the sender says it sent: nothing is sealed."""

    volume: str
    sent: int
    held: int
    code: ClassVar[str] = "seal_mismatch"
    meaning: ClassVar[str] = "Volume {volume}: {sent} blocks were sent, {held} are held, or their digests differ."
    remedy: ClassVar[str] = "The sync is dropped and nothing was sealed; sync again, and report it if it goes on."


@dataclass(eq=False)
class StoreLimitReached(LeewardError):
    """The peer's group would need more room than this site gives to stores that it makes by itself."""

    folder: str
    made_bytes: int
    wanted_bytes: int
    limit_bytes: int
    code: ClassVar[str] = "store_limit_reached"
    meaning: ClassVar[str] = (
        "{wanted_bytes} bytes more in {folder} pass the limit of {limit_bytes}; {made_bytes} are there."
    )
    remedy: ClassVar[str] = (
        "Raise store_limit in leeward.toml, or prepare a store with `leeward volume add --recovery`."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class Interrupted(LeewardError):
    """A job that a restart of the daemon cut short."""

    operation: str
    code: ClassVar[str] = "interrupted"
    meaning: ClassVar[str] = "Operation {operation} was cut short by a restart of the daemon."
    remedy: ClassVar[str] = "Look at `leeward status` for what it reached, and ask again."
