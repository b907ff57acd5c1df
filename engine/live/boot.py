"""Boot: open what the records name, finish what they say is half done, and leave alone what they do not name.

A volume that cannot be opened fails alone: its group says why, everything else comes up. There is no recovery
code for role changes here: the records are true, and `converge` makes the rest match. This module must never
remove a file that no record names: it reports it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial

from blockstore.errors import LeewardError
from engine import model
from engine.errors import Interrupted
from engine.live.site import Site
from engine.model import Role, SyncState
from engine.operations import aside, capture, fold, opening, promote, retention, snapshot, staging, volumes
from engine.operations.context import Context
from engine.operations.converge import converge
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.records import groups, jobs
from engine.records import volumes as volume_records
from engine.requests import error_doc


async def boot(site: Site) -> None:
    """Bring up every volume and group. Raises only what no group of its own can answer for."""
    ctx = site.ctx
    await volumes.forget_dead(ctx)
    for record in await ctx.database.read(volume_records.all):
        if record.group is None:
            handle = site.free[record.name] = VolumeHandle(record)
            await volumes.try_open(ctx, handle)
    await staging.remove_dead(ctx, site.free.values())  # of a group whose removal was cut short
    for group in await ctx.database.read(groups.all):
        site.add_group(await open_group(ctx, group))
    await _sort_out_jobs(site)


async def open_group(ctx: Context, record: model.Group) -> GroupHandle:
    """One group, its exports up unless a volume of it failed."""
    handle = GroupHandle(id=record.id, name=record.name, peer=record.peer)
    for volume in await ctx.database.read(lambda conn: volume_records.of_group(conn, record.id)):
        opened = VolumeHandle(volume)
        await volumes.try_open(ctx, opened)
        handle.volumes.append(opened)
    try:
        if record.role is Role.RECOVERY:
            await promote.take_back(ctx, handle)
        await retention.give_up(ctx, handle)
        await _open_layers(ctx, record, handle)
        await _open_tracking(ctx, record, handle)
        await snapshot.reopen(ctx, handle)
        await aside.reopen(ctx, handle)
        await fold.finish_begun(ctx, handle)
        await converge(ctx, handle)
    except (LeewardError, OSError) as error:
        for member in handle.volumes:
            if not member.failure:
                await volumes.fail(ctx, member, error)
    return handle


async def _open_layers(ctx: Context, record: model.Group, handle: GroupHandle) -> None:
    for volume in handle.volumes:
        if volume.open is not None:
            await opening.open_chain(ctx, volume)
    if record.common is not None and record.role is Role.RECOVERY:
        await staging.forget_seeds(ctx, handle)


async def _open_tracking(ctx: Context, record: model.Group, handle: GroupHandle) -> None:
    """Tracking of a side that is or was writable; what a running sync had frozen counts as dirty again."""
    pending = record.pending
    is_doubtful = pending is not None and pending.state is SyncState.SEALING
    if pending is not None and not is_doubtful:
        await ctx.database.transact(lambda conn: groups.abandon(conn, handle.id))
    known = {record.common.id} if record.common is not None else set()
    if pending is not None and is_doubtful:
        known.add(pending.point)
    for volume in handle.volumes:
        if volume.open is not None:
            await ctx.pool.call(capture.remove_leftovers, ctx, volume, known)
        tracking = volume.record.tracking
        if volume.open is None or tracking is None:
            continue
        clean = volume.record.identity is not None
        if clean and volumes.was_written_behind(volume.record, volume.open.store.identity()):
            text = f"The store of volume {volume.name} was changed while the daemon was down: all of it is compared."
            ctx.report("warning", "store_changed", text, group=handle.name)
            clean = False
            await volumes.start_tracking(ctx, volume)
        else:
            await volumes.resume_tracking(
                ctx, volume, tracking, nonce=volume.record.nonce, clean=clean, pending=is_doubtful
            )
    if record.common is not None and record.role is not Role.RECOVERY:
        handle.unsettled = record.common.id
    for volume in handle.volumes:
        if volume.open is not None:
            await opening.open_top(ctx, volume)


async def _sort_out_jobs(site: Site) -> None:
    """Syncs that a restart cut run again; other jobs are told as interrupted."""
    ctx = site.ctx
    now = ctx.clock.now()
    for record in await ctx.database.read(jobs.unfinished):
        if record.kind == "sync" and site.can_resume_sync(record):
            site.resume_sync(await ctx.database.transact(partial(jobs.requeue, job=record.id)))
        else:
            told = json.dumps(asdict(error_doc(Interrupted(operation=record.id))))
            await ctx.database.transact(partial(jobs.finish, job=record.id, at=now, error=told))
