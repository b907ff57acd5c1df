"""A sync that is being received: named before any of its frames, dropped when it can never be sealed.

`points.seal` ends it well. This module must never touch a file: it names packs and says which are dead.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from engine.errors import Raced
from engine.model import Group, GroupId, Incoming, Layer, LayerState, Role
from engine.records import groups, layers


def begin(conn: sqlite3.Connection, group: GroupId, incoming: Incoming, *, expects: int) -> Group:
    """Wait for this sync; what an older one has left is dead. Name its packs next, in this transaction.

    Raises Raced: the group is not recovery, changed since `expects`, or has another common point.
    """
    before = _require_fit(conn, group, incoming)
    layers.set_state(conn, [layer.id for layer in layers.receiving(conn, group)], LayerState.DEAD)
    return groups.update(conn, replace(before, incoming=incoming), expects=expects)


def renew(conn: sqlite3.Connection, group: GroupId, incoming: Incoming, *, expects: int) -> tuple[Layer, ...]:
    """The source captured anew: the open packs go on under the new sync id (durability.md 2.5, "Reuse").

    Returns them in the group's order of volumes. Raises Raced as `begin`, or when nothing that was received builds
    on this common point.
    """
    before = _require_fit(conn, group, incoming)
    if before.incoming is None or before.incoming.builds_on != incoming.builds_on:
        raise Raced(what="group", name=before.name, reason="nothing that was received builds on this point")
    for layer in layers.receiving(conn, group):
        layers.set_sync(conn, layer.id, incoming.sync)
    groups.update(conn, replace(before, incoming=incoming), expects=expects)
    return layers.receiving(conn, group)


def drop(conn: sqlite3.Connection, group: GroupId) -> Group:
    """What is half received will never be sealed: its packs are dead. Nothing under way: nothing changes."""
    before = groups.by_id(conn, group)
    layers.set_state(conn, [layer.id for layer in layers.receiving(conn, group)], LayerState.DEAD)
    if before.incoming is None:
        return before
    return groups.update(conn, replace(before, incoming=None), expects=before.version)


def _require_fit(conn: sqlite3.Connection, group: GroupId, incoming: Incoming) -> Group:
    found = groups.by_id(conn, group)
    if found.role is not Role.RECOVERY:
        raise Raced(what="group", name=found.name, reason=f"it is {found.role.value} here")
    if incoming.builds_on != (found.common.id if found.common else None):
        raise Raced(what="group", name=found.name, reason="its newest common point is another one")
    if found.common is not None and incoming.sequence <= found.common.sequence:
        raise Raced(what="group", name=found.name, reason=f"it has point number {found.common.sequence} already")
    return found
