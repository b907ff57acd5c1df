"""What lies on a volume's store is opened: its sealed layers, and the overlay that takes the writes of a promoted side.

At boot, and again when a volume that failed is reopened. Nothing may be exported before this is done: an image without
its layers is another image. This module must never make or remove a file.
"""

from __future__ import annotations

from functools import partial

from blockstore.frozen import FrozenOverlay
from blockstore.layer import SealReceipt
from blockstore.pack_read import SealedPack
from engine import model
from engine.model import LayerKind
from engine.operations import promote, snapshot
from engine.operations.context import Context
from engine.operations.handles import VolumeHandle
from engine.operations.receive import open_pack
from engine.records import layers


async def open_chain(ctx: Context, volume: VolumeHandle) -> None:
    """Its sealed layers, oldest first. Raises LayerDamaged, OSError."""
    found: list[SealedPack | FrozenOverlay] = []
    for row in await ctx.database.read(partial(layers.chain, volume=volume.record.id)):
        if row.kind is LayerKind.OVERLAY:
            overlay = await ctx.pool.call(snapshot.open_overlay, ctx, volume, row.id)
            found.append(FrozenOverlay(overlay, volume.record.size_bytes))
        else:
            found.append(await ctx.pool.call(open_pack, ctx, volume.record, row.id, receipt_of(row)))
    volume.chain = tuple(found)


async def open_top(ctx: Context, volume: VolumeHandle) -> None:
    """The overlay that takes its writes, on the image of the point it was promoted at; nothing if there is none.

    One that was open is closed first: after a flush that failed, only what is on the disk counts. Raises LayerDamaged,
    OSError, StoreFlushFailed.
    """
    top = volume.record.top
    if top is None:
        return
    old, volume.top, volume.top_io = volume.top, None, None
    if old is not None:
        await ctx.pool.call(old.close)
    row = await ctx.database.read(partial(layers.get, layer=top))
    overlay = await ctx.pool.call(snapshot.open_overlay, ctx, volume, top)
    await promote.bind_top(ctx, volume, row.builds_on, overlay)


def receipt_of(row: model.Layer) -> SealReceipt:
    """What the records keep of a sealed layer."""
    return SealReceipt(
        length_bytes=row.length_bytes,
        directory_offset=row.directory_offset,
        directory_check=row.directory_check.to_bytes(8, "little"),
        blocks=row.blocks,
        payload_bytes=0,
        digest=row.digest,
    )
