"""What may be asked of a daemon, and the documents it answers with: the contract of API, CLI and SRA.

Every change of state is a `Request`; its `kind` names it on the wire of the API. Field names of documents
are stable within a major version: more may be added, none renamed or removed. Sizes are bytes, durations
seconds, times RFC 3339 UTC strings. This module must never import anything outside the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from blockstore.errors import CATALOGUE, LeewardError
from engine.pairing_requests import InvitationDoc, PeerInvite, PeerJoin

# --- requests -----------------------------------------------------------------------------------------------


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
    """What of the group's retention is to be another from now on; None: as it is. `retain` empty: no schedule."""

    kind: ClassVar[str] = "group_set"
    group: str
    keep: int | None = None
    retain: str | None = None


@dataclass(frozen=True, slots=True)
class GroupRemove:
    kind: ClassVar[str] = "group_remove"
    group: str


@dataclass(frozen=True, slots=True)
class Sync:
    kind: ClassVar[str] = "sync"
    group: str


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


Request = (
    PeerAdd
    | PeerInvite
    | PeerJoin
    | PeerRemove
    | VolumeAdd
    | VolumeRemove
    | VolumeReopen
    | GroupCreate
    | GroupSet
    | GroupRemove
    | Sync
    | SnapshotCreate
    | SnapshotReset
    | SnapshotDelete
    | Promote
)

REQUESTS: dict[str, type[Any]] = {cls.kind: cls for cls in get_args(Request)}

# --- documents ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SiteDoc:
    name: str
    id: str
    version: str


@dataclass(frozen=True, slots=True)
class PeerDoc:
    name: str
    address: str
    fingerprint: str
    plain: bool
    connected: bool
    id: str | None = None


@dataclass(frozen=True, slots=True)
class VolumeDoc:
    """`export` is an NBD URI, or None where hosts may not write it."""

    name: str
    size: int
    store: str
    state: str
    export: str | None
    wwn: str
    reason: str = ""
    group: str | None = None
    dirty_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PointDoc:
    """`bytes`: of the blocks that its sync changed. `space_bytes`, in lists: what its layers take here."""

    id: str
    sequence: int
    captured_at: str
    sealed_at: str
    bytes: int
    pinned: bool
    space_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GroupDoc:
    """`state`: unseeded, seeding, ok, syncing, paused, split or failed; `reason` says why in words.
    `keep` and `retain`: which points stay here; `points` and `points_bytes`: how many there are, and their space."""

    name: str
    id: str
    role: str
    state: str
    reason: str
    peer: str
    peer_connected: bool
    rpo_s: int | None
    lag_s: float | None
    backlog_bytes: int
    eta_s: float | None
    last_point: PointDoc | None
    volumes: tuple[VolumeDoc, ...]
    operation: str | None = None
    point: PointDoc | None = None
    keep: int = 0
    retain: str = ""
    points: int = 0
    points_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StatusDoc:
    site: SiteDoc
    peers: tuple[PeerDoc, ...]
    groups: tuple[GroupDoc, ...]
    snapshots: tuple[SnapshotDoc, ...] = ()


@dataclass(frozen=True, slots=True)
class SyncDoc:
    """`bytes_wire` counts everything on the peer's connections in both directions while the sync ran.

    `bytes_changed` are the bytes of changed blocks, `bytes_sent` those whose content was sent,
    `bytes_resent` those of `bytes_sent` that the receiver had held before.
    """

    operation: str
    group: str
    state: str
    point: PointDoc | None
    bytes_changed: int
    bytes_sent: int
    bytes_wire: int
    bytes_resent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SnapshotVolumeDoc:
    name: str
    size: int
    export: str
    wwn: str


@dataclass(frozen=True, slots=True)
class SnapshotDoc:
    """`bytes`: space of what was written to it. `expires_at`: when it goes. `state`: ready or failed, for `reason`."""

    name: str
    group: str
    point: PointDoc
    volumes: tuple[SnapshotVolumeDoc, ...]
    created_at: str = ""
    expires_at: str | None = None
    bytes: int = 0
    state: str = "ready"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ExportDoc:
    """`kind`: volume, snapshot or set-aside."""

    name: str
    uri: str
    wwn: str
    group: str
    volume: str
    kind: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class RemovedDoc:
    removed: str


@dataclass(frozen=True, slots=True)
class EventDoc:
    sequence: int
    at: str
    level: str
    code: str
    group: str | None
    message: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProgressDoc:
    """`done_bytes` of `total_bytes` in this `phase`; a total of 0 is not known yet."""

    phase: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ErrorDoc:
    code: str
    message: str
    remedy: str
    details: dict[str, Any] = field(default_factory=dict)
    exit_status: int = 1


@dataclass(frozen=True, slots=True)
class JobDoc:
    """One asked request. `state`: queued, running, done, failed. `outcome` is the request's document when done.

    `revision` changes whenever the job does; who waits for news names the one that it has seen.
    """

    id: str
    kind: str
    group: str | None
    state: str
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    progress: ProgressDoc | None = None
    outcome: dict[str, Any] | None = None
    error: ErrorDoc | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class InitDoc:
    """A site that was made: its identity, and where its daemon will listen (HOST:PORT)."""

    name: str
    site_id: str
    fingerprint: str
    data: str
    listen: str
    nbd: str
    api: str


@dataclass(frozen=True, slots=True)
class CatalogueEntryDoc:
    """One kind of error. `{name}` in its texts stands for a fact of the occurrence, which `details` carries."""

    code: str
    meaning: str
    remedy: str
    exit_status: int


OUTCOMES: dict[str, type[Any]] = {
    PeerAdd.kind: PeerDoc,
    PeerInvite.kind: InvitationDoc,
    PeerJoin.kind: PeerDoc,
    PeerRemove.kind: RemovedDoc,
    VolumeAdd.kind: VolumeDoc,
    VolumeRemove.kind: RemovedDoc,
    VolumeReopen.kind: VolumeDoc,
    GroupCreate.kind: GroupDoc,
    GroupSet.kind: GroupDoc,
    GroupRemove.kind: RemovedDoc,
    Sync.kind: SyncDoc,
    SnapshotCreate.kind: SnapshotDoc,
    SnapshotReset.kind: SnapshotDoc,
    SnapshotDelete.kind: RemovedDoc,
    Promote.kind: GroupDoc,
}
"""The document that a finished job of each kind carries in `outcome`."""


def error_doc(error: BaseException) -> ErrorDoc:
    """What clients are told of a failure. One that is no LeewardError is `internal`, with its own words as a detail."""
    if not isinstance(error, LeewardError):
        reason = f"{type(error).__name__}: {error}"
        message = f"{LeewardError.meaning.rstrip('.')}: {reason}."
        return ErrorDoc(LeewardError.code, message, LeewardError.remedy, {"reason": reason})
    facts = error.details()
    return ErrorDoc(error.code, error.message, error.remedy.format(**facts), facts, error.exit_status)


def catalogue() -> tuple[CatalogueEntryDoc, ...]:
    """Every error of the product, by code."""
    import engine.errors  # it imports every part, and the classes enter themselves  # noqa: F401

    known: dict[str, type[LeewardError]] = {LeewardError.code: LeewardError, **CATALOGUE}
    return tuple(
        CatalogueEntryDoc(code, kind.meaning, kind.remedy, kind.exit_status) for code, kind in sorted(known.items())
    )
