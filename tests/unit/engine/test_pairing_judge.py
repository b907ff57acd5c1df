"""Who is let in by an invitation: one table of what is held against whoever comes with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from engine.model import Invitation, InvitationId
from engine.operations.pairing import MOST_WRONG, judge
from engine.wire import invitation

EAST, WEST, NORTH = ("SHA256:" + digit * 64 for digit in "e37")
SECRET = bytes(range(16))
KEY = invitation.key_of(SECRET)
MADE_AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
OPEN = Invitation(InvitationId(invitation.id_of(SECRET)), "west", KEY, MADE_AT, MADE_AT + timedelta(minutes=10))
USED = replace(OPEN, used_by=WEST)
CLOSED = replace(OPEN, wrong=MOST_WRONG)
RIGHT, LATE = timedelta(minutes=9, seconds=59), timedelta(minutes=10)


def proof_of(joiner: str, key: bytes = KEY) -> bytes:
    return invitation.proof(key, "joiner", inviter=EAST, joiner=joiner)


@pytest.mark.parametrize(
    ("found", "after", "joiner", "proof", "code"),
    [
        (OPEN, RIGHT, WEST, proof_of(WEST), None),
        (OPEN, timedelta(0), WEST, proof_of(WEST), None),
        (replace(OPEN, wrong=MOST_WRONG - 1), RIGHT, WEST, proof_of(WEST), None),
        (USED, RIGHT, WEST, proof_of(WEST), None),
        (OPEN, LATE, WEST, proof_of(WEST), "invitation_expired"),
        (USED, LATE, WEST, proof_of(WEST), "invitation_expired"),
        (OPEN, timedelta(seconds=-1), WEST, proof_of(WEST), "invitation_expired"),
        (replace(OPEN, key=b""), LATE, WEST, proof_of(WEST, b""), "invitation_expired"),
        (CLOSED, RIGHT, WEST, proof_of(WEST), "invitation_closed"),
        (OPEN, RIGHT, NORTH, proof_of(WEST), "invitation_wrong"),
        (OPEN, RIGHT, WEST, proof_of(WEST, invitation.key_of(b"?" * 16)), "invitation_wrong"),
        (OPEN, RIGHT, WEST, invitation.proof(KEY, "inviter", inviter=EAST, joiner=WEST), "invitation_wrong"),
        (USED, RIGHT, NORTH, proof_of(WEST), "invitation_wrong"),
        (USED, RIGHT, NORTH, proof_of(NORTH), "invitation_used"),
    ],
)
def test_who_is_let_in(found: Invitation, after: timedelta, joiner: str, proof: bytes, code: str | None) -> None:
    error = judge(found, proof, inviter=EAST, joiner=joiner, address="192.0.2.1:1", now=MADE_AT + after)
    assert (error.code if error else None) == code
    if error is not None:
        assert joiner in error.message
        assert KEY.hex() not in str(error.details())
