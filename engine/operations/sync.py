"""A sync, told from top to bottom: contact, first pass if there is no point yet, capture, ship, seal, settle.

The protected end. A link that breaks is waited for and the same capture goes on from what the receiver
holds; only when the peer stays away is the capture given up. Done means that every write acknowledged
before the call is in a sealed point. This module must never decide a verdict, nor move a block itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from blockstore import holes
from blockstore.units import BLOCK
from engine import model
from engine.decide.lineage import EXPLAINED, VerdictKind
from engine.decide.plan import PlanTotals, plan_volume
from engine.decide.roles import require_legal
from engine.decide.status import lag_s
from engine.errors import GroupPaused, PeerUnreachable, RefusedByState
from engine.model import SyncId
from engine.operations import announce, capture, changed, pause
from engine.operations.budget import NEVER_S
from engine.operations.capture import GroupCapture
from engine.operations.contact import contact
from engine.operations.context import Context, Progress
from engine.operations.conversation import Conversation, converse
from engine.operations.documents import point_doc
from engine.operations.handles import GroupHandle
from engine.operations.shipping import Ship, Tally
from engine.operations.sources import DeltaSource, HashJournal, SeedSource
from engine.records import groups
from engine.records.columns import from_us, to_us
from engine.requests import Sync, SyncDoc
from engine.wire.messages import Abort, Begin, Equal, EqualNoted, Mode, Resume, Seal, Sealed, VolumePlan, VolumeSeal

CONTACT_WAIT_S = 30.0
MOST_BREAKS = 10
"""Links that may break one after another without anything sent: something else is wrong then."""
NO_PLAN = PlanTotals(0, bytes(16))


@dataclass(slots=True)
class Attempt:
    """What one try over one link needs; the tally goes on from try to try."""

    ctx: Context
    handle: GroupHandle
    talk: Conversation
    tally: Tally
    progress: Progress


async def sync(ctx: Context, handle: GroupHandle, request: Sync, operation: str, progress: Progress) -> SyncDoc:
    """Bring the recovery site to an image of now.

    Raises PeerUnreachable, RefusedByState, GroupPaused, VolumeFailed, PeerRefused, CaptureFailed, StoreFlushFailed,
    OSError.
    """
    began = ctx.clock.monotonic()
    if handle.busy:
        raise RefusedByState(operation="sync", group=handle.name, reason=handle.busy)
    tally = Tally()
    handle.syncing = progress  # from here on no role changes: what is read next stays true
    try:
        require_legal(request, await ctx.database.read(lambda conn: groups.by_id(conn, handle.id)))
        await _refuse_paused(ctx, handle)  # at once, not only when the peer is there
        for volume in handle.volumes:
            volume.require_open()
        point = await _until_done(ctx, handle, tally, progress)
    finally:
        handle.syncing = None
        await capture.abandon_capture(ctx, handle)
    return SyncDoc(
        operation=operation,
        group=handle.name,
        state="done",
        point=point_doc(point) if point else None,
        bytes_changed=tally.blocks_changed * BLOCK,
        bytes_sent=tally.bytes_sent,
        bytes_wire=tally.bytes_wire,
        bytes_resent=tally.bytes_resent,
        seconds=round(ctx.clock.monotonic() - began, 6),
    )


async def _until_done(ctx: Context, handle: GroupHandle, tally: Tally, progress: Progress) -> model.Point | None:
    """Try over one link after another. Raises PeerUnreachable when there was none for too long, or none held."""
    breaks, sent = 0, 0
    while True:
        progress.begin("waiting for the peer", 0)
        link = await ctx.links.wait(handle.peer, CONTACT_WAIT_S)
        wire_before = link.bytes_total
        try:
            async with converse(handle, link) as talk:
                talk.is_sync = True  # from here on a pause ends it; one that came before is seen now
                await _refuse_paused(ctx, handle)
                return await _attempt(Attempt(ctx, handle, talk, tally, progress))
        except GroupPaused as error:
            if talk.sync is not None:
                link.post(Abort(sync=talk.sync, code=error.code, message=error.message))
            raise
        except PeerUnreachable:
            breaks = breaks + 1 if tally.bytes_sent == sent else 1
            sent = tally.bytes_sent
            if breaks > MOST_BREAKS:
                raise
            # The link broke; the capture is held, and what landed is at the receiver: go on over the next link.
            text = f"The link broke in a sync of {handle.name}; it goes on when the peer is back."
            ctx.report("warning", "sync_interrupted", text, group=handle.name)
        finally:
            tally.bytes_wire += link.bytes_total - wire_before


async def _refuse_paused(ctx: Context, handle: GroupHandle) -> None:
    """Raises GroupPaused."""
    record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
    if record.paused_at is not None:
        raise pause.paused(record)


async def _attempt(at: Attempt) -> model.Point | None:
    await announce.announce(at.ctx, at.handle, at.talk)
    asked_at = at.ctx.clock.now()
    met = await contact(at.ctx, at.handle, at.talk)
    found = met.verdict
    if found not in (VerdictKind.IN_SYNC, VerdictKind.FORWARD, VerdictKind.SEEDING):
        raise RefusedByState(operation="sync", group=at.handle.name, reason=EXPLAINED[found])
    record = await at.ctx.database.read(lambda conn: groups.by_id(conn, at.handle.id))
    if at.handle.unsettled is not None:
        await capture.apply_hashes(at.ctx, at.handle)
    if found is VerdictKind.IN_SYNC:
        return await _note_equal(at, record, asked_at)
    if found is VerdictKind.SEEDING and at.handle.capture is None:
        await _first_pass(at, record)
    captured = at.handle.capture
    if captured is not None and captured.peer_term != met.peer.term:
        await capture.forget_pending(at.ctx, at.handle)  # the peer was promoted meanwhile, and gave way again
        captured = None
    if captured is None:
        theirs = await changed.fetch(at.handle, at.talk) if met.peer.changed else None
        captured = await capture.take_capture(at.ctx, at.handle, record, theirs, peer_term=met.peer.term)
    return await _ship_capture(at, record, captured)


async def _note_equal(at: Attempt, record: model.Group, as_of: datetime) -> model.Point | None:
    """Nothing differed at that moment: both sides note it, and no new point is made."""
    assert record.common is not None
    await at.talk.ask(Equal(group=record.id, point=record.common.id, as_of_us=to_us(as_of)), EqualNoted)
    await at.ctx.database.transact(lambda conn: groups.equal(conn, record.id, as_of))
    return record.common


def seed_id(handle: GroupHandle) -> SyncId:
    """Names the first copy of a group for as long as its tracking goes on: new tracking, new copy."""
    tracked = b"".join(volume.record.tracking or b"" for volume in handle.volumes)
    return SyncId(hashlib.blake2b(tracked, digest_size=16).digest())


async def _first_pass(at: Attempt, record: model.Group) -> None:
    """Everything once, without a capture: what is written meanwhile comes with the delta behind it."""
    volumes = [volume.require_open() for volume in at.handle.volumes]
    seed = seed_id(at.handle)
    plans = [NO_PLAN for _ in volumes]
    begin = _begin(at.handle, record, seed, seed, 1, at.ctx.clock.now(), "seed", None, plans)
    at.talk.sync = begin.sync
    resume = await at.talk.ask(begin, Resume)
    ship = _ship(at, record, resume)
    try:
        if ship.is_fresh:
            for volume in volumes:
                await at.ctx.pool.call(volume.hashes.forget_all)
                await at.ctx.pool.over(volume.set_clean_everything())
        at.progress.begin("first copy", sum(volume.size_bytes for volume in volumes))
        for index, volume in enumerate(volumes):
            knows_holes = await at.ctx.pool.call(holes.knows_holes, at.ctx.disk, volume.store)
            source = SeedSource(at.ctx.pool, volume, frozenset(ship.present(index)), knows_holes=knows_holes)
            await ship.volume(index, volume, source, HashJournal(volume))
        await ship.finish()
    finally:
        ship.close()


def _ship(at: Attempt, record: model.Group, resume: Resume) -> Ship:
    names, due_s = [volume.name for volume in at.handle.volumes], NEVER_S
    lag = lag_s(record, at.ctx.clock.now())
    if record.rpo_s is not None and lag is not None:
        due_s = at.ctx.clock.monotonic() + record.rpo_s - lag
    return Ship(at.ctx, at.talk, at.tally, resume, at.progress, names, due_s)


async def _ship_capture(at: Attempt, record: model.Group, captured: GroupCapture) -> model.Point | None:
    """Ship what is frozen, seal it at the peer, adopt the point. Raises as `sync`."""
    for part in captured.parts:
        await at.ctx.pool.over(part.quiesced)
    common = record.common.id if record.common else None
    plans = [plan_volume(part.regions()) for part in captured.parts]
    mode: Mode = "delta" if common else "seed_delta"
    builds_on = common or seed_id(at.handle)
    when = captured.captured_at
    sequence = captured.sequence
    begin = _begin(at.handle, record, captured.sync, captured.point, sequence, when, mode, builds_on, plans)
    at.talk.sync = begin.sync
    resume = await at.talk.ask(begin, Resume)
    ship = _ship(at, record, resume)
    try:
        at.progress.begin("sending changes", sum(plan.blocks for plan in plans) * BLOCK)
        for index, (volume, part) in enumerate(zip(at.handle.volumes, captured.parts, strict=True)):
            source = DeltaSource(at.ctx.pool, volume.require_open(), part, common)
            await ship.volume(index, volume.require_open(), source, captured.redos[index])
        await ship.finish()
    finally:
        ship.close()
    captured.frames += ship.frames
    if common is not None and captured.frames == 0 and ship.is_fresh:
        await capture.close_equal(at.ctx, at.handle, captured)
        return await _note_equal(at, record, captured.captured_at)
    return await _seal(at, record, captured)


async def _seal(at: Attempt, record: model.Group, captured: GroupCapture) -> model.Point:
    """Flush here, then let the peer seal, then adopt. From `sealing` on only the peer knows the outcome."""
    at.progress.begin("sealing", 0)
    await capture.flush_capture(at.ctx, captured)
    receipts = await capture.seal_redos(at.ctx, captured)
    await capture.announce_seal(at.ctx, at.handle, captured)
    sealed = await at.talk.ask(
        Seal(
            sync=captured.sync,
            captured_us=to_us(captured.captured_at),
            volumes=tuple(
                VolumeSeal(volume=volume.record.id, blocks=receipt.blocks, digest=receipt.digest)
                for volume, receipt in zip(at.handle.volumes, receipts, strict=True)
            ),
        ),
        Sealed,
    )
    return await capture.adopt(at.ctx, at.handle, captured.pending, from_us(sealed.sealed_us), at.tally.bytes_sent)


def _begin(
    handle: GroupHandle,
    record: model.Group,
    sync: bytes,
    point: bytes,
    sequence: int,
    captured_at: datetime,
    mode: Mode,
    builds_on: bytes | None,
    plans: list[PlanTotals],
) -> Begin:
    return Begin(
        group=record.id,
        sync=sync,
        point=point,
        sequence=sequence,
        builds_on=builds_on,
        mode=mode,
        captured_us=to_us(captured_at),
        generation=record.generation,
        volumes=tuple(
            VolumePlan(volume.record.id, volume.record.size_bytes, plan.blocks, plan.digest)
            for volume, plan in zip(handle.volumes, plans, strict=True)
        ),
    )
