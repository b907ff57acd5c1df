"""The token of an invitation, and the proofs: bound to a secret, a role and two certificates, and to nothing less."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadValue
from engine.wire import invitation
from engine.wire.invitation import Token, id_of, is_proof, key_of, proof, read, write

EAST, WEST = "SHA256:" + "e" * 64, "SHA256:" + "3" * 64
TOKEN = Token("east", ("east.example:7450", "[2001:db8::1]:7450"), EAST, bytes(range(16)))
KEY = key_of(TOKEN.secret)


def test_a_token_stays_what_it_was() -> None:
    """Byte for byte: a token that one version prints, the next one reads."""
    written = write(TOKEN)
    assert written == (
        "leeward153xo53xo53xo53xo53xo53xo53xo53xo53xo53xo53xo53xo53xaaaicamcakbqhbaequcymbuha6bdfmfzxiaqr"
        "mvqxg5bomv4gc3lqnrstunzuguybewzsgaydcotemi4duorrlu5donbvgbpw2lty"
    )
    assert written.startswith("leeward1")
    assert written.isalnum()
    assert written == written.lower()
    assert read(written) == TOKEN


@given(
    st.text(max_size=60),
    st.lists(st.text(max_size=60), min_size=1, max_size=4),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
)
def test_what_is_written_is_read(site: str, addresses: list[str], certificate: bytes, secret: bytes) -> None:
    token = Token(site, tuple(addresses), f"SHA256:{certificate.hex()}", secret)
    assert read(write(token)) == token


def test_a_token_may_be_pasted_in_lines_and_in_capitals() -> None:
    text = write(TOKEN)
    assert read(f"  {text[:50]}\n   {text[50:].upper()}\n") == TOKEN


@pytest.mark.parametrize("at", range(8, len(write(TOKEN)), 7))
def test_a_wrong_letter_is_noticed_and_the_token_is_not_repeated(at: int) -> None:
    text = write(TOKEN)
    wrong = text[:at] + ("b" if text[at] != "b" else "c") + text[at + 1 :]
    with pytest.raises(BadValue) as caught:
        read(wrong)
    assert wrong not in caught.value.message
    assert text[10:30] not in caught.value.message


@given(st.text(max_size=300))
def test_rubbish_is_refused_in_one_way(text: str) -> None:
    for given_text in (text, invitation.PREFIX + text):
        with pytest.raises(BadValue):
            read(given_text)


def test_a_body_that_lies_about_its_lengths_is_refused() -> None:
    whole = invitation._parse  # what lies behind the check, which anybody can compute
    body = bytes(48) + b"\4east" + b"\1" + b"\7host:74"
    assert whole(body).addresses == ("host:74",)
    for wrong in (body[:-1], body + b"x", body[:53] + b"\0", body[:53] + b"\5" + b"\1a" * 5, body[:20], b""):
        with pytest.raises((BadValue, IndexError)):
            whole(wrong)


def test_a_secret_is_in_no_picture_of_a_token() -> None:
    assert "secret" not in repr(TOKEN)
    assert repr(TOKEN.secret) not in repr(TOKEN)


def test_the_derived_values_tell_nothing_of_each_other() -> None:
    values = {TOKEN.secret, id_of(TOKEN.secret), KEY, KEY[:16]}
    assert len(values) == 4
    assert len(id_of(TOKEN.secret)) == 16
    assert len(KEY) == 32


def test_a_proof_is_good_for_one_role_one_key_and_one_pair_in_its_order() -> None:
    other = key_of(b"x" * 16)
    cases = list(itertools.product((KEY, other), ("joiner", "inviter"), ((EAST, WEST), (WEST, EAST), (EAST, EAST))))
    proofs = {proof(key, role, inviter=one, joiner=two) for key, role, (one, two) in cases}  # type: ignore[arg-type]
    assert len(proofs) == len(cases)
    right = proof(KEY, "joiner", inviter=EAST, joiner=WEST)
    assert right.hex() == "525920952eb98b3cb2821f89ba15377eb686cdb88f2d4e9e2d5d97de24412b93"
    assert len(right) == invitation.PROOF_BYTES
    assert is_proof(right, KEY, "joiner", inviter=EAST, joiner=WEST)
    for wrong in (right[:-1], right + b"\0", b"", bytes(32), proof(KEY, "inviter", inviter=EAST, joiner=WEST)):
        assert not is_proof(wrong, KEY, "joiner", inviter=EAST, joiner=WEST)


def test_what_does_not_fit_a_token_is_refused_by_name() -> None:
    with pytest.raises(BadValue, match="site name"):
        write(replace(TOKEN, site="n" * 256))
    with pytest.raises(BadValue, match="address"):
        write(replace(TOKEN, addresses=("a" * 256,)))
