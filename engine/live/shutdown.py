"""The end of a run: every volume is stopped clean, so that the next start has nothing to recover.

What cannot be stopped clean is left as a crash would leave it, which is always safe. This module must never
wait for a host or a peer.
"""

from __future__ import annotations

from functools import partial

from blockstore.errors import LeewardError
from blockstore.overlay import Overlay
from blockstore.units import StoreIdentity
from engine.live.site import Site
from engine.model import VolumeId
from engine.operations.context import Context
from engine.operations.converge import withdraw
from engine.operations.handles import VolumeHandle
from engine.records import volumes
from engine.records.columns import Connection


async def stop_volumes(site: Site) -> None:
    """Withdraw, flush, record and close every volume of the site."""
    handles = list(site.free.values())
    for running in site.groups_by_name.values():
        handles += running.handle.volumes
        for snapshot in running.handle.snapshots.values():
            for overlay in snapshot.overlays:
                await _stop_overlay(site.ctx, overlay, f"snapshot {snapshot.record.name} of {running.handle.name}")
        for shown in running.handle.asides.values():
            for layer in shown.frozen:
                await site.ctx.pool.call(layer.close)
    for handle in handles:
        try:
            await _stop(site.ctx, handle)
        except (LeewardError, OSError) as error:
            # The next start recovers it from its intent log, as after a crash.
            site.ctx.report("error", "unclean_stop", f"Volume {handle.name} was not stopped clean: {error}")


async def _stop_overlay(ctx: Context, overlay: Overlay, name: str) -> None:
    """Flush and close: a reboot may follow, which takes the live map that its newest bits stand in."""
    try:
        while (running := overlay.flushing) is not None:
            await ctx.pool.over(running)
        await ctx.pool.over(overlay.flush())
    except (LeewardError, OSError) as error:
        # As after a power cut: what was not flushed before may be gone, and the operator is told.
        ctx.report("error", "unclean_stop", f"The writes of {name} could not be flushed: {error}")
    await ctx.pool.call(overlay.close)


async def _stop(ctx: Context, handle: VolumeHandle) -> None:
    opened = handle.open
    if opened is None:
        return
    was_tracked = opened.is_tracked
    await withdraw(ctx, handle)
    if handle.top is not None:
        await _stop_overlay(ctx, handle.top, f"volume {handle.name}")
    if was_tracked and not opened.failed:
        await ctx.pool.finish(opened.stop_clean)
        identity = opened.store.identity()
        await ctx.database.transact(partial(_stopped, volume=handle.record.id, identity=identity, writes=opened.writes))
    for pack in (*handle.chain, *handle.retired):
        await ctx.pool.call(pack.close)
    await ctx.pool.call(opened.close)


def _stopped(conn: Connection, volume: VolumeId, identity: StoreIdentity, writes: int) -> None:
    volumes.stopped(conn, volume, identity, writes=writes)
