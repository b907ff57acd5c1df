"""Groups come and go: create at the protected site, remove at either; and peers.

`group create` is said once, at the protected site; it succeeds without the peer, which hears of the group
at the next contact. This module must never wait for a peer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engine import model
from engine.decide.retention import parse
from engine.errors import BadValue, NameTaken, RefusedByState, UnknownName
from engine.model import GroupId, Role
from engine.operations import snapshot, staging
from engine.operations import volumes as volume_stories
from engine.operations.context import Context
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.records import groups, peers, retention, set_asides, volumes
from engine.records.columns import Connection
from engine.requests import GroupCreate, GroupSet

MOST_POINTS = 100_000
WRITTEN_THERE = "this site is its recovery side; ask at the protected site"


async def create(ctx: Context, request: GroupCreate, free: Mapping[str, VolumeHandle]) -> GroupHandle:
    """A new protected group of free volumes, tracked from now on.

    Raises BadValue, NameTaken, UnknownName, RefusedByState, VolumeFailed.
    """
    volume_stories.check_name("group", request.name)
    await _check(ctx, request)
    members = [_member(request, free, name) for name in request.volumes]
    for member in members:
        member.require_open()
        await volume_stories.start_tracking(ctx, member)
    record = model.Group(
        id=GroupId(ctx.clock.token(16)),
        name=request.name,
        version=0,
        role=Role.PROTECTED,
        term=1,
        peer=request.peer,
        rpo_s=request.rpo_s,
        keep=request.keep,
        announced=False,
        common=None,
        equal_at=None,
        generation_due=True,
        generation=None,
        pending=None,
        incoming=None,
        created_at=ctx.clock.now(),
    )

    def commit(conn: Connection) -> None:
        groups.insert(conn, record)
        retention.set_schedule(conn, record.id, request.retain.strip())
        volumes.assign(conn, record.id, [member.record.id for member in members])

    await ctx.database.transact(commit)
    return GroupHandle(id=record.id, name=record.name, peer=record.peer, volumes=members)


async def _check(ctx: Context, request: GroupCreate) -> None:
    if not request.volumes:
        raise BadValue(what="group", value=request.name, reason="it needs at least one volume")
    if len(set(request.volumes)) != len(request.volumes):
        raise BadValue(what="list of volumes", value=", ".join(request.volumes), reason="a volume is named twice")
    check_retention(request.keep, request.retain)

    def look(conn: Connection) -> bool:
        peers.get(conn, request.peer)
        return groups.find(conn, request.name) is not None

    if await ctx.database.transact(look):
        raise NameTaken(what="group", name=request.name)


def check_retention(keep: int, retain: str) -> None:
    """Raises BadValue."""
    if not 1 <= keep <= MOST_POINTS:
        reason = f"keep at least one, and at most {MOST_POINTS}"
        raise BadValue(what="number of points to keep", value=str(keep), reason=reason)
    try:
        parse(retain)
    except ValueError as error:
        raise BadValue(what="schedule", value=repr(retain), reason=str(error)) from None


async def change(ctx: Context, handle: GroupHandle, request: GroupSet) -> None:
    """Which points stay at this site, and what RPO is promised; the peer hears of that at the next contact.

    Raises BadValue, RefusedByState: an RPO is promised where hosts write. Then nothing is changed.
    """
    if request.keep is None and request.retain is None and request.rpo_s is None:
        raise BadValue(what="change", value="nothing", reason="say what is to be another: --keep, --retain or --rpo")
    check_retention(1 if request.keep is None else request.keep, request.retain or "")

    def commit(conn: Connection) -> None:
        record = groups.by_id(conn, handle.id)
        if request.keep is not None and request.keep != record.keep:
            record = groups.update(conn, replace(record, keep=request.keep), expects=record.version)
        if request.rpo_s is not None:
            if record.role is Role.RECOVERY:
                raise RefusedByState(operation="group set --rpo", group=record.name, reason=WRITTEN_THERE)
            after = replace(record, rpo_s=request.rpo_s or None, announced=False)
            groups.update(conn, after, expects=record.version)
        if request.retain is not None:
            retention.set_schedule(conn, handle.id, request.retain.strip())

    await ctx.database.transact(commit)


def _member(request: GroupCreate, free: Mapping[str, VolumeHandle], name: str) -> VolumeHandle:
    handle = free.get(name)
    if handle is None:
        raise UnknownName(what="free volume", name=name)
    if handle.record.prepared:
        raise RefusedByState(
            operation="group create",
            group=request.name,
            reason=f"volume {name} waits for a group of the peer (--recovery)",
        )
    return handle


async def remove(ctx: Context, handle: GroupHandle) -> None:
    """Forget a group: its volumes are free again, its points gone. Raises RefusedByState while it has snapshots."""
    await ctx.database.transact(lambda conn: groups.delete(conn, handle.id))
    for volume in handle.volumes:
        for pack in (*volume.chain, *volume.retired):
            await ctx.pool.call(pack.close)
        if volume.top is not None:
            await ctx.pool.call(volume.top.close)
        volume.chain, volume.retired, volume.top, volume.top_io = (), [], None, None
    await staging.remove_dead(ctx, handle.volumes)


async def check_removable(ctx: Context, handle: GroupHandle) -> None:
    """Raises RefusedByState while snapshots of the group or set-asides stand. Deleted ones are cleared away first."""
    await snapshot.clear_away(ctx, handle)
    if handle.snapshots:
        name = next(iter(handle.snapshots))
        raise RefusedByState(operation="group remove", group=handle.name, reason=f"it has snapshot {name}")
    kept = await ctx.database.read(lambda conn: set_asides.of_group(conn, handle.id))
    if kept:
        reason = f"it has set-aside {kept[0].name}; drop it first: nothing else lets go of what it holds"
        raise RefusedByState(operation="group remove", group=handle.name, reason=reason)
