"""A sync that is being received: named before any of its frames, dropped when it can never be sealed.

`points.seal` ends it well. This module must never touch a file: it names packs and says which are dead.
"""

from __future__ import annotations

import sqlite3

from engine.decide import transitions
from engine.errors import Raced
from engine.model import Group, GroupId, Incoming, Layer, LayerState
from engine.records import groups, layers


def begin(conn: sqlite3.Connection, group: GroupId, incoming: Incoming, *, expects: int) -> Group:
    """Wait for this sync; what an older one has left is dead. Name its packs next, in this transaction.

    Raises Raced: the group is not recovery, changed since `expects`, or has another common point.
    """
    after = transitions.receiving(groups.by_id(conn, group), incoming)
    layers.set_state(conn, [layer.id for layer in layers.receiving(conn, group)], LayerState.DEAD)
    return groups.update(conn, after, expects=expects)


def renew(conn: sqlite3.Connection, group: GroupId, incoming: Incoming, *, expects: int) -> tuple[Layer, ...]:
    """The source captured anew: the open packs go on under the new sync id (durability.md 2.5, "Reuse").

    Returns them in the group's order of volumes. Raises Raced as `begin`, or when nothing that was received builds
    on this common point.
    """
    before = groups.by_id(conn, group)
    after = transitions.receiving(before, incoming)
    if before.incoming is None or before.incoming.builds_on != incoming.builds_on:
        raise Raced(what="group", name=before.name, reason="nothing that was received builds on this point")
    for layer in layers.receiving(conn, group):
        layers.set_sync(conn, layer.id, incoming.sync)
    groups.update(conn, after, expects=expects)
    return layers.receiving(conn, group)


def drop(conn: sqlite3.Connection, group: GroupId) -> Group:
    """What is half received will never be sealed: its packs are dead. Nothing under way: nothing changes."""
    before = groups.by_id(conn, group)
    layers.set_state(conn, [layer.id for layer in layers.receiving(conn, group)], LayerState.DEAD)
    if before.incoming is None:
        return before
    return groups.update(conn, transitions.given_up(before), expects=before.version)
