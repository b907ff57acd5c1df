"""The nouns of replication: ids, roles, points, and what the records keep of each thing. Frozen values.

This module must never do I/O, read a clock or import anything outside the standard library but `blockstore.units`.
Ids are 16 random bytes and never used twice; they are shown in hex. Times are aware UTC datetimes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NewType, TypeVar

from blockstore.units import StoreIdentity

_T = TypeVar("_T")

SiteId = NewType("SiteId", bytes)
InvitationId = NewType("InvitationId", bytes)
GroupId = NewType("GroupId", bytes)
VolumeId = NewType("VolumeId", bytes)
LayerId = NewType("LayerId", bytes)
PointId = NewType("PointId", bytes)
SyncId = NewType("SyncId", bytes)
SnapshotId = NewType("SnapshotId", bytes)
SetAsideId = NewType("SetAsideId", bytes)
GenerationId = NewType("GenerationId", bytes)
TrackingId = NewType("TrackingId", bytes)
JobId = NewType("JobId", str)


class Role(StrEnum):
    """Of a group at a site. Only `protected` accepts writes."""

    PROTECTED = "protected"
    DEMOTED = "demoted"
    RECOVERY = "recovery"


class VolumeState(StrEnum):
    ACTIVE = "active"
    FAILED = "failed"
    DEAD = "dead"


class LayerKind(StrEnum):
    PACK = "pack"
    OVERLAY = "overlay"


class LayerState(StrEnum):
    """`open`: being received. `live`: an overlay that takes writes. `folding`, `folded`: on its way into the base.

    `building`: made from others that it replaces when it is whole.
    """

    OPEN = "open"
    LIVE = "live"
    BUILDING = "building"
    SEALED = "sealed"
    FOLDING = "folding"
    FOLDED = "folded"
    SET_ASIDE = "set_aside"
    DEAD = "dead"


class SyncState(StrEnum):
    """Of a sync at the protected site. `sealing`: SEAL may have been sent, the outcome is the peer's to say."""

    SEEDING = "seeding"
    RUNNING = "running"
    SEALING = "sealing"


class SnapshotState(StrEnum):
    """`resetting`: its overlays are named, and may not be there yet."""

    CREATING = "creating"
    RESETTING = "resetting"
    READY = "ready"
    DELETING = "deleting"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Site:
    id: SiteId
    name: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A paired site. `id` is None until the first contact; `fingerprint` is "SHA256:" and 64 hex digits."""

    name: str
    address: str
    fingerprint: str
    plain: bool
    id: SiteId | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """An offer to one site that is not known yet to become the peer `peer`.

    `key` proves its secret (wire/invitation.py), empty when it is over. `wrong` counts proofs that were none,
    `used_by` is the fingerprint of the site that was let in.
    """

    id: InvitationId
    peer: str
    key: bytes = field(repr=False)
    made_at: datetime
    expires_at: datetime
    wrong: int = 0
    used_by: str | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A store under replication at this site.

    `prepared`: made with --recovery, waiting for a group of the peer. `tracking` names the intent log and
    bitmaps in force, `nonce` the live maps in force. `hash_seed` is the secret seed of its block hashes.
    `identity` is None while the volume is open, and after a crash.
    """

    id: VolumeId
    name: str
    store: str
    size_bytes: int
    prepared: bool
    state: VolumeState
    reason: str
    group: GroupId | None
    position: int
    tracking: TrackingId | None
    nonce: bytes
    writes: int
    hash_seed: int
    wwn: str
    identity: StoreIdentity | None
    top: LayerId | None
    tracking_next: TrackingId | None = None
    """Tracking whose files may stand on the disk but which is not in force yet (a promotion under way)."""
    store_bytes: int | None = None
    """Bytes of its store where that is larger than the volume: it was prepared here for a smaller one of the peer."""
    verified_at: datetime | None = None
    """When every block of it was last seen to be the same at both sides."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a volume. `position` orders the chain, oldest first; `point` is the point that it ends in."""

    id: LayerId
    volume: VolumeId
    kind: LayerKind
    state: LayerState
    sync: SyncId | None
    builds_on: PointId | None
    point: PointId | None
    position: int
    image_bytes: int
    length_bytes: int
    directory_offset: int
    directory_check: int
    blocks: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Point:
    """A sealed recovery point. `bytes` is what its layers added. `pins` counts what holds it."""

    id: PointId
    group: GroupId
    sequence: int
    captured_at: datetime
    sealed_at: datetime
    generation: GenerationId | None
    digest: bytes
    bytes: int
    pins: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A capture that may or may not have been sealed at the peer (lineage: pending)."""

    sync: SyncId
    point: PointId
    sequence: int
    captured_at: datetime
    state: SyncState


@dataclass(frozen=True, slots=True)
class Incoming:
    """A sync that is being received (lineage: incoming)."""

    sync: SyncId
    point: PointId
    sequence: int
    builds_on: PointId | None
    captured_at: datetime
    plan_digest: bytes
    blocks: int


@dataclass(frozen=True, slots=True)
class Generation:
    """One life of a writable side. `common` is the point that it grew from; `writes` its write counter."""

    id: GenerationId
    parent: GenerationId | None
    site: SiteId
    common: PointId | None
    began_at: datetime
    writes: int


@dataclass(frozen=True, slots=True)
class Group:
    """A consistency group at this site. `version` changes with every transition: role changes compare and set it."""

    id: GroupId
    name: str
    version: int
    role: Role
    term: int
    peer: str
    rpo_s: int | None
    keep: int
    announced: bool
    common: Point | None
    equal_at: datetime | None
    generation_due: bool
    generation: GenerationId | None
    pending: Pending | None
    incoming: Incoming | None
    created_at: datetime
    own_image: bool = False
    """True while a side that yielded still holds its last image, which is no recovery point (lineage: own image)."""
    consent_term: int | None = None
    """The peer's term for which a demoted side agreed to have its changes set aside (lineage: consent)."""
    paused_at: datetime | None = None
    """Since when nothing is sent from here, by an operator's word."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """What a role change discarded, kept until the operator drops it.

    `overlay`: the writes of a promoted side, on the point `base`. `image`: the last image of a side that was written
    since the common point; `base` is None. `layers` in the group's order of volumes: the overlay, or the highest layer
    of the image (None: the store alone). `blocks` that hosts had changed.
    """

    id: SetAsideId
    group: GroupId
    name: str
    why: str
    kind: str
    base: PointId | None
    layers: tuple[LayerId | None, ...]
    blocks: int
    created_at: datetime
    exported: bool = False
    """True while hosts may read it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A writable throw-away copy of a point; one live overlay a volume, in the group's order of volumes.

    It goes by itself at `expires_at`; None: it stays until it is deleted.
    """

    id: SnapshotId
    group: GroupId
    name: str
    point: PointId
    state: SnapshotState
    layers: tuple[LayerId, ...]
    wwns: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One asked request. `key` is empty without one; `request`, `outcome` and `error` are JSON documents."""

    id: JobId
    key: str
    kind: str
    group: str | None
    request: str
    state: JobState
    outcome: str | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something an operator may want to know. `level` is info, warning or error; `code` is stable."""

    sequence: int
    at: datetime
    level: str
    code: str
    group: str | None
    message: str
    details: str


def new_wwn(random_bytes: bytes) -> str:
    """A WWN of 32 hex digits that starts with 6001405, from 13 random bytes."""
    return "6001405" + random_bytes.hex()[:25]


def require(value: _T | None) -> _T:
    """`value`, which the caller knows is not None."""
    assert value is not None
    return value


def with_tracking(volume: Volume, tracking: TrackingId, nonce: bytes) -> Volume:
    """The volume with another tracking and other live maps in force."""
    return replace(volume, tracking=tracking, nonce=nonce)
