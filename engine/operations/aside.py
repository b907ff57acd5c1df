"""Set-asides: what role changes discarded, listed, shown to hosts read-only, and dropped.

An `overlay` is read over the point that it lies on, which it pins; an `image` is the store and the layers up to the
highest that belonged to it. Nothing of either is folded while it is kept (`records/set_asides.py`). This module must
never let one go but for an operator who names it, nor let anybody write to one.
"""

from __future__ import annotations

from blockstore.errors import LeewardError, VolumeFailed
from blockstore.frozen import FrozenOverlay
from blockstore.image import Image
from blockstore.pack_read import SealedPack
from blockstore.read_only import ReadOnly
from engine import model
from engine.model import LayerId
from engine.operations import documents, staging
from engine.operations.context import Context
from engine.operations.converge import converge
from engine.operations.handles import GroupHandle, ShownAside, VolumeHandle
from engine.operations.snapshot import aside_export_name, close_retired, image_at, open_overlay
from engine.records import set_asides
from engine.records.columns import Connection
from engine.requests import SetAsideDoc


async def listed(ctx: Context, handle: GroupHandle) -> tuple[SetAsideDoc, ...]:
    """What is kept aside of the group, oldest first."""
    found = await ctx.database.read(lambda conn: set_asides.of_group(conn, handle.id))
    return tuple(documents.set_aside_doc(ctx, handle, kept) for kept in found)


async def export(ctx: Context, handle: GroupHandle, name: str) -> SetAsideDoc:
    """Let hosts read it, also after a restart. Again: nothing new. Raises UnknownName, LayerDamaged, OSError."""
    async with handle.lock:
        kept = await _named(ctx, handle, name)
        if name not in handle.asides:
            handle.asides[name] = await _open(ctx, handle, kept)
        await ctx.database.transact(lambda conn: set_asides.set_exported(conn, kept.id, True))
        await converge(ctx, handle)
        return documents.set_aside_doc(ctx, handle, kept)


async def unexport(ctx: Context, handle: GroupHandle, name: str) -> SetAsideDoc:
    """Take its exports away; it stays. Again: nothing. Raises UnknownName."""
    async with handle.lock:
        kept = await _named(ctx, handle, name)
        await _hide(ctx, handle, name)
        await ctx.database.transact(lambda conn: set_asides.set_exported(conn, kept.id, False))
        return documents.set_aside_doc(ctx, handle, kept)


async def drop(ctx: Context, handle: GroupHandle, name: str) -> None:
    """Let it go for ever, its exports first. Raises UnknownName."""

    def commit(conn: Connection) -> None:
        set_asides.drop(conn, set_asides.get(conn, handle.id, name))

    async with handle.lock:
        await _named(ctx, handle, name)
        await _hide(ctx, handle, name)
        await ctx.database.transact(commit)
        await staging.remove_dead(ctx, handle.volumes)
    ctx.report("warning", "set_aside_dropped", f"Group {handle.name}: {name} was dropped.", group=handle.name)


async def reopen(ctx: Context, handle: GroupHandle) -> None:
    """After a restart: what hosts could read they can read again. One that cannot be opened is reported."""
    for kept in await ctx.database.read(lambda conn: set_asides.of_group(conn, handle.id)):
        if not kept.exported:
            continue
        try:
            handle.asides[kept.name] = await _open(ctx, handle, kept)
        except (LeewardError, OSError) as error:
            # It stays as it is, to be exported again once its volume is repaired, or dropped.
            code = error.code if isinstance(error, LeewardError) else "set_aside_failed"
            ctx.report("error", code, f"Set-aside {kept.name} of {handle.name}: {error}", group=handle.name)


async def read_anew(ctx: Context, handle: GroupHandle, volume: VolumeHandle) -> None:
    """The volume's store was opened anew: what is shown of it reads that one; `converge` puts it up again."""
    index = handle.volumes.index(volume)
    for name, shown in handle.asides.items():
        await ctx.presenter.withdraw(aside_export_name(volume.name, name))
        shown.views[index] = ReadOnly(await _image(ctx, volume, shown.record, index, shown.frozen))


async def _named(ctx: Context, handle: GroupHandle, name: str) -> model.SetAside:
    return await ctx.database.read(lambda conn: set_asides.get(conn, handle.id, name))


async def _open(ctx: Context, handle: GroupHandle, kept: model.SetAside) -> ShownAside:
    shown = ShownAside(kept, [], [])
    try:
        for index, volume in enumerate(handle.volumes):
            shown.views.append(ReadOnly(await _image(ctx, volume, kept, index, shown.frozen)))
    except BaseException:
        await _close(ctx, shown)
        raise
    return shown


async def _image(
    ctx: Context, volume: VolumeHandle, kept: model.SetAside, index: int, frozen: list[FrozenOverlay]
) -> Image:
    """The volume as it was at the side that gave way; an overlay that is opened for it is added to `frozen`."""
    opened, layer = volume.require_open(), kept.layers[index]
    if kept.base is None:
        return Image(opened.store, _up_to(volume, layer), opened.size_bytes, opened.hash_seed)
    below = await image_at(ctx, volume, kept.base)
    if layer is None:
        return below
    known = [one for one in frozen if one.layer_id == layer]
    if not known:
        overlay = await ctx.pool.call(open_overlay, ctx, volume, layer)
        known = [FrozenOverlay(overlay, volume.record.size_bytes)]
        frozen += known
    return Image(opened.store, (*below.layers, known[0]), opened.size_bytes, opened.hash_seed)


def _up_to(volume: VolumeHandle, layer: LayerId | None) -> tuple[SealedPack | FrozenOverlay, ...]:
    """The volume's layers up to this one; None: none, it is the store alone."""
    if layer is None:
        return ()
    for index, known in enumerate(volume.chain):
        if known.layer_id == layer:
            return volume.chain[: index + 1]
    raise VolumeFailed(volume=volume.name, reason="a layer of what was set aside could not be opened")


async def _hide(ctx: Context, handle: GroupHandle, name: str) -> None:
    shown = handle.asides.pop(name, None)
    if shown is None:
        return
    for volume in handle.volumes:
        await ctx.presenter.withdraw(aside_export_name(volume.name, name))
    await _close(ctx, shown)
    await close_retired(ctx, handle)


async def _close(ctx: Context, shown: ShownAside) -> None:
    for layer in shown.frozen:
        await ctx.pool.call(layer.close)
