"""Two standings of one group -> the same verdict at both ends; and how each side settles what was under way.

Pure. The table is section 4 of the lineage rules (`docs/architecture.md`, "Roles and lineage"): changed sets
and terms decide, generations only word the verdict. This module must never do I/O or read a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.model import PointId, Role


@dataclass(frozen=True, slots=True)
class Standing:
    """What one side says of itself at contact.

    `written` and `frozen` count blocks that hosts changed since `common`, `rolled` blocks of layers above
    an older point that was promoted. `pending` is a capture whose outcome is not known here, `resumable`
    whether its image is still held. `incoming` is a point that is half received.
    """

    role: Role
    term: int
    common: PointId | None
    pending: PointId | None = None
    resumable: bool = False
    incoming: PointId | None = None
    incoming_builds_on: PointId | None = None
    written: int = 0
    frozen: int = 0
    rolled: int = 0
    writes: int = 0
    """Counts what hosts ever wrote here; it grows with each write, and says whether a decision is still about this."""

    @property
    def is_writable(self) -> bool:
        """Protected or demoted: its image is not expendable."""
        return self.role is not Role.RECOVERY

    @property
    def changed(self) -> int:
        """An upper bound of the blocks that may differ from `common`."""
        return self.written + self.frozen + self.rolled


class VerdictKind(StrEnum):
    UNRELATED = "unrelated"
    SEEDING = "seeding"
    COMMON_LOST = "common_lost"
    IN_SYNC = "in_sync"
    FORWARD = "forward"
    NO_SOURCE = "no_source"
    SPLIT_BRAIN = "split_brain"
    TIE = "tie"
    OLD_AHEAD = "old_ahead"
    NEW_AHEAD = "new_ahead"
    SAME = "same"


EXPLAINED: dict[VerdictKind, str] = {
    VerdictKind.UNRELATED: "the two sites have no recovery point in common and neither can seed the other",
    VerdictKind.SEEDING: "the recovery site has no recovery point yet: the whole volume is sent",
    VerdictKind.COMMON_LOST: "the two sites name different newest common points",
    VerdictKind.IN_SYNC: "both sites hold the same image",
    VerdictKind.FORWARD: "the protected site has changes that the recovery site lacks",
    VerdictKind.NO_SOURCE: "neither site is protected: promote one of them",
    VerdictKind.SPLIT_BRAIN: "both sites were written since their newest common point",
    VerdictKind.TIE: "both sites were promoted unseen by each other",
    VerdictKind.OLD_AHEAD: "the peer was promoted, and only the site protected before was written since",
    VerdictKind.NEW_AHEAD: "the peer was promoted, and only the promoted site was written since",
    VerdictKind.SAME: "both sites are writable, and neither was written since their newest common point",
}


class PendingFate(StrEnum):
    ADOPT = "adopt"
    KEEP = "keep"
    ABANDON = "abandon"


def settle_pending(own: Standing, peer: Standing) -> PendingFate:
    """What becomes of the capture `own.pending` once the peer has spoken. Only asked when there is one."""
    assert own.pending is not None
    if peer.common == own.pending:
        return PendingFate.ADOPT
    if own.resumable and peer.role is Role.RECOVERY and own.role is not Role.RECOVERY:
        return PendingFate.KEEP
    return PendingFate.ABANDON


def verdict(own: Standing, peer: Standing) -> VerdictKind:
    """The verdict over two settled standings; the same from both ends."""
    one_source = own.is_writable != peer.is_writable
    if own.common is None and peer.common is None:
        return VerdictKind.SEEDING if one_source else VerdictKind.UNRELATED
    if own.common != peer.common:
        return VerdictKind.COMMON_LOST
    if one_source:
        return VerdictKind.FORWARD if own.changed or peer.changed else VerdictKind.IN_SYNC
    if not own.is_writable:
        return VerdictKind.NO_SOURCE
    return _both_writable(own, peer)


def _both_writable(own: Standing, peer: Standing) -> VerdictKind:
    if own.written and peer.written:
        return VerdictKind.SPLIT_BRAIN
    if own.term == peer.term:
        return VerdictKind.TIE
    old, new = (own, peer) if own.term < peer.term else (peer, own)
    if old.written:
        return VerdictKind.OLD_AHEAD
    return VerdictKind.NEW_AHEAD if new.written else VerdictKind.SAME
