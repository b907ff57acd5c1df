"""Pause and resume: an operator has the line for something else. Nothing of the group is sent until it is resumed.

A sync that runs is ended; what has landed stays at the receiver, and what was frozen is dirty again. An RPO goes on
being promised, and is told as broken: a pause is no excuse. This module must never stop a host from writing.
"""

from __future__ import annotations

from engine.decide.roles import require_legal
from engine.errors import GroupPaused
from engine.model import Group
from engine.operations.context import Context
from engine.operations.handles import GroupHandle
from engine.records import groups
from engine.records.columns import Connection
from engine.requests import Pause, Resume


async def pause(ctx: Context, handle: GroupHandle, request: Pause | Resume) -> None:
    """Again: success, nothing is done. Raises RefusedByState where the group is recovery, Raced."""
    at = ctx.clock.now() if isinstance(request, Pause) else None

    def commit(conn: Connection) -> tuple[Group, Group]:
        before = groups.by_id(conn, handle.id)
        require_legal(request, before)
        return before, groups.pause(conn, handle.id, at)

    before, record = await ctx.database.transact(commit)
    if before.paused_at == record.paused_at:
        return
    if record.paused_at is None:
        ctx.report("info", "resumed", f"Group {handle.name} is sent again.", group=handle.name)
        return
    ctx.report("warning", "paused", f"Group {handle.name} is paused: nothing of it is sent.", group=handle.name)
    if handle.talk is not None and handle.talk.is_sync:
        handle.talk.end(paused(record))


def paused(record: Group) -> GroupPaused:
    """What a sync of a paused group is refused with."""
    assert record.paused_at is not None
    return GroupPaused(group=record.name, since=f"{record.paused_at:%Y-%m-%d %H:%M:%SZ}")
