"""What runs for a group: its open volumes, layers, snapshots and conversations. No decisions.

The records say what is true; these handles are made to match them and are changed by the stories of this
folder, under the group's lock where two of them could meet. This module must never do I/O.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockstore.errors import VolumeFailed
from blockstore.frozen import FrozenOverlay
from blockstore.layer import IncomingLayer
from blockstore.overlay import Overlay
from blockstore.overlay_io import OverlayIO
from blockstore.pack_read import SealedPack
from blockstore.read_only import ReadOnly
from blockstore.units import BLOCK
from blockstore.volume import Volume
from blockstore.writer import Writer
from engine import model
from engine.transfer.receiver import ReceiveSession

if TYPE_CHECKING:
    from engine.operations.capture import GroupCapture
    from engine.operations.context import Progress
    from engine.operations.conversation import Conversation


@dataclass(slots=True, eq=False)
class VolumeHandle:
    """One volume of this site. `open` is None while it cannot be used; then `failure` says why.

    `chain` are its sealed layers, oldest first. `retired` were folded or merged and may still be read by an image
    that was made before.
    """

    record: model.Volume
    open: Volume | None = None
    failure: str = ""
    chain: tuple[SealedPack | FrozenOverlay, ...] = ()
    retired: list[SealedPack | FrozenOverlay] = field(default_factory=list)
    top: Overlay | None = None
    top_io: OverlayIO | None = None
    writer: Writer | None = None
    hashing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever changes the base's hash table: a fold that a promotion overtook, or what a sync leaves behind."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def problem(self) -> str:
        """Why hosts or syncs cannot use it; empty while all is well."""
        return self.failure or (self.open.failed if self.open is not None else "it is not open")

    def require_open(self) -> Volume:
        """The open volume. Raises VolumeFailed."""
        if self.open is None or self.problem:
            raise VolumeFailed(volume=self.name, reason=self.problem)
        return self.open


@dataclass(slots=True, eq=False)
class SnapshotHandle:
    """The open overlays of a snapshot and what is exported of each, in the group's order of volumes.

    `failure` says why it is down; then it has no views, and is there to be reset or deleted.
    """

    record: model.Snapshot
    point: model.Point
    overlays: list[Overlay]
    views: list[OverlayIO]
    failure: str = ""


@dataclass(slots=True, eq=False)
class ShownAside:
    """A set-aside that hosts may read, in the group's order of volumes; `frozen`: the layers that it alone has open."""

    record: model.SetAside
    views: list[ReadOnly]
    frozen: list[FrozenOverlay]


@dataclass(slots=True, eq=False)
class Receiving:
    """One session that receives a sync: its layers stand in the group's order of volumes."""

    sync: model.SyncId
    mode: str
    session: ReceiveSession
    layers: list[IncomingLayer]
    layer_ids: list[model.LayerId]
    incoming: model.Incoming


@dataclass(slots=True, eq=False)
class GroupHandle:
    """One group of this site.

    `capture` is the image that a running sync holds, `talk` its conversation, `syncing` its progress.
    `unsettled` names a point whose hashes still have to be applied to the hash tables.
    """

    id: model.GroupId
    name: str
    peer: str
    volumes: list[VolumeHandle] = field(default_factory=list)
    snapshots: dict[str, SnapshotHandle] = field(default_factory=dict)
    asides: dict[str, ShownAside] = field(default_factory=dict)
    """Those that are exported, by name."""
    receiving: Receiving | None = None
    capture: GroupCapture | None = None
    talk: Conversation | None = None
    syncing: Progress | None = None
    unsettled: model.PointId | None = None
    is_split: bool = False
    busy: str = ""
    """Why no sync may begin now; empty: it may. What sets it asks first whether one runs."""
    peer_term: int = 0
    """The highest term that the peer has told of."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from an operator's word to its end while one of the two sides is made to give way."""
    talking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One conversation with the peer at a time."""

    @property
    def failure(self) -> str:
        """Why the group cannot work; empty if it can."""
        return "; ".join(f"volume {v.name}: {v.problem}" for v in self.volumes if v.problem)

    @property
    def backlog_bytes(self) -> int:
        """Bytes of blocks that may differ from the newest sealed point, counted from the live bitmaps."""
        return sum(v.open.dirty_blocks * BLOCK for v in self.volumes if v.open is not None)
