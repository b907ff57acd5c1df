"""Reopen a volume that failed, once its disk is repaired: close, forget its cache, open, and count all as changed.

What the page cache shows may never have reached the disk, so the cache goes first and the next sync compares
every block by hash. This module must never trust a bit from before the failure.
"""

from __future__ import annotations

from blockstore.errors import LeewardError
from blockstore.overlay_io import OverlayIO
from engine.errors import RefusedByState
from engine.model import Role, VolumeState
from engine.operations import aside, opening, snapshot, volumes
from engine.operations.context import Context
from engine.operations.converge import converge, withdraw
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.records import groups, layers
from engine.records import volumes as records


async def _read_anew(ctx: Context, handle: VolumeHandle, group: GroupHandle) -> None:
    """Test copies and set-asides on the volume's image read the store that is open now."""
    index = group.volumes.index(handle)
    for shown in [shown for shown in group.snapshots.values() if shown.views]:
        await ctx.presenter.withdraw(snapshot.export_name(handle.name, shown.record.name))
        image = await snapshot.image_at(ctx, handle, shown.record.point)
        shown.views[index] = OverlayIO(shown.overlays[index], image)
    await aside.read_anew(ctx, group, handle)


async def reopen(ctx: Context, handle: VolumeHandle, group: GroupHandle | None) -> None:
    """Open the volume anew, its exports up on return. Raises RefusedByState while a sync of its group runs.

    Raises Store* errors, OSError; it stays failed then.
    """
    if group is None:
        await _reopen(ctx, handle, None)
        return
    async with group.lock:
        if group.syncing is not None:
            raise RefusedByState(operation="volume reopen", group=group.name, reason="a sync of it runs")
        group.busy = f"volume {handle.name} is being opened again"
        try:
            await _reopen(ctx, handle, group)
        finally:
            group.busy = ""


async def _reopen(ctx: Context, handle: VolumeHandle, group: GroupHandle | None) -> None:
    await withdraw(ctx, handle)
    if handle.open is not None:
        closing, handle.open = handle.open, None
        await ctx.pool.call(closing.store.drop_cache)
        await ctx.pool.call(closing.close)
    handle.failure = "it is being reopened"
    try:
        handle.open = await ctx.pool.call(volumes.open_blocking, ctx, handle.record)
    except Exception as error:
        await volumes.fail(ctx, handle, error)
        raise
    await ctx.pool.call(handle.open.store.drop_cache)
    handle.failure = ""
    await ctx.database.transact(lambda conn: records.set_state(conn, handle.record.id, VolumeState.ACTIVE))
    if group is None:
        return
    try:
        await _bring_up(ctx, handle, group)
    except (LeewardError, OSError) as error:
        await volumes.fail(ctx, handle, error)
        raise
    ctx.report("info", "volume_reopened", f"Volume {handle.name} is open again.", group=group.name)


async def _bring_up(ctx: Context, handle: VolumeHandle, group: GroupHandle) -> None:
    """Its layers are open, its tracking begins anew, and what lies on it reads the store that is open now."""
    record = await ctx.database.read(lambda conn: groups.by_id(conn, group.id))
    handle.record = await ctx.database.read(lambda conn: records.by_id(conn, handle.record.id))
    rows = await ctx.database.read(lambda conn: layers.chain(conn, handle.record.id))
    if len(rows) != len(handle.chain):  # it had failed before they could be opened
        await opening.open_chain(ctx, handle)
    if record.role is not Role.RECOVERY or handle.record.tracking is not None:  # it gave way with writes of its own
        await volumes.start_tracking(ctx, handle)
    await opening.open_top(ctx, handle)
    await _read_anew(ctx, handle, group)
    await converge(ctx, group)
