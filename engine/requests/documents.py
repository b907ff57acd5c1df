"""The documents that a daemon answers with. Field names are stable: more may be added, none renamed or removed.

Sizes are bytes, durations seconds, times RFC 3339 UTC strings. This module must never import anything outside the
standard library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
    verified_at: str | None = None
    """When every block was last seen to be the same at both sides."""


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
    `keep` and `retain`: which points stay here; `points` and `points_bytes`: how many there are, and their space.
    `rpo_kept`: whether the lag is within the RPO, null without one; `rpo_kept_percent`: of the last 24 hours."""

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
    rpo_kept: bool | None = None
    rpo_kept_percent: float | None = None


@dataclass(frozen=True, slots=True)
class LinkDoc:
    """What this site may send to its peers, and does. `limit` as it was written, `reason` the entry of it that holds.

    `limit_bytes_per_s` null: none now. `sent_bytes_per_s`: frames of syncs in the last five seconds."""

    limit: str
    limit_bytes_per_s: int | None
    reason: str
    sent_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class StatusDoc:
    site: SiteDoc
    peers: tuple[PeerDoc, ...]
    groups: tuple[GroupDoc, ...]
    snapshots: tuple[SnapshotDoc, ...] = ()
    link: LinkDoc | None = None


@dataclass(frozen=True, slots=True)
class DifferenceDoc:
    """A run of bytes that differs, by volume."""

    volume: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class VerifyDoc:
    """`blocks` were compared at `point`, `skipped` of them not: hosts have written them since.

    `mismatched` differed, `repaired` of them do not any more. `differences`: the first hundred runs.
    """

    group: str
    point: PointDoc
    blocks: int
    skipped: int
    mismatched: int
    repaired: int
    seconds: float
    differences: tuple[DifferenceDoc, ...] = ()


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
class YieldDoc:
    """A reverse or a restore: the group's role here now, and what the side that gave way keeps aside."""

    group: str
    role: str
    set_aside: str | None
    set_aside_blocks: int


@dataclass(frozen=True, slots=True)
class SetAsideDoc:
    """What a role change (`why`) discarded: `bytes` of blocks that hosts had changed.

    `volumes`: its read-only exports, none unless it was exported.
    """

    name: str
    group: str
    why: str
    bytes: int
    created_at: str
    volumes: tuple[SnapshotVolumeDoc, ...] = ()


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


@dataclass(frozen=True, slots=True)
class InvitationDoc:
    """An invitation for the site that will be `peer`. `token`: made where the secret was drawn; no daemon knows it."""

    peer: str
    site: str
    addresses: tuple[str, ...]
    fingerprint: str
    expires_at: str
    token: str = ""
