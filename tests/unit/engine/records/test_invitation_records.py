"""Invitations in the records: one a name, used once, wiped when over, forgotten after a day."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from records_build import NOW, Records, peer

from engine.model import Invitation, InvitationId
from engine.records import invitations, peers

LIFE = timedelta(minutes=10)
ONE = Invitation(InvitationId(b"1" * 16), "west", b"k" * 32, NOW, NOW + LIFE)
OTHER = replace(ONE, id=InvitationId(b"2" * 16), peer="south")


def test_an_invitation_comes_back_as_it_was_made(records: Records) -> None:
    records(invitations.insert, ONE)
    assert records(invitations.find, ONE.id) == ONE
    assert records(invitations.find, OTHER.id) is None
    assert "kkk" not in repr(ONE)


def test_what_happened_to_it_outlives_a_restart(records: Records) -> None:
    records(invitations.insert, ONE)
    records(invitations.count_wrong, ONE.id)
    records(invitations.count_wrong, ONE.id)
    records(invitations.use, ONE.id, "SHA256:west")
    records.reopen()
    assert records(invitations.find, ONE.id) == replace(ONE, wrong=2, used_by="SHA256:west")


def test_a_newer_one_takes_the_place_of_the_one_for_its_name(records: Records) -> None:
    for made in (ONE, OTHER, replace(ONE, id=InvitationId(b"3" * 16))):
        records(invitations.insert, made)
    assert records(invitations.find, ONE.id) is None
    assert records(invitations.find, OTHER.id) == OTHER


def test_what_is_over_is_wiped_and_after_a_day_forgotten(records: Records) -> None:
    records(invitations.insert, ONE)
    records(invitations.insert, replace(OTHER, expires_at=NOW + 2 * LIFE))
    records(invitations.forget, NOW + LIFE)
    assert records(invitations.find, ONE.id) == replace(ONE, key=b"")
    assert records(invitations.find, OTHER.id).key == OTHER.key
    records(invitations.forget, NOW + LIFE + invitations.KEPT)
    assert records(invitations.find, ONE.id) is None
    assert records(invitations.find, OTHER.id) is not None


def test_a_peer_is_found_by_its_certificate(records: Records) -> None:
    records(peers.insert, peer("south"), NOW)
    assert records(peers.with_fingerprint, peer("south").fingerprint) == peer("south")
    assert records(peers.with_fingerprint, "SHA256:nobody") is None
