"""The verdict table, whole: every combination of what two sites can say of themselves meets exactly one row.

The rows here are a second statement of the table, each complete in itself (no "first match"), so that one too wide or
too narrow shows: a combination that two rows claim, or none, fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest

from engine.decide.lineage import EXPLAINED, PendingFate, Standing, VerdictKind, settle_pending, verdict
from engine.decide.yielding import (
    BOTH_WRITABLE,
    Yield,
    how_to_yield,
    token,
    why_not_discard,
    why_not_restore,
    why_not_reverse,
)
from engine.model import GroupId, PointId, Role

X, Y = PointId(b"x" * 16), PointId(b"y" * 16)
GROUP = GroupId(b"g" * 16)
COUNTS = (0, 3)
Row = Callable[[Standing, Standing], bool]


def sides() -> Iterator[Standing]:
    for role, common, term in product(Role, (None, X, Y), (1, 2)):
        for written, frozen, rolled in product(COUNTS, COUNTS, COUNTS):
            yield Standing(role=role, term=term, common=common, written=written, frozen=frozen, rolled=rolled)


SIDES = tuple(sides())
PAIRS = tuple(product(SIDES, SIDES))


def faces(own: Standing, peer: Standing) -> bool:
    """One may write or was demoted, the other is recovery."""
    return {own.role is Role.RECOVERY, peer.role is Role.RECOVERY} == {True, False}


def both(own: Standing, peer: Standing) -> bool:
    return own.common is not None and own.common == peer.common and Role.RECOVERY not in (own.role, peer.role)


def agree(own: Standing, peer: Standing) -> bool:
    return own.common is not None and own.common == peer.common and faces(own, peer)


def untouched(side: Standing) -> bool:
    return (side.written, side.frozen, side.rolled) == (0, 0, 0)


def ordered(own: Standing, peer: Standing) -> tuple[Standing, Standing]:
    return (own, peer) if own.term <= peer.term else (peer, own)


def row_of_terms(old_wrote: bool, new_wrote: bool) -> Row:
    def matches(own: Standing, peer: Standing) -> bool:
        old, new = ordered(own, peer)
        wrote = (old.written > 0, new.written > 0)
        return both(own, peer) and own.term != peer.term and wrote == (old_wrote, new_wrote)

    return matches


ROWS: dict[VerdictKind, Row] = {
    VerdictKind.SEEDING: lambda own, peer: own.common is None and peer.common is None and faces(own, peer),
    VerdictKind.UNRELATED: lambda own, peer: own.common is None and peer.common is None and not faces(own, peer),
    VerdictKind.COMMON_LOST: lambda own, peer: own.common != peer.common,
    VerdictKind.IN_SYNC: lambda own, peer: agree(own, peer) and untouched(own) and untouched(peer),
    VerdictKind.FORWARD: lambda own, peer: agree(own, peer) and not (untouched(own) and untouched(peer)),
    VerdictKind.NO_SOURCE: lambda own, peer: (
        own.common is not None and own.common == peer.common and own.role is peer.role is Role.RECOVERY
    ),
    VerdictKind.SPLIT_BRAIN: lambda own, peer: both(own, peer) and own.written > 0 and peer.written > 0,
    VerdictKind.TIE: lambda own, peer: both(own, peer) and own.term == peer.term and 0 in (own.written, peer.written),
    VerdictKind.OLD_AHEAD: row_of_terms(old_wrote=True, new_wrote=False),
    VerdictKind.NEW_AHEAD: row_of_terms(old_wrote=False, new_wrote=True),
    VerdictKind.SAME: row_of_terms(old_wrote=False, new_wrote=False),
}


def test_each_combination_has_exactly_one_verdict_and_both_sides_find_it() -> None:
    found: set[VerdictKind] = set()
    for own, peer in PAIRS:
        rows = [kind for kind, row in ROWS.items() if row(own, peer)]
        assert rows == [verdict(own, peer)], (own, peer)
        assert verdict(peer, own) is rows[0], (own, peer)
        found.add(rows[0])
    assert found == set(VerdictKind) == set(EXPLAINED), "each verdict is reached, and has words"


def test_a_sync_has_one_source_and_never_writes_over_an_image_that_hosts_wrote_to() -> None:
    for own, peer in PAIRS:
        if verdict(own, peer) in (VerdictKind.SEEDING, VerdictKind.IN_SYNC, VerdictKind.FORWARD):
            assert [own.role, peer.role].count(Role.RECOVERY) == 1, (own, peer)


def test_nothing_that_hosts_wrote_is_given_up_without_consent_or_a_token() -> None:
    """A plain reverse makes a side yield only if it has no writes, or agreed while demoted to this peer's term."""
    for own, peer in PAIRS:
        for consent in (None, 1, 2):
            if why_not_reverse(own, peer, verdict(own, peer), consent):
                continue
            assert own.term < peer.term, "only the old side"
            assert own.is_writable
            assert peer.is_writable, "the other one goes on"
            assert not own.written or (own.role is Role.DEMOTED and consent == peer.term), (own, peer, consent)


def test_reverse_and_restore_of_one_pair_are_never_both_at_the_same_side() -> None:
    """Restore is asked at the old side and makes the new one yield; reverse makes the old one yield."""
    for own, peer in PAIRS:
        found = verdict(own, peer)
        if not why_not_restore(own, peer, found):
            assert own.term < peer.term
            assert why_not_restore(peer, own, found), "the new side cannot ask the old one to yield by it"
            assert why_not_reverse(peer, own, found, own.term), "nor yield by a reverse of its own"


def test_each_pair_of_writable_sides_has_a_way_out_at_both() -> None:
    for own, peer in PAIRS:
        found = verdict(own, peer)
        if found in BOTH_WRITABLE:
            assert not why_not_discard(peer, found), (own, peer)
            assert not why_not_discard(own, found), (own, peer)
        else:
            assert why_not_reverse(own, peer, found, None), (own, peer)
            assert why_not_restore(own, peer, found), (own, peer)


@pytest.mark.parametrize("peer_role", list(Role))
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize("peer_common", [None, X, Y])
def test_a_pending_capture_is_adopted_kept_or_abandoned(
    role: Role, peer_role: Role, resumable: bool, peer_common: PointId | None
) -> None:
    own = Standing(role=role, term=1, common=X, pending=Y, resumable=resumable)
    peer = Standing(role=peer_role, term=1, common=peer_common)
    expected = PendingFate.ABANDON
    if peer_common == Y:
        expected = PendingFate.ADOPT  # whatever else is true: the peer holds that point
    elif resumable and role is not Role.RECOVERY and peer_role is Role.RECOVERY:
        expected = PendingFate.KEEP
    assert settle_pending(own, peer) is expected


def test_a_side_that_yields_keeps_its_own_image_exactly_when_it_differs_from_the_common_point() -> None:
    for own in SIDES:
        assert how_to_yield(own, holds_common=True) is Yield.TO_POINT
        expected = Yield.AS_POINT if untouched(own) else Yield.OWN_IMAGE
        assert how_to_yield(own, holds_common=False) is expected


def test_a_token_is_of_one_decision_only() -> None:
    loser = Standing(role=Role.PROTECTED, term=1, common=X, written=3, writes=7)
    winner = Standing(role=Role.PROTECTED, term=2, common=X, written=5, writes=9)
    known = token(GROUP, loser, winner)
    others = [
        token(GroupId(b"h" * 16), loser, winner),
        token(GROUP, Standing(Role.PROTECTED, 1, Y, written=3, writes=7), winner),
        token(GROUP, Standing(Role.PROTECTED, 0, X, written=3, writes=7), winner),
        token(GROUP, Standing(Role.PROTECTED, 1, X, written=4, writes=7), winner),
        token(GROUP, Standing(Role.PROTECTED, 1, X, written=3, writes=8), winner),
        token(GROUP, loser, Standing(Role.PROTECTED, 3, X, written=5, writes=9)),
    ]
    assert known not in others
    assert token(GROUP, loser, Standing(Role.PROTECTED, 2, X, written=6, writes=10)) == known, "the winner writes on"
