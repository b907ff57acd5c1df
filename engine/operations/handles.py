"""What runs for a group: its open volumes, layers, snapshots and the session that receives. No decisions.

The records say what is true; these handles are made to match them by `converge` and are changed by the
stories of this folder, always under the group's lock. This module must never do I/O.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from blockstore.layer import IncomingLayer, Layer
from blockstore.overlay import Overlay, OverlayIO
from blockstore.volume import Volume
from blockstore.writer import Writer
from engine import model
from engine.transfer.receiver import ReceiveSession


@dataclass(slots=True)
class VolumeHandle:
    """One open volume of this site. `open` is None while it is failed; then `failure` says why."""

    record: model.Volume
    open: Volume | None = None
    failure: str = ""
    chain: tuple[Layer, ...] = ()
    top: Overlay | None = None
    top_io: OverlayIO | None = None
    writer: Writer | None = None

    @property
    def name(self) -> str:
        return self.record.name

    def require_open(self) -> Volume:
        """The open volume. Raises VolumeFailed."""
        from blockstore.errors import VolumeFailed

        if self.open is None:
            raise VolumeFailed(volume=self.name, reason=self.failure or "it is not open")
        return self.open


@dataclass(slots=True)
class SnapshotHandle:
    """The open overlays of a snapshot, one a volume, in the group's order."""

    record: model.Snapshot
    overlays: list[Overlay]


@dataclass(slots=True)
class Receiving:
    """One session that receives a sync: its layers stand in the group's order of volumes."""

    sync: model.SyncId
    mode: str
    session: ReceiveSession
    layers: list[IncomingLayer]
    layer_ids: list[model.LayerId]
    point: model.PointId
    sequence: int


@dataclass(slots=True)
class GroupHandle:
    """One group of this site. `lock` is held by whoever changes its handles or records."""

    id: model.GroupId
    name: str
    peer: str
    volumes: list[VolumeHandle] = field(default_factory=list)
    snapshots: dict[str, SnapshotHandle] = field(default_factory=dict)
    receiving: Receiving | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_syncing: bool = False
    is_split: bool = False
    done_bytes: int = 0
    total_bytes: int = 0

    @property
    def failure(self) -> str:
        """Why the group cannot work, empty if it can."""
        return "; ".join(f"{v.name}: {v.failure}" for v in self.volumes if v.failure)

    @property
    def backlog_bytes(self) -> int:
        """Bytes of blocks that may differ from the newest sealed point; protected side only."""
        return sum(v.open.dirty_blocks * 4096 for v in self.volumes if v.open is not None)
