"""Who gives way to whom after a promotion, and what that costs: guards, tokens and words of reverse and restore.

Pure. The rules are sections 4 and 5 of the lineage rules (`docs/architecture.md`, "Roles and lineage"). This
module must never do I/O.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from engine.decide.lineage import Standing, VerdictKind
from engine.model import GroupId, Role

TOKEN_BYTES = 8
BOTH_WRITABLE = frozenset(
    {
        VerdictKind.SPLIT_BRAIN,
        VerdictKind.TIE,
        VerdictKind.OLD_AHEAD,
        VerdictKind.NEW_AHEAD,
        VerdictKind.SAME,
    }
)


class Yield(StrEnum):
    """What the image of a side that yields is from then on."""

    TO_POINT = "to_point"
    """The common point, which it still holds: what was written since is set aside. Promotable at once."""
    AS_POINT = "as_point"
    """What it is: nothing was written since the common point, so the image is that point. Promotable at once."""
    OWN_IMAGE = "own_image"
    """What it is, until the first sync from the other side is sealed: it holds writes that the other side lacks."""


def how_to_yield(own: Standing, *, holds_common: bool) -> Yield:
    """`holds_common`: the common point is a recovery point here, with what was written since in a layer of its own."""
    if holds_common:
        return Yield.TO_POINT
    return Yield.OWN_IMAGE if own.changed else Yield.AS_POINT


def token(group: GroupId, loser: Standing, winner: Standing) -> str:
    """Names the decision to discard what `loser` wrote, as both sides stand now: 16 hex digits.

    The winner may go on writing, so its counter is not in it; else a live winner could never be chosen.
    """
    facts = (group, loser.common or b"", loser.term, winner.term, loser.writes, loser.written)
    return hashlib.blake2b(repr(facts).encode(), digest_size=TOKEN_BYTES).hexdigest()


def is_old_side(own: Standing, peer: Standing) -> bool:
    """The side with the lower term was protected before the other was promoted."""
    return own.term < peer.term


def why_not_reverse(own: Standing, peer: Standing, found: VerdictKind, consent_term: int | None) -> str:
    """Why `own` may not yield without discarding anything; empty: it may."""
    if found not in BOTH_WRITABLE:
        return "the other site was not promoted" if peer.role is Role.RECOVERY else "the sites have no point in common"
    if own.term == peer.term:
        return "both sites were promoted unseen by each other: name the loser with --discard-local-changes there"
    if not is_old_side(own, peer):
        return "this site was promoted: it is the other one that gives way; run `leeward reverse` there"
    if own.written and not (own.role is Role.DEMOTED and consent_term == peer.term):
        what = f"{own.written} blocks were written here since the newest common point, and the other site lacks them"
        if found is VerdictKind.OLD_AHEAD:
            return f"{what}; `leeward restore` here loses nothing, --discard-local-changes sets them aside"
        return f"{what}; --discard-local-changes sets them aside"
    return ""


def why_not_discard(peer: Standing, found: VerdictKind) -> str:
    """Why `own` may not be the loser; empty: it may."""
    if found not in BOTH_WRITABLE:
        return "the two sites are not at odds: there is nothing to discard"
    if not peer.is_writable:
        return "the other site is not writable: nobody would be left"
    return ""


def why_not_restore(own: Standing, peer: Standing, found: VerdictKind) -> str:
    """Why `peer` may not give way to `own`; empty: it may."""
    if found not in BOTH_WRITABLE:
        return "the other site was not promoted" if peer.role is Role.RECOVERY else "the sites have no point in common"
    if own.term == peer.term:
        return (
            "both sites were promoted unseen by each other: run `leeward reverse --discard-local-changes` at the loser"
        )
    if not is_old_side(own, peer):
        return "this site is the one that was promoted; run `leeward restore` at the other one"
    return ""
