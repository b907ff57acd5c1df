"""Yield: this side becomes recovery; reverse, discard and restore are all this one step (lineage.md 5).

Hold, check the guard again on what is true now, flush, one transaction, then the files follow. A crash before the
transaction: nothing happened. After it: done, and boot finishes the rest. What hosts had written that the other side
lacks is set aside under a name. This module must never discard a block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from blockstore.frozen import FrozenOverlay
from engine import model
from engine.decide.lineage import Standing
from engine.decide.yielding import Yield, how_to_yield
from engine.errors import RefusedByState
from engine.model import Role, SetAside, SetAsideId
from engine.operations import capture, receive, staging, volumes
from engine.operations.contact import standing
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.operations.holding import held
from engine.records import groups, layers, points, roles, set_asides
from engine.records import volumes as volume_records
from engine.records.columns import Connection

Guard = Callable[[model.Group, Standing], str]
"""Why this side may not yield as it stands now; empty: it may."""


async def give_way(ctx: Context, handle: GroupHandle, operation: str, guard: Guard, *, term: int) -> SetAside | None:
    """Become recovery; returns what was set aside. The caller holds the group's lock. Again: nothing.

    Raises RefusedByState, VolumeFailed, StoreFlushFailed, Raced; then everything is as before.
    """
    async with held(ctx, handle):
        record = await ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
        if record.role is Role.RECOVERY:
            return None
        own = standing(record, handle)
        reason = "a sync of it is under way" if handle.syncing or record.pending else guard(record, own)
        if reason:
            raise RefusedByState(operation=operation, group=handle.name, reason=reason)
        handle.busy = "it gives way to the other side"
        try:
            kept = await _yield(ctx, handle, operation, record, own, term)
        finally:
            handle.busy = ""
    handle.is_split = False
    aside = f"; {own.written} blocks written here are set aside as {kept.name}" if kept else ""
    ctx.report("warning", "yielded", f"Group {handle.name} is recovery here now{aside}.", group=handle.name)
    return kept


async def _yield(
    ctx: Context, handle: GroupHandle, operation: str, record: model.Group, own: Standing, term: int
) -> SetAside | None:
    common = model.require(record.common)
    holds = await ctx.database.read(lambda conn: points.find(conn, common.id))
    how = how_to_yield(own, holds_common=holds is not None)
    await _settle_hashes(ctx, handle, how)
    kept = await _named(ctx, handle, record, own, how, operation) if own.written else None
    await ctx.database.transact(
        lambda conn: roles.give_way(conn, handle.id, how, kept, term=term, at=ctx.clock.now(), expects=record.version)
    )
    await _follow(ctx, handle, how)
    return kept


async def _settle_hashes(ctx: Context, handle: GroupHandle, how: Yield) -> None:
    """The table speaks for the base from now on; where that is not the common point, it forgets."""
    for volume in handle.volumes:
        opened = volume.require_open()
        async with volume.hashing:
            if how is Yield.AS_POINT and volume.top is None and not volume.chain:
                if handle.unsettled is not None:
                    await ctx.pool.call(capture.apply_volume, ctx, volume, handle.unsettled)
            elif how is not Yield.TO_POINT:
                await ctx.pool.call(opened.hashes.forget_all)
                await ctx.pool.call(opened.hashes.bind, capture.NO_POINT)
    handle.unsettled = None


async def _named(
    ctx: Context, handle: GroupHandle, record: model.Group, own: Standing, how: Yield, operation: str
) -> SetAside:
    known = await ctx.database.read(lambda conn: set_asides.of_group(conn, handle.id))
    taken = {old.name for old in known}
    name = next(f"aside-{number}" for number in range(1, len(taken) + 2) if f"aside-{number}" not in taken)
    is_overlay = how is Yield.TO_POINT
    highest = [volume.record.top or (volume.chain[-1].layer_id if volume.chain else None) for volume in handle.volumes]
    return SetAside(
        id=SetAsideId(ctx.clock.token(16)),
        group=handle.id,
        name=name,
        why=operation,
        kind=set_asides.OVERLAY if is_overlay else set_asides.IMAGE,
        base=model.require(record.common).id if is_overlay else None,
        layers=tuple(None if layer is None else model.LayerId(layer) for layer in highest),
        blocks=own.written,
        created_at=ctx.clock.now(),
    )


async def _follow(ctx: Context, handle: GroupHandle, how: Yield) -> None:
    """What runs follows the records: tops are frozen or closed, tracking that is in force no more is removed."""
    await receive.end_session(ctx, handle)
    for volume in handle.volumes:
        top, volume.top, volume.top_io = volume.top, None, None
        if top is not None and how is Yield.TO_POINT:
            await ctx.pool.call(top.close)
        elif top is not None:
            volume.chain = (*volume.chain, FrozenOverlay(top, volume.record.size_bytes))
        if how is Yield.TO_POINT:
            await _reopen_rolled(ctx, volume)
        volume.record = await ctx.database.read(partial(_by_id, volume=volume.record.id))
    if how is not Yield.OWN_IMAGE:
        await volumes.forget_planned(ctx, handle)
    await staging.remove_dead(ctx, handle.volumes)


async def _reopen_rolled(ctx: Context, volume: VolumeHandle) -> None:
    """Layers above an older point that had been promoted are part of the image again."""
    rows = await ctx.database.read(partial(layers.chain, volume=volume.record.id))
    known = {layer.layer_id: layer for layer in volume.chain}
    chain = []
    for row in rows:
        old = known.get(row.id)
        chain.append(
            old if old is not None else await ctx.pool.call(receive.open_pack, ctx, volume.record, row.id, None)
        )
    volume.chain = tuple(chain)


def _by_id(conn: Connection, volume: model.VolumeId) -> model.Volume:
    return volume_records.by_id(conn, volume)
