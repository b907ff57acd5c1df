"""Hold: stop hosts, see every write through, make it durable; what every role change does before it commits.

After a refusal `converge` puts everything up again: a hold is no role change. This module must never record anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.operations.context import Context
from engine.operations.converge import converge, withdraw
from engine.operations.handles import GroupHandle, VolumeHandle


@asynccontextmanager
async def held(ctx: Context, handle: GroupHandle) -> AsyncIterator[None]:
    """No host writes inside; what they wrote is on the disk. Whatever happens, what runs matches the records after it.

    Raises VolumeFailed, StoreFlushFailed, OSError.
    """
    try:
        for volume in handle.volumes:
            volume.require_open()
            await withdraw(ctx, volume)
        for volume in handle.volumes:
            await flush(ctx, volume)
        yield
    finally:
        await converge(ctx, handle)


async def flush(ctx: Context, volume: VolumeHandle) -> None:
    """All that was written is on the disk: in the store, or in the overlay that takes the writes."""
    if volume.top is not None:
        while (running := volume.top.flushing) is not None:
            await ctx.pool.over(running)
        await ctx.pool.over(volume.top.flush())
    await ctx.pool.call(volume.require_open().store.flush)
