"""What each step of a sync and of a role change makes of a group's record: the transitions of the lineage rules.

Pure: a record in, the next one out (lineage.md sections 2 and 5; `docs/architecture.md`, "Roles and lineage"). Each
raises Raced when the record is not one that the step may start from. `engine/records` runs them inside the transaction
that makes them true, with what belongs to them of layers, points and pins. This module must never do I/O.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from engine.decide.yielding import Yield
from engine.errors import Raced
from engine.model import Group, Incoming, Pending, Point, Role

# A sync, at its source


def capturing(before: Group, pending: Pending) -> Group:
    """A capture is about to be made. Raises Raced: one is under way already, or the group is recovery here."""
    if before.pending is not None:
        raise Raced(what="group", name=before.name, reason="a sync of it is under way")
    if before.role is Role.RECOVERY:
        raise Raced(what="group", name=before.name, reason="it is recovery here")
    return replace(before, pending=pending)


def adopted(before: Group, point: Point) -> Group:
    """The peer holds the pending point: it is the common one. Raises Raced unless it is the pending one."""
    if before.pending is None or before.pending.point != point.id:
        raise Raced(what="group", name=before.name, reason=f"point {point.id.hex()} is not the pending one")
    return replace(before, common=point, pending=None)


def abandoned(before: Group) -> Group:
    """The pending capture will never be sealed. Nothing pending: nothing changes."""
    return replace(before, pending=None)


def paused(before: Group, at: datetime | None) -> Group:
    """An operator lets nothing be sent from here; `at` None: it is again. Raises Raced where the group is recovery."""
    if before.role is Role.RECOVERY:
        raise Raced(what="group", name=before.name, reason="it is recovery here")
    return replace(before, paused_at=at)


# A sync, at its target


def receiving(before: Group, incoming: Incoming) -> Group:
    """This sync is waited for. Raises Raced: the group is not recovery, or has another common point."""
    if before.role is not Role.RECOVERY:
        raise Raced(what="group", name=before.name, reason=f"it is {before.role.value} here")
    if incoming.builds_on != (before.common.id if before.common else None):
        raise Raced(what="group", name=before.name, reason="its newest common point is another one")
    if before.common is not None and incoming.sequence <= before.common.sequence:
        raise Raced(what="group", name=before.name, reason=f"it has point number {before.common.sequence} already")
    return replace(before, incoming=incoming)


def given_up(before: Group) -> Group:
    """What is half received will never be sealed. Nothing under way: nothing changes."""
    return replace(before, incoming=None)


def sealed(before: Group, point: Point, term: int) -> Group:
    """The incoming point is whole: it is the common one. `term`: the source's as of the capture.

    Raises Raced when the group does not wait for this point on this common point any more: nothing of it counts.
    """
    if before.role is not Role.RECOVERY:
        raise Raced(what="group", name=before.name, reason=f"it is {before.role.value} here")
    if before.incoming is None or before.incoming.point != point.id:
        raise Raced(what="group", name=before.name, reason="it does not receive this point any more")
    if before.incoming.builds_on != (before.common.id if before.common else None):
        raise Raced(what="group", name=before.name, reason="its newest common point is another one")
    return replace(
        before,
        common=point,
        generation=point.generation,
        term=max(before.term, term),
        incoming=None,
        own_image=False,
    )


# Role changes


def promoted(before: Group, term: int) -> Group:
    """Protected here, from a point or from the image that is still held; `common` stays the newest sealed point.

    Raises Raced unless the group is recovery.
    """
    if before.role is not Role.RECOVERY:
        raise Raced(what="group", name=before.name, reason=f"it is {before.role.value} here")
    assert term > before.term, "a promotion raises the term"
    return replace(
        before,
        role=Role.PROTECTED,
        term=term,
        generation_due=True,
        incoming=None,
        own_image=False,
        consent_term=None,
    )


def demoted(before: Group, consent_term: int | None) -> Group:
    """Hosts may not write any more; the image stays what it is. Raises Raced where it is recovery."""
    if before.role is Role.RECOVERY:
        raise Raced(what="group", name=before.name, reason="it is recovery here")
    return replace(before, role=Role.DEMOTED, consent_term=consent_term)


def demote_undone(before: Group) -> Group:
    """Protected again, in the same term, with every set as it was. Raises Raced unless it is demoted."""
    if before.role is not Role.DEMOTED:
        raise Raced(what="group", name=before.name, reason=f"it is {before.role.value} here")
    return replace(before, role=Role.PROTECTED, consent_term=None)


def gave_way(before: Group, how: Yield, term: int) -> Group:
    """This side is recovery. `term`: the other side's. Raises Raced: it is already, or a sync of it is under way."""
    if before.role is Role.RECOVERY or before.pending is not None:
        raise Raced(what="group", name=before.name, reason="it changed meanwhile, or a sync of it is under way")
    assert before.common is not None, "only a side with a common point yields"
    return replace(
        before,
        role=Role.RECOVERY,
        term=max(before.term, term),
        incoming=None,
        generation_due=False,
        consent_term=None,
        paused_at=None,
        own_image=how is Yield.OWN_IMAGE,
    )
