"""Documents from records and handles: the names of the JSON contract, and nothing else. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b

from blockstore.units import BLOCK
from engine import model
from engine.decide import status
from engine.decide.schedule import Turn, kept_percent
from engine.model import Role
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, SnapshotHandle, VolumeHandle
from engine.operations.snapshot import aside_export_name, export_name
from engine.operations.verify import Compared
from engine.records.retention import Kept
from engine.requests import (
    DifferenceDoc,
    ExportDoc,
    GroupDoc,
    LinkDoc,
    PeerDoc,
    PointDoc,
    SetAsideDoc,
    SnapshotDoc,
    SnapshotVolumeDoc,
    VerifyDoc,
    VolumeDoc,
)

DIFFERENCES = 100
"""Runs that a verify lists one by one."""

SET_ASIDE = "set-aside"
"""The kind of an export that shows one."""


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
        verified_at=at_text(volume.record.verified_at) if volume.record.verified_at else None,
    )


def verify_doc(handle: GroupHandle, found: Compared, *, repaired: int, seconds: float) -> VerifyDoc:
    return VerifyDoc(
        group=handle.name,
        point=point_doc(found.point),
        blocks=found.blocks,
        skipped=found.skipped,
        mismatched=found.mismatched,
        repaired=repaired,
        seconds=round(seconds, 6),
        differences=tuple(
            DifferenceDoc(handle.volumes[index].name, run.first * BLOCK, run.count * BLOCK)
            for index, run in found.differing[:DIFFERENCES]
        ),
    )


def group_doc(
    ctx: Context,
    record: model.Group,
    handle: GroupHandle,
    kept: Kept,
    turns: Sequence[Turn],
    operation: str | None = None,
) -> GroupDoc:
    state, reason = status.state_of(
        record,
        failed=handle.failure,
        is_syncing=handle.syncing is not None or handle.receiving is not None,
        is_split=handle.is_split,
        is_seeded=record.common is not None,
    )
    last = point_doc(record.common) if record.common else None
    percent = kept_percent(turns, ctx.clock.now())
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
        rpo_kept=turns[-1].kept if turns and record.rpo_s is not None else None,
        rpo_kept_percent=None if percent is None else round(percent, 3),
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


def link_doc(ctx: Context) -> LinkDoc:
    holds = ctx.budget.applied()
    return LinkDoc(ctx.budget.calendar, holds.limit, holds.reason, round(ctx.budget.bytes_per_s(), 1))


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
    for shown in handle.asides.values():
        for volume in handle.volumes:
            name = aside_export_name(volume.name, shown.record.name)
            docs.append(_export_doc(ctx, handle, name, volume.name, _aside_wwn(shown.record, volume), SET_ASIDE))
    return docs


def _export_doc(ctx: Context, handle: GroupHandle, name: str, volume: str, wwn: str, kind: str) -> ExportDoc:
    return ExportDoc(name, ctx.presenter.uri(name), wwn, handle.name, volume, kind, read_only=kind == SET_ASIDE)


def set_aside_doc(ctx: Context, handle: GroupHandle, kept: model.SetAside) -> SetAsideDoc:
    shown = handle.volumes if kept.name in handle.asides else ()
    return SetAsideDoc(
        name=kept.name,
        group=handle.name,
        why=kept.why,
        bytes=kept.blocks * BLOCK,
        created_at=at_text(kept.created_at),
        volumes=tuple(
            SnapshotVolumeDoc(
                name=volume.name,
                size=volume.record.size_bytes,
                export=ctx.presenter.uri(aside_export_name(volume.name, kept.name)),
                wwn=_aside_wwn(kept, volume),
            )
            for volume in shown
        ),
    )


def _aside_wwn(kept: model.SetAside, volume: VolumeHandle) -> str:
    """The same for ever, and another one for each volume of each set-aside."""
    return model.new_wwn(blake2b(kept.id + volume.record.id, digest_size=13).digest())
