"""What an operation may touch: typed fields and no more.

Made once by `serve`, handed down everywhere. This module must never hold behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from blockstore.disk import Disk
from engine import model
from engine.clock import Clock
from engine.decide.compression import Chooser
from engine.exports.presenter import Presenter
from engine.link.peer import Links
from engine.link.peer_link import PeerLink
from engine.operations.budget import Budget
from engine.pool import DiskPool
from engine.records.database import Database
from engine.settings import Settings

Report = Callable[..., None]
"""report(level, code, message, *, group=None, **details): an event for operators; never blocks."""


@dataclass(slots=True)
class Paths:
    """Where the files of this site lie."""

    data: Path
    live: str | None

    def volume(self, volume: model.VolumeId) -> str:
        return str(self.data / "volumes" / volume.hex())

    def layers(self, volume: model.VolumeId) -> str:
        return str(self.data / "volumes" / volume.hex() / "layers")

    def pack(self, volume: model.VolumeId, layer: model.LayerId) -> str:
        return f"{self.layers(volume)}/{layer.hex()}.pack"

    def redo(self, volume: model.VolumeId, point: model.PointId) -> str:
        """The new hashes of a point, on their way into the hash table; named by the point they stand for."""
        return f"{self.volume(volume)}/{point.hex()}.redo"

    def live_folder(self, volume: model.VolumeId) -> str | None:
        return f"{self.live}/{volume.hex()}" if self.live else None


@dataclass(slots=True)
class Progress:
    """What a running job tells of itself; read by whoever asks for the job."""

    clock: Clock
    phase: str = "waiting"
    done_bytes: int = 0
    total_bytes: int = 0
    began: float = 0.0

    def begin(self, phase: str, total_bytes: int) -> None:
        """A new phase; `began` is its monotonic time."""
        self.phase, self.done_bytes, self.total_bytes = phase, 0, total_bytes
        self.began = self.clock.monotonic()


@dataclass(slots=True)
class Context:
    site: model.Site
    settings: Settings
    paths: Paths
    disk: Disk
    pool: DiskPool
    database: Database
    clock: Clock
    links: Links
    presenter: Presenter
    report: Report
    budget: Budget
    choosers: WeakKeyDictionary[PeerLink, Chooser] = field(default_factory=WeakKeyDictionary)
