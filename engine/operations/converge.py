"""Converge: make what runs match what is recorded. May be repeated; boot is the same pass.

A protected group has a writer and an export for every volume; any other group has neither. Whoever changes
a role records it first and then comes here. This module must never decide a role.
"""

from __future__ import annotations

from engine import model
from engine.decide.status import is_writable
from engine.model import Role
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.operations.snapshot import aside_export_name, export_name
from engine.records import groups


async def converge(ctx: Context, handle: GroupHandle) -> None:
    """Exports and writers of the group as its recorded role wants them. Raises PortTaken, VolumeFailed."""
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    for volume in handle.volumes:
        if is_writable(record) and volume.open is not None:
            present(ctx, volume, record)
        else:
            await withdraw(ctx, volume)
            if record.role is Role.DEMOTED and volume.open is not None and not volume.problem:
                await _show(ctx, volume)
    presented = {name for _, name in ctx.presenter.exports()}
    for snapshot in [snapshot for snapshot in handle.snapshots.values() if snapshot.views]:  # one without is down
        for volume, view in zip(handle.volumes, snapshot.views, strict=True):
            name = export_name(volume.name, snapshot.record.name)
            if name not in presented:
                ctx.presenter.present(name, view, read_only=False, description=f"snapshot of {handle.name}")
    for shown in handle.asides.values():
        for volume, image in zip(handle.volumes, shown.views, strict=True):
            name = aside_export_name(volume.name, shown.record.name)
            if name not in presented:
                ctx.presenter.present(name, image, read_only=True, description=f"set aside of {handle.name}")


def present(ctx: Context, volume: VolumeHandle, record: model.Group) -> None:
    """Grant the volume's one writer and put it up for hosts; nothing if it is up."""
    if volume.writer is not None or volume.problem:
        return
    volume.writer = volume.require_open().open_writer(volume.top_io)
    ctx.presenter.present(volume.name, volume.writer, read_only=False, description=f"volume of {record.name}")


async def _show(ctx: Context, volume: VolumeHandle) -> None:
    """A demoted volume takes no writes, but is captured: say where its image is read from. Again: nothing new."""
    opened = volume.require_open()
    opened.open_writer(volume.top_io)
    await ctx.pool.over(opened.revoke_writer())


async def withdraw(ctx: Context, volume: VolumeHandle) -> None:
    """Take the export away, drain what is in flight, revoke the writer; nothing if none is up."""
    if volume.writer is None:
        return
    await ctx.presenter.withdraw(volume.name)
    volume.writer = None
    await ctx.pool.over(volume.require_open().revoke_writer())


async def withdraw_all(ctx: Context, handle: GroupHandle) -> None:
    """Take every export of the group away: it is forgotten next."""
    for volume in handle.volumes:
        await withdraw(ctx, volume)
