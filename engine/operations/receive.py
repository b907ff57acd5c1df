"""The recovery end of a sync: begin, stage, flush, seal; and what ends it early.

Every step is checked against role, common point and session as they are *now*, never as they were when
the message was sent. Everything durable comes first, then one transaction makes the point visible for the
whole group, then the peer is told. Always under the group's lock. This module must never seal what was
not compared with the sender's own count and digest.
"""

from __future__ import annotations

from blockstore.layer import IncomingLayer, SealReceipt
from blockstore.pack_read import SealedPack
from engine import model
from engine.errors import RefusedByState, SealMismatch
from engine.link.peer_link import PeerLink
from engine.model import LayerId, PointId, Role, SyncId
from engine.operations import staging, volumes
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, Receiving
from engine.operations.refusals import as_leeward, refused
from engine.records import groups, points
from engine.records.columns import from_us, to_us
from engine.transfer.receiver import ReceiveSession
from engine.wire.messages import Begin, Equal, EqualNoted, Flush, Flushed, Resume, Seal, Sealed
from engine.wire.presence import pack_presence


async def begin(ctx: Context, handle: GroupHandle, link: PeerLink, message: Begin) -> None:
    """Open or reopen the layers of this sync and say what of it has landed. Raises RefusedByState, OSError."""
    await end_session(ctx, handle)
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    _check_begin(record, handle, message)
    wanted = model.Incoming(
        sync=SyncId(message.sync),
        point=PointId(message.point),
        sequence=message.sequence,
        builds_on=PointId(message.builds_on) if message.builds_on and message.mode == "delta" else None,
        captured_at=from_us(message.captured_us),
        plan_digest=message.volumes[0].plan_digest,
        blocks=sum(plan.blocks for plan in message.volumes),
    )
    layers = await staging.open_layers(ctx, handle, message, wanted)
    for _, layer in layers:
        await ctx.pool.call(layer.begin_session, message.sync)
    session = ReceiveSession(
        sync=message.sync,
        layers=[layer for _, layer in layers],
        pool=ctx.pool,
        send=link.send,
        failed=lambda error: session_failed(ctx, handle, link, message.sync, error),
    )
    handle.receiving = Receiving(
        sync=wanted.sync,
        mode=message.mode,
        session=session,
        layers=[layer for _, layer in layers],
        layer_ids=[name for name, _ in layers],
        incoming=wanted,
    )
    await _send_presence(handle, link, message, handle.receiving)


def _check_begin(record: model.Group, handle: GroupHandle, message: Begin) -> None:
    def refuse(reason: str) -> RefusedByState:
        return RefusedByState(operation="receiving a sync", group=handle.name, reason=reason)

    if record.role is not Role.RECOVERY:
        raise refuse("this site was promoted")
    if handle.failure:
        raise refuse(handle.failure)
    common = record.common.id if record.common else None
    if message.mode == "delta" and (common is None or message.builds_on != common):
        raise refuse("the sync builds on another point than the newest one here")
    if message.mode != "delta" and common is not None:
        raise refuse("there is a recovery point here already")
    # By order and size: a volume that was prepared here keeps the id under which its files lie.
    if [plan.size_bytes for plan in message.volumes] != [v.record.size_bytes for v in handle.volumes]:
        raise refuse("the volumes or their sizes differ between the sites")


async def _send_presence(handle: GroupHandle, link: PeerLink, message: Begin, receiving: Receiving) -> None:
    present = [
        pack_presence(volume.record.id, layer.presence())
        for volume, layer in zip(handle.volumes, receiving.layers, strict=True)
    ]
    reusable = [
        pack_presence(volume.record.id, layer.reusable())
        for volume, layer in zip(handle.volumes, receiving.layers, strict=True)
    ]
    window = receiving.session.window_bytes
    await link.send(Resume(handle.id, message.sync, window, tuple(present), tuple(reusable)))


def session_failed(ctx: Context, handle: GroupHandle, link: PeerLink, sync: bytes, error: Exception) -> None:
    """The session is void: the operator sees why, the sender is told. On the loop."""
    told = as_leeward(error)
    ctx.report("error", told.code, f"Receiving a sync of {handle.name}: {told.message}", group=handle.name)
    link.post(refused(told, group=handle.id, sync=sync))


async def flush(handle: GroupHandle, link: PeerLink, message: Flush) -> None:
    """All that has landed is durable, then the peer is told: the end of a seed pass."""
    receiving = require_receiving(handle, message.sync)
    await receiving.session.flush()
    await link.send(Flushed(sync=message.sync))


async def seal(ctx: Context, handle: GroupHandle, link: PeerLink, message: Seal) -> None:
    """Compare, make durable, record the point for the whole group, answer. Raises SealMismatch, RefusedByState."""
    receiving = require_receiving(handle, message.sync)
    receipts = await receiving.session.seal()
    for volume, told, receipt in zip(handle.volumes, message.volumes, receipts, strict=True):
        if (told.blocks, told.digest) != (receipt.blocks, receipt.digest):
            # Nothing of it may be built upon: the next sync begins from nothing.
            await end_session(ctx, handle)
            await staging.drop_layers(ctx, handle)
            await staging.forget_seeds(ctx, handle)
            raise SealMismatch(volume=volume.name, sent=told.blocks, held=receipt.blocks)
    if receiving.mode == "seed_delta":
        await staging.finish_seed(ctx, handle, receiving)
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    if record.role is not Role.RECOVERY or record.incoming is None or record.incoming.sync != message.sync:
        raise RefusedByState(operation="sealing", group=handle.name, reason="this sync was given up here")
    point = _point_of(ctx, handle, receiving, receipts)
    sealed = [] if receiving.mode == "seed_delta" else list(zip(receiving.layer_ids, receipts, strict=True))
    await ctx.database.transact(lambda conn: points.seal(conn, point, sealed, term=handle.peer_term))
    await _extend_chains(ctx, handle, receiving, receipts)
    await volumes.forget_planned(ctx, handle)
    await link.send(Sealed(group=handle.id, sync=message.sync, point=point.id, sealed_us=to_us(point.sealed_at)))


def _point_of(ctx: Context, handle: GroupHandle, receiving: Receiving, receipts: list[SealReceipt]) -> model.Point:
    return model.Point(
        id=receiving.incoming.point,
        group=handle.id,
        sequence=receiving.incoming.sequence,
        captured_at=receiving.incoming.captured_at,
        sealed_at=ctx.clock.now(),
        generation=None,
        digest=b"".join(receipt.digest for receipt in receipts)[:16],
        bytes=staging.landed_bytes(receiving, receipts),
        pins=0,
    )


async def _extend_chains(ctx: Context, handle: GroupHandle, receiving: Receiving, receipts: list[SealReceipt]) -> None:
    handle.receiving = None
    await ctx.pool.call(_close_all, receiving.layers)
    if receiving.mode == "seed_delta":
        return
    for volume, layer, receipt in zip(handle.volumes, receiving.layer_ids, receipts, strict=True):
        pack = await ctx.pool.call(open_pack, ctx, volume.record, layer, receipt)
        volume.chain = (*volume.chain, pack)


def open_pack(ctx: Context, record: model.Volume, layer: LayerId, receipt: SealReceipt | None) -> SealedPack:
    """A sealed pack of this volume, its directory checked. Blocking. Raises LayerDamaged."""
    return SealedPack.open(
        ctx.disk,
        ctx.paths.pack(record.id, layer),
        volume_id=record.id,
        layer_id=layer,
        hash_seed=record.hash_seed,
        image_bytes=record.size_bytes,
        receipt=receipt,
    )


def _close_all(layers: list[IncomingLayer]) -> None:
    for layer in layers:
        layer.close()


async def equal(ctx: Context, handle: GroupHandle, link: PeerLink, message: Equal) -> None:
    """The peer's image still equals the newest point as of a moment: from it the lag is counted."""
    at = from_us(message.as_of_us)
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    if record.common is None or record.common.id != message.point:
        raise RefusedByState(operation="noting equality", group=handle.name, reason="the newest point is another one")
    await end_session(ctx, handle)
    await staging.drop_layers(ctx, handle)
    await ctx.database.transact(lambda conn: groups.equal(conn, handle.id, at))
    await link.send(EqualNoted(group=handle.id))


async def end_session(ctx: Context, handle: GroupHandle) -> None:
    """Void the session that receives, if any: its writers are joined, its layers stay for a resume."""
    receiving, handle.receiving = handle.receiving, None
    if receiving is None:
        return
    await receiving.session.join()
    await ctx.pool.call(_close_all, receiving.layers)


def require_receiving(handle: GroupHandle, sync: bytes) -> Receiving:
    """The session of this sync. Raises RefusedByState when it is void."""
    if handle.receiving is None or handle.receiving.sync != sync:
        raise RefusedByState(operation="receiving a sync", group=handle.name, reason="this sync is not running here")
    return handle.receiving
