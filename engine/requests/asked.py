"""What may be asked of a daemon: every change of state is one of these, named by its `kind` on the wire of the API.

This module must never import anything outside the standard library.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, ClassVar

SECRET = {"secret": True}
"""Marks a field of a request that is never logged or recorded as it is."""


@dataclass(frozen=True, slots=True)
class PeerAdd:
    kind: ClassVar[str] = "peer_add"
    name: str
    address: str
    fingerprint: str
    plain: bool = False


@dataclass(frozen=True, slots=True)
class PeerRemove:
    kind: ClassVar[str] = "peer_remove"
    name: str


@dataclass(frozen=True, slots=True)
class VolumeAdd:
    """`size_bytes`: make the store when it is missing. `prepared`: wait for a group of the peer (--recovery)."""

    kind: ClassVar[str] = "volume_add"
    name: str
    store: str
    size_bytes: int | None = None
    prepared: bool = False


@dataclass(frozen=True, slots=True)
class VolumeRemove:
    kind: ClassVar[str] = "volume_remove"
    name: str


@dataclass(frozen=True, slots=True)
class VolumeReopen:
    kind: ClassVar[str] = "volume_reopen"
    name: str


@dataclass(frozen=True, slots=True)
class GroupCreate:
    kind: ClassVar[str] = "group_create"
    name: str
    volumes: tuple[str, ...]
    peer: str
    rpo_s: int | None = None
    keep: int = 24
    retain: str = ""


@dataclass(frozen=True, slots=True)
class GroupSet:
    """What of the group is to be another from now on; None: as it is. `retain` empty: no schedule; `rpo_s` 0: none."""

    kind: ClassVar[str] = "group_set"
    group: str
    keep: int | None = None
    retain: str | None = None
    rpo_s: int | None = None


@dataclass(frozen=True, slots=True)
class GroupRemove:
    kind: ClassVar[str] = "group_remove"
    group: str


@dataclass(frozen=True, slots=True)
class LinkSet:
    """How fast this site may send to its peers, by day and time (`decide/calendar.py`); empty: as fast as it can."""

    kind: ClassVar[str] = "link_set"
    limit: str


@dataclass(frozen=True, slots=True)
class Sync:
    kind: ClassVar[str] = "sync"
    group: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing of the group is sent until `Resume`; a sync that runs is ended."""

    kind: ClassVar[str] = "pause"
    group: str


@dataclass(frozen=True, slots=True)
class Resume:
    kind: ClassVar[str] = "resume"
    group: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Compare both sides at their newest common point. `repair`: send again what differs."""

    kind: ClassVar[str] = "verify"
    group: str
    repair: bool = False
    strong: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotCreate:
    """`point` is a point's id in hex or its number, None the newest; `name` None: the daemon picks one.

    `for_s`: seconds after which it goes by itself; None: it stays.
    """

    kind: ClassVar[str] = "snapshot_create"
    group: str
    point: str | None = None
    name: str | None = None
    for_s: int | None = None


@dataclass(frozen=True, slots=True)
class SnapshotReset:
    """What was written to it is thrown away; it shows its point again."""

    kind: ClassVar[str] = "snapshot_reset"
    group: str
    name: str


@dataclass(frozen=True, slots=True)
class SnapshotDelete:
    kind: ClassVar[str] = "snapshot_delete"
    group: str
    name: str


@dataclass(frozen=True, slots=True)
class Promote:
    kind: ClassVar[str] = "promote"
    group: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Demote:
    """`consent`: if the peer was promoted, record that a reverse may set aside what was written here."""

    kind: ClassVar[str] = "demote"
    group: str
    consent: bool = False


@dataclass(frozen=True, slots=True)
class Reverse:
    """`discard`: set aside what was written at this site, by the decision `token`, or if it is `confirmed`."""

    kind: ClassVar[str] = "reverse"
    group: str
    discard: bool = False
    token: str | None = None
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Restore:
    """Set aside what was written at the promoted site, by the decision `token`, or if it is `confirmed`."""

    kind: ClassVar[str] = "restore"
    group: str
    token: str | None = None
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class SetAsideDrop:
    kind: ClassVar[str] = "set_aside_drop"
    group: str
    name: str


@dataclass(frozen=True, slots=True)
class SetAsideExport:
    """Hosts may read it, until it is unexported or dropped."""

    kind: ClassVar[str] = "set_aside_export"
    group: str
    name: str


@dataclass(frozen=True, slots=True)
class SetAsideUnexport:
    kind: ClassVar[str] = "set_aside_unexport"
    group: str
    name: str


@dataclass(frozen=True, slots=True)
class PeerInvite:
    """`secret`: 32 hex digits that who asks has drawn at random; the token is made of it and of the answer.

    `addresses`: where the other site reaches this one; none: where this site listens.
    """

    kind: ClassVar[str] = "peer_invite"
    name: str
    secret: str = field(repr=False, metadata=SECRET)
    addresses: tuple[str, ...] = ()
    valid_s: int = 600


@dataclass(frozen=True, slots=True)
class PeerJoin:
    """`name`: what the inviting site is called here, None: what it calls itself.

    `address`: where it reaches this site, None: where this one listens, at the host that it sees.
    """

    kind: ClassVar[str] = "peer_join"
    token: str = field(repr=False, metadata=SECRET)
    name: str | None = None
    address: str | None = None


def recorded(request: Any) -> dict[str, Any]:
    """The fields of a request as they may be kept: of a secret its SHA-256, which tells two of them apart."""
    kept = asdict(request)
    for known in fields(request):
        if known.metadata.get("secret"):
            kept[known.name] = f"sha256:{sha256(kept[known.name].encode()).hexdigest()}"
    return kept
