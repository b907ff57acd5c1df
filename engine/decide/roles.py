"""Which request is legal for a group in which role, already done, or refused. A table, and pure."""

from __future__ import annotations

from engine.errors import RefusedByState
from engine.model import Group, Role
from engine.requests import Demote, GroupRemove, Pause, Promote, Resume, SnapshotCreate, SnapshotDelete, Sync, Verify

LEGAL: dict[type[object], frozenset[Role]] = {
    Sync: frozenset({Role.PROTECTED, Role.DEMOTED}),
    Verify: frozenset({Role.PROTECTED, Role.DEMOTED}),
    SnapshotCreate: frozenset({Role.RECOVERY}),
    SnapshotDelete: frozenset(Role),
    Promote: frozenset({Role.RECOVERY, Role.DEMOTED}),
    Demote: frozenset({Role.PROTECTED, Role.DEMOTED}),
    Pause: frozenset({Role.PROTECTED, Role.DEMOTED}),
    Resume: frozenset({Role.PROTECTED, Role.DEMOTED}),
    GroupRemove: frozenset(Role),
}

ALREADY: dict[type[object], frozenset[Role]] = {
    Promote: frozenset({Role.PROTECTED}),
    Demote: frozenset({Role.DEMOTED}),
}

WHERE: dict[type[object], str] = {
    Sync: "this site is its recovery side; ask at the protected site",
    Verify: "this site is its recovery side; ask at the protected site",
    SnapshotCreate: "this site is its protected side; ask at the recovery site",
    Pause: "this site is its recovery side; ask at the protected site",
    Resume: "this site is its recovery side; ask at the protected site",
    Demote: "this site is its recovery side; ask at the protected site",
}


def is_already(request: object, group: Group) -> bool:
    """True if the state that the request would make holds."""
    return group.role in ALREADY.get(type(request), frozenset())


def require_legal(request: object, group: Group) -> None:
    """Raises RefusedByState when the role forbids the request."""
    if group.role not in LEGAL[type(request)]:
        operation = getattr(request, "kind", type(request).__name__)
        raise RefusedByState(operation=operation, group=group.name, reason=WHERE[type(request)])
