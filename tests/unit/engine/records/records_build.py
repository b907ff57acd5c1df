"""Values to fill records with: a site with a peer and a group of two volumes, and points received into it."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from blockstore.units import StoreIdentity
from engine.errors import MetadataUncertain
from engine.model import (
    Group,
    GroupId,
    Incoming,
    LayerId,
    Peer,
    Pending,
    Point,
    PointId,
    Role,
    Site,
    SiteId,
    Snapshot,
    SnapshotId,
    SnapshotState,
    SyncId,
    SyncState,
    TrackingId,
    Volume,
    VolumeId,
    VolumeState,
)
from engine.records import groups, incoming, layers, peers, points, promote, snapshots, volumes
from engine.records.database import Database

NOW = datetime(2026, 11, 24, 12, 0, 0, 123_456, tzinfo=UTC)
LARGEST_U64 = (1 << 64) - 1
SITE = Site(SiteId(b"S" * 16), "north")
GROUP = GroupId(b"G" * 16)
VOLUMES = (VolumeId(b"v" * 15 + b"1"), VolumeId(b"v" * 15 + b"2"))
_numbers = itertools.count(1)


def fresh() -> bytes:
    """16 bytes that were not given before."""
    return next(_numbers).to_bytes(16, "big")


@dataclass(frozen=True)
class Receipt:
    length_bytes: int = 12_288
    directory_offset: int = 8_192
    directory_check: bytes = b"\xff" * 8
    blocks: int = 3
    payload_bytes: int = 12_288
    digest: bytes = b"d" * 16


def peer(name: str = "south") -> Peer:
    return Peer(name, "10.0.0.2:7450", "SHA256:" + "ab" * 32, plain=False, id=None)


def volume(name: str, id: bytes = b"", **changes: object) -> Volume:
    values: dict[str, object] = {
        "id": VolumeId(id or fresh()),
        "name": name,
        "store": f"/stores/{name}.img",
        "size_bytes": 1 << 30,
        "prepared": False,
        "state": VolumeState.ACTIVE,
        "reason": "",
        "group": None,
        "position": 0,
        "tracking": None,
        "nonce": b"",
        "writes": 0,
        "hash_seed": LARGEST_U64,
        "wwn": "6001405" + "0" * 25,
        "identity": None,
        "top": None,
    }
    return Volume(**{**values, **changes})  # type: ignore[arg-type]


IDENTITY = StoreIdentity(size_bytes=1 << 30, inode=LARGEST_U64, mtime_ns=1_700_000_000_123_456_789, ctime_ns=1)


def group(role: Role = Role.RECOVERY, **changes: object) -> Group:
    values: dict[str, object] = {
        "id": GROUP,
        "name": "shop",
        "version": 0,
        "role": role,
        "term": 1,
        "peer": "south",
        "rpo_s": 300,
        "keep": 3,
        "announced": False,
        "common": None,
        "equal_at": None,
        "generation_due": False,
        "generation": None,
        "pending": None,
        "incoming": None,
        "created_at": NOW,
    }
    return Group(**{**values, **changes})  # type: ignore[arg-type]


def pending(sequence: int = 1, state: SyncState = SyncState.RUNNING) -> Pending:
    return Pending(SyncId(fresh()), PointId(fresh()), sequence, NOW, state)


def add_group(conn: sqlite3.Connection, role: Role = Role.RECOVERY) -> Group:
    """The group `shop` with volumes `db` and `log`, and its peer `south`."""
    peers.insert(conn, peer(), NOW)
    groups.insert(conn, group(role))
    for name, id in zip(("db", "log"), VOLUMES, strict=True):
        volumes.insert(conn, volume(name, id))
    volumes.assign(conn, GROUP, VOLUMES)
    return groups.by_id(conn, GROUP)


def begin(conn: sqlite3.Connection, **changes: object) -> Incoming:
    """Begin to receive the next point; with packs unless it is the first."""
    found = groups.by_id(conn, GROUP)
    sequence = found.common.sequence + 1 if found.common else 1
    values: dict[str, object] = {
        "sync": SyncId(fresh()),
        "point": PointId(fresh()),
        "sequence": sequence,
        "builds_on": found.common.id if found.common else None,
        "captured_at": NOW + timedelta(minutes=sequence),
        "plan_digest": b"p" * 16,
        "blocks": 9,
    }
    wanted = Incoming(**{**values, **changes})  # type: ignore[arg-type]
    incoming.begin(conn, GROUP, wanted, expects=found.version)
    if wanted.builds_on is not None:
        for member in VOLUMES:
            layers.open_pack(
                conn, LayerId(fresh()), member, sync=wanted.sync, builds_on=wanted.builds_on, image_bytes=1 << 30
            )
    return wanted


def point_of(wanted: Incoming) -> Point:
    return Point(wanted.point, GROUP, wanted.sequence, wanted.captured_at, NOW, None, b"D" * 16, 24_576, pins=0)


def receipts(conn: sqlite3.Connection) -> list[tuple[LayerId, Receipt]]:
    """One for every open pack."""
    return [(layer.id, Receipt()) for layer in layers.receiving(conn, GROUP)]


def receive(conn: sqlite3.Connection) -> Point:
    """Receive and seal one more point."""
    sealed = point_of(begin(conn))
    points.seal(conn, sealed, receipts(conn))
    return points.get(conn, sealed.id)


def snapshot(point: Point, name: str = "test") -> Snapshot:
    return Snapshot(
        id=SnapshotId(fresh()),
        group=GROUP,
        name=name,
        point=point.id,
        state=SnapshotState.CREATING,
        layers=(LayerId(fresh()), LayerId(fresh())),
        wwns=("6001405" + "1" * 25, "6001405" + "2" * 25),
        created_at=NOW,
    )


def remove(conn: sqlite3.Connection, gone: Snapshot) -> None:
    snapshots.deleting(conn, gone.id)
    snapshots.delete(conn, gone.id)


def prepare(conn: sqlite3.Connection, point: Point) -> list[promote.Top]:
    tops = [promote.Top(member, LayerId(fresh()), TrackingId(fresh())) for member in VOLUMES]
    promote.prepare(conn, GROUP, point.id, tops)
    return tops


NONCES = dict.fromkeys(VOLUMES, b"n" * 16)


def promote_at(conn: sqlite3.Connection, point: Point) -> Group:
    """Prepare and commit a promotion of `point`."""
    prepare(conn, point)
    found = groups.by_id(conn, GROUP)
    return promote.commit(conn, GROUP, point.id, NONCES, term=found.term + 1, expects=found.version)


T = TypeVar("T")
SMALL_BALLAST = 64 << 10


def fail_on(error: MetadataUncertain) -> None:
    """No test of these may come to an unknown outcome."""
    raise AssertionError(error)


class Records:
    """A database whose transactions are run one by one, here and now."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.database = Database.create(str(data), SITE, NOW, ballast_bytes=SMALL_BALLAST, on_uncertain=fail_on)

    def __call__(self, fn: Callable[..., T], *args: object, **kwargs: object) -> T:
        """`fn(conn, ...)` in a transaction of its own."""

        def run(conn: sqlite3.Connection) -> T:
            return fn(conn, *args, **kwargs)

        return self.database.transact_now(run)

    def everything(self) -> list[str]:
        """All content, to compare before and after what must change nothing."""
        return self.database.read_now(lambda conn: [line for line in conn.iterdump() if "sqlite_sequence" not in line])

    def reopen(self) -> None:
        """As a new daemon would."""
        self.database.close()
        self.database = Database.open(str(self.data), ballast_bytes=SMALL_BALLAST, on_uncertain=fail_on)
