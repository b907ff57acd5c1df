"""Set-asides: what role changes discarded, listed and dropped (`records/set_asides.py` says what holds what).

This module must never let one go but for an operator who names it.
"""

from __future__ import annotations

from engine.operations import staging
from engine.operations.context import Context
from engine.operations.documents import at_text
from engine.operations.handles import GroupHandle
from engine.records import set_asides
from engine.records.columns import Connection
from engine.requests import SetAsideDoc

BLOCK_BYTES = 4096


async def listed(ctx: Context, handle: GroupHandle) -> tuple[SetAsideDoc, ...]:
    """What is kept aside of the group, oldest first."""
    found = await ctx.database.read(lambda conn: set_asides.of_group(conn, handle.id))
    return tuple(
        SetAsideDoc(
            name=kept.name,
            group=handle.name,
            why=kept.why,
            bytes=kept.blocks * BLOCK_BYTES,
            created_at=at_text(kept.created_at),
        )
        for kept in found
    )


async def drop(ctx: Context, handle: GroupHandle, name: str) -> None:
    """Let it go for ever. Raises UnknownName."""

    def commit(conn: Connection) -> None:
        set_asides.drop(conn, set_asides.get(conn, handle.id, name))

    async with handle.lock:
        await ctx.database.transact(commit)
        await staging.remove_dead(ctx, handle.volumes)
    ctx.report("warning", "set_aside_dropped", f"Group {handle.name}: {name} was dropped.", group=handle.name)
