"""Contact: both sides say how a group stands, settle what was under way, and reach the same verdict.

The rules are in `decide/lineage.py`; here they meet the records. Only the protected side asks; the
recovery side answers from its own record as it is at that moment. This module must never move a block.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockstore.units import blocks_in
from engine import model
from engine.decide.lineage import EXPLAINED, PendingFate, Standing, VerdictKind, settle_pending, verdict
from engine.link.peer_link import PeerLink
from engine.model import PointId, Role, SyncState
from engine.operations import receive, staging
from engine.operations.capture import adopt, forget_pending
from engine.operations.context import Context
from engine.operations.conversation import Conversation
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.records import groups
from engine.wire.messages import Lineage

SPLIT = frozenset(
    {
        VerdictKind.SPLIT_BRAIN,
        VerdictKind.TIE,
        VerdictKind.OLD_AHEAD,
        VerdictKind.NEW_AHEAD,
        VerdictKind.SAME,
        VerdictKind.COMMON_LOST,
    }
)


def standing(record: model.Group, handle: GroupHandle) -> Standing:
    """How the group stands here, from its record and its open volumes."""
    pending = record.pending if record.pending and record.pending.state is not SyncState.SEEDING else None
    written = sum(_written(volume) for volume in handle.volumes)
    writes = sum(volume.open.writes for volume in handle.volumes if volume.open is not None)
    return Standing(
        role=record.role,
        term=record.term,
        common=record.common.id if record.common else None,
        pending=pending.point if pending else None,
        resumable=handle.capture is not None,
        incoming=record.incoming.point if record.incoming else None,
        incoming_builds_on=record.incoming.builds_on if record.incoming else None,
        written=written,
        writes=writes,
    )


def _written(volume: VolumeHandle) -> int:
    """Blocks written at this side. Tracked, but not to be read now: nobody knows, so it is every block."""
    if volume.open is not None and (volume.open.is_tracked or volume.record.tracking is None):
        return volume.open.dirty_blocks
    return blocks_in(volume.record.size_bytes) if volume.record.tracking is not None else 0


def lineage_message(record: model.Group, own: Standing, *, reply: bool) -> Lineage:
    return Lineage(
        group=record.id,
        role=own.role.value,
        term=own.term,
        common=own.common,
        common_sequence=record.common.sequence if record.common else 0,
        pending=own.pending,
        resumable=own.resumable,
        incoming=own.incoming,
        changed_blocks=own.changed,
        generation=record.generation,
        seeded=record.common is not None,
        reply=reply,
        written=own.written,
        rolled=own.rolled,
        writes=own.writes,
    )


def standing_told(message: Lineage) -> Standing:
    """The peer's standing, from its message."""
    return Standing(
        role=Role(message.role),
        term=message.term,
        common=PointId(message.common) if message.common else None,
        pending=PointId(message.pending) if message.pending else None,
        resumable=message.resumable,
        incoming=PointId(message.incoming) if message.incoming else None,
        written=message.written,
        frozen=max(0, message.changed_blocks - message.written - message.rolled),
        rolled=message.rolled,
        writes=message.writes,
    )


@dataclass(frozen=True, slots=True)
class Contact:
    """Both sides of a group as they stand, settled, and what follows from it."""

    own: Standing
    peer: Standing
    verdict: VerdictKind


async def contact(ctx: Context, handle: GroupHandle, talk: Conversation) -> Contact:
    """Exchange standings, settle the pending capture of this side, return the verdict. Raises LinkLost."""
    record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
    own = standing(record, handle)
    peer = standing_told(await talk.ask(lineage_message(record, own, reply=False), Lineage))
    if own.pending is not None:
        await _settle(ctx, handle, record, settle_pending(own, peer))
        record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
        own = standing(record, handle)
    found = verdict(own, peer)
    handle.peer_term = max(handle.peer_term, peer.term)
    _note_split(ctx, handle, found)
    return Contact(own, peer, found)


def _note_split(ctx: Context, handle: GroupHandle, found: VerdictKind) -> None:
    was_split, handle.is_split = handle.is_split, found in SPLIT
    if handle.is_split and not was_split:
        ctx.report("error", found.value, f"Group {handle.name}: {EXPLAINED[found]}.", group=handle.name)


async def _settle(ctx: Context, handle: GroupHandle, record: model.Group, fate: PendingFate) -> None:
    assert record.pending is not None
    if fate is PendingFate.ADOPT:
        await adopt(ctx, handle, record.pending)
    elif fate is PendingFate.ABANDON:
        await forget_pending(ctx, handle)


async def answer(ctx: Context, handle: GroupHandle, link: PeerLink, message: Lineage) -> None:
    """Answer the peer's LINEAGE: settle what is half received here, then say how the group stands."""
    record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
    own, peer = standing(record, handle), standing_told(message)
    handle.peer_term = max(handle.peer_term, peer.term)
    if own.pending is not None and handle.syncing is None:
        await _settle(ctx, handle, record, settle_pending(own, peer))
        record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
        own = standing(record, handle)
    if own.incoming is not None and own.incoming_builds_on != own.common and own.common is not None:
        await receive.end_session(ctx, handle)
        await staging.drop_layers(ctx, handle)
        record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
        own = standing(record, handle)
    _note_split(ctx, handle, verdict(own, peer))
    await link.send(lineage_message(record, own, reply=True))
