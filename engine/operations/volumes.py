"""Volumes come and go: add, remove, reopen; and how one is opened and closed at this site.

A volume has no role and no export before a group holds it, but its store is taken for exclusive use at
once. This module must never change what a store holds.
"""

from __future__ import annotations

import os
import re
from functools import partial

from blockstore.errors import StoreMissing, StoreTooSmall
from blockstore.stores.kinds import make_store, open_store
from blockstore.units import StoreIdentity
from blockstore.volume import Volume
from engine import model
from engine.errors import BadValue, LeewardError, NameTaken, RefusedByState
from engine.model import TrackingId, VolumeId, VolumeState
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.records import groups, volumes
from engine.records.columns import Connection
from engine.requests import VolumeAdd

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def check_name(what: str, name: str) -> None:
    """Names are parts of export names and paths. Raises BadValue."""
    if NAME.fullmatch(name) is None:
        raise BadValue(
            what=f"{what} name",
            value=name or "''",
            reason="use 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first",
        )


async def add(ctx: Context, request: VolumeAdd) -> VolumeHandle:
    """A new volume, its store open. Raises BadValue, NameTaken, Store* errors, OSError; then nothing was made."""
    check_name("volume", request.name)
    if await ctx.database.transact(lambda conn: volumes.find(conn, request.name)) is not None:
        raise NameTaken(what="volume", name=request.name)
    path = os.path.abspath(request.store)
    made = await ctx.pool.call(_make_or_measure, ctx, path, request.size_bytes)
    record = model.Volume(
        id=VolumeId(ctx.clock.token(16)),
        name=request.name,
        store=path,
        size_bytes=made,
        prepared=request.prepared,
        state=VolumeState.ACTIVE,
        reason="",
        group=None,
        position=0,
        tracking=None,
        nonce=bytes(16),
        writes=0,
        hash_seed=int.from_bytes(ctx.clock.token(8), "little"),
        wwn=model.new_wwn(ctx.clock.token(13)),
        identity=None,
        top=None,
    )
    handle = VolumeHandle(record)
    handle.open = await ctx.pool.call(open_blocking, ctx, record)
    await ctx.database.transact(lambda conn: volumes.insert(conn, record))
    return handle


def _make_or_measure(ctx: Context, path: str, size_bytes: int | None) -> int:
    """The volume's size in bytes: of the store that is there, or of the one that is made."""
    if not ctx.disk.exists(path):
        if size_bytes is None:
            raise StoreMissing(path=path)
        make_store(ctx.disk, path, size_bytes)
        return size_bytes
    store = open_store(ctx.disk, path)
    try:
        if size_bytes is not None and store.size_bytes < size_bytes:
            raise StoreTooSmall(path=path, size_bytes=store.size_bytes, needed_bytes=size_bytes)
        if store.size_bytes == 0:
            raise StoreTooSmall(path=path, size_bytes=0, needed_bytes=512)
        return store.size_bytes
    finally:
        store.close()


def open_blocking(ctx: Context, record: model.Volume) -> Volume:
    """Lock and open a volume's store and files; makes its folder. Blocking. Raises Store* errors, OSError."""
    folder = ctx.paths.volume(record.id)
    ctx.disk.make_dir(ctx.paths.layers(record.id))
    live = ctx.paths.live_folder(record.id)
    if live is not None:
        ctx.disk.make_dir(live)
    return Volume.open(
        ctx.disk,
        name=record.name,
        volume_id=record.id,
        store_path=record.store,
        size_bytes=record.size_bytes,
        store_bytes=record.store_bytes,
        folder=folder,
        live_folder=live,
        hash_seed=record.hash_seed,
    )


async def try_open(ctx: Context, handle: VolumeHandle) -> None:
    """Open a recorded volume, or note why it cannot be: a failed volume stops its group, not the site."""
    try:
        handle.open = await ctx.pool.call(open_blocking, ctx, handle.record)
        handle.failure = ""
    except (LeewardError, OSError) as error:
        await fail(ctx, handle, error)


async def fail(ctx: Context, handle: VolumeHandle, error: Exception) -> None:
    """Record that a volume cannot be used, and tell the operator."""
    handle.failure = str(error)
    code = error.code if isinstance(error, LeewardError) else "volume_failed"
    ctx.report("error", code, f"Volume {handle.name}: {error}", volume=handle.name)
    await ctx.database.transact(
        lambda conn: volumes.set_state(conn, handle.record.id, VolumeState.FAILED, handle.failure)
    )


async def start_tracking(ctx: Context, handle: VolumeHandle) -> None:
    """Track a volume's changes from now on, as new: every block counts as changed. Its files are durable first."""
    opened = handle.require_open()
    tracking = TrackingId(ctx.clock.token(16))
    await ctx.pool.call(opened.start_tracking, tracking, all_dirty=True)
    await resume_tracking(ctx, handle, tracking, nonce=bytes(16), clean=False, pending=False)


async def resume_tracking(
    ctx: Context, handle: VolumeHandle, tracking: TrackingId, *, nonce: bytes, clean: bool, pending: bool
) -> None:
    """Open the tracking in force and put its new live maps in force. Raises TrackingLost, OSError."""
    opened = handle.require_open()
    open_it = partial(opened.open_tracking, nonce=nonce, clean=clean, pending=pending, writes=handle.record.writes)
    found = await ctx.pool.call(open_it, tracking)

    def commit(conn: Connection) -> model.Volume:
        volumes.opened(conn, handle.record.id, tracking=tracking, nonce=found.nonce, writes=found.writes)
        return volumes.by_id(conn, handle.record.id)

    handle.record = await ctx.database.transact(commit)
    await ctx.pool.call(opened.maps_committed)
    if found.lost:
        ctx.report("warning", "tracking_lost", f"Volume {handle.name}: {found.lost}", volume=handle.name)


def was_written_behind(record: model.Volume, now: StoreIdentity) -> bool:
    """True if the store is not what it was at the clean stop that the record tells of."""
    return record.identity is not None and tuple(record.identity) != tuple(now)


async def remove(ctx: Context, handle: VolumeHandle) -> None:
    """Forget a volume that is in no group; its store is left as it is. Raises RefusedByState."""
    record = await ctx.database.transact(lambda conn: volumes.get(conn, handle.name))
    if record.group is not None:
        group = await ctx.database.transact(lambda conn: groups.by_id(conn, model.require(record.group)))
        raise RefusedByState(operation="volume remove", group=group.name, reason=f"volume {handle.name} is in it")
    if handle.open is not None:
        await ctx.pool.call(handle.open.close)
    await ctx.database.transact(lambda conn: volumes.set_state(conn, record.id, VolumeState.DEAD))
    await forget_dead(ctx)


async def forget_dead(ctx: Context) -> None:
    """Unlink the files of removed volumes, then their rows. Repeated at boot."""
    for record in await ctx.database.transact(volumes.dead):
        await ctx.pool.call(_unlink_folder, ctx, record)
        await ctx.database.transact(partial(_delete, gone=record.id))


def _delete(conn: Connection, gone: VolumeId) -> None:
    volumes.delete(conn, gone)


def _unlink_folder(ctx: Context, record: model.Volume) -> None:
    for folder in (ctx.paths.layers(record.id), ctx.paths.volume(record.id), ctx.paths.live_folder(record.id)):
        if folder is not None:
            for name in ctx.disk.list(folder):
                if name != "layers":
                    ctx.disk.unlink(f"{folder}/{name}")
            ctx.disk.remove_dir(folder)


async def forget_planned(ctx: Context, group: GroupHandle) -> None:
    """Remove tracking files that are not in force: of a promotion that did not happen, or that a role change ended.

    Again: nothing.
    """
    for handle in group.volumes:
        record = await ctx.database.read(partial(_by_id, volume=handle.record.id))
        if record.tracking_next is not None:
            opened = handle.require_open()
            await ctx.pool.finish(partial(opened.let_go, record.tracking_next))
            await ctx.pool.call(opened.drop_tracking, record.tracking_next)
            await ctx.database.transact(partial(_unplan, volume=record.id))
            handle.record = await ctx.database.read(partial(_by_id, volume=record.id))


def _by_id(conn: Connection, volume: VolumeId) -> model.Volume:
    return volumes.by_id(conn, volume)


def _unplan(conn: Connection, volume: VolumeId) -> None:
    volumes.plan_tracking(conn, volume, None)
