"""Documents from records and handles: the names of the JSON contract, and nothing else. No I/O."""

from __future__ import annotations

from datetime import datetime

from engine import model
from engine.decide import status
from engine.model import Role
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, SnapshotHandle, VolumeHandle
from engine.operations.snapshot import export_name
from engine.records.retention import Kept
from engine.requests import ExportDoc, GroupDoc, PeerDoc, PointDoc, SnapshotDoc, SnapshotVolumeDoc, VolumeDoc


def at_text(at: datetime) -> str:
    """RFC 3339, UTC, with microseconds."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def point_doc(point: model.Point, space_bytes: int = 0) -> PointDoc:
    return PointDoc(
        id=point.id.hex(),
        sequence=point.sequence,
        captured_at=at_text(point.captured_at),
        sealed_at=at_text(point.sealed_at),
        bytes=point.bytes,
        pinned=point.pins > 0,
        space_bytes=space_bytes,
    )


def volume_doc(ctx: Context, volume: VolumeHandle, group: str | None) -> VolumeDoc:
    return VolumeDoc(
        name=volume.name,
        size=volume.record.size_bytes,
        store=volume.record.store,
        state="failed" if volume.problem else volume.record.state.value,
        export=ctx.presenter.uri(volume.name) if volume.writer is not None else None,
        wwn=volume.record.wwn,
        reason=volume.problem,
        group=group,
        dirty_bytes=volume.open.dirty_blocks * 4096 if volume.open is not None and volume.writer is not None else 0,
    )


def group_doc(
    ctx: Context, record: model.Group, handle: GroupHandle, kept: Kept, operation: str | None = None
) -> GroupDoc:
    state, reason = status.state_of(
        record,
        failed=handle.failure,
        is_syncing=handle.syncing is not None or handle.receiving is not None,
        is_split=handle.is_split,
        is_seeded=record.common is not None,
    )
    last = point_doc(record.common) if record.common else None
    backlog = handle.backlog_bytes if record.role is not Role.RECOVERY else 0
    return GroupDoc(
        name=record.name,
        id=record.id.hex(),
        role=record.role.value,
        state=state,
        reason=reason,
        peer=record.peer,
        peer_connected=ctx.links.get(record.peer) is not None,
        rpo_s=record.rpo_s,
        lag_s=status.lag_s(record, ctx.clock.now()),
        backlog_bytes=backlog,
        eta_s=_eta_s(ctx, handle),
        last_point=last,
        volumes=tuple(volume_doc(ctx, volume, record.name) for volume in handle.volumes),
        operation=operation,
        point=last if operation else None,
        keep=record.keep,
        retain=kept.schedule,
        points=kept.points,
        points_bytes=kept.bytes,
    )


def _eta_s(ctx: Context, handle: GroupHandle) -> float | None:
    """Seconds until the running sync has sent all, at the speed that it had so far; None: not known."""
    running = handle.syncing
    if running is None or not running.done_bytes or running.total_bytes <= running.done_bytes:
        return None
    spent = ctx.clock.monotonic() - running.began
    return round(spent / running.done_bytes * (running.total_bytes - running.done_bytes), 3)


def snapshot_doc(ctx: Context, handle: GroupHandle, snapshot: SnapshotHandle) -> SnapshotDoc:
    expires_at = snapshot.record.expires_at
    return SnapshotDoc(
        name=snapshot.record.name,
        created_at=at_text(snapshot.record.created_at),
        expires_at=None if expires_at is None else at_text(expires_at),
        bytes=sum(overlay.data.allocated_bytes() for overlay in snapshot.overlays),
        state="failed" if snapshot.failure else "ready",
        reason=snapshot.failure,
        group=handle.name,
        point=point_doc(snapshot.point),
        volumes=tuple(
            SnapshotVolumeDoc(
                name=volume.name,
                size=volume.record.size_bytes,
                export=ctx.presenter.uri(export_name(volume.name, snapshot.record.name)),
                wwn=wwn,
            )
            for volume, wwn in zip(handle.volumes, snapshot.record.wwns, strict=True)
        ),
    )


def peer_doc(ctx: Context, peer: model.Peer) -> PeerDoc:
    return PeerDoc(
        name=peer.name,
        address=peer.address,
        fingerprint=peer.fingerprint,
        plain=peer.plain,
        connected=ctx.links.get(peer.name) is not None,
        id=peer.id.hex() if peer.id else None,
    )


def export_docs(ctx: Context, handle: GroupHandle) -> list[ExportDoc]:
    """What hosts can reach of a group now."""
    docs = [
        ExportDoc(
            volume.name, ctx.presenter.uri(volume.name), volume.record.wwn, handle.name, volume.name, "volume", False
        )
        for volume in handle.volumes
        if volume.writer is not None
    ]
    for snapshot in [snapshot for snapshot in handle.snapshots.values() if not snapshot.failure]:
        for volume, wwn in zip(handle.volumes, snapshot.record.wwns, strict=True):
            name = export_name(volume.name, snapshot.record.name)
            docs.append(_export_doc(ctx, handle, name, volume.name, wwn, "snapshot"))
    return docs


def _export_doc(ctx: Context, handle: GroupHandle, name: str, volume: str, wwn: str, kind: str) -> ExportDoc:
    return ExportDoc(name, ctx.presenter.uri(name), wwn, handle.name, volume, kind, read_only=False)
