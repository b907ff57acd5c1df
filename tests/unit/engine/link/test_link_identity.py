"""The identity of a site: made once, known by its fingerprint, checked when it is loaded."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from engine.errors import BadValue, IdentityUnreadable
from engine.link import identity
from engine.link.tls import client_context, server_context


def test_an_identity_is_made_and_loaded(tmp_path: Path) -> None:
    made = identity.create(tmp_path / "identity", "berlin")
    assert identity.load(tmp_path / "identity") == made
    assert identity.parse_fingerprint(made.fingerprint) == made.fingerprint
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o700


def test_two_identities_are_never_the_same(tmp_path: Path) -> None:
    assert (
        identity.create(tmp_path / "a", "berlin").fingerprint != identity.create(tmp_path / "b", "berlin").fingerprint
    )


def test_an_identity_is_never_replaced(tmp_path: Path) -> None:
    made = identity.create(tmp_path, "berlin")
    with pytest.raises(IdentityUnreadable, match="already"):
        identity.create(tmp_path, "berlin")
    assert identity.load(tmp_path) == made


def test_a_long_name_makes_an_identity_all_the_same(tmp_path: Path) -> None:
    server_context(identity.create(tmp_path, "ü" * 200))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other key", "swapped"])
def test_a_damaged_identity_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    made = identity.create(tmp_path / "a", "berlin")
    other = identity.create(tmp_path / "b", "paris")
    if damage == "missing":
        made.key.unlink()
    elif damage == "empty":
        made.certificate.write_bytes(b"")
    elif damage == "cut":
        made.key.write_bytes(made.key.read_bytes()[:100])
    elif damage == "other key":
        made.key.write_bytes(other.key.read_bytes())
    else:
        made.certificate.write_bytes(other.key.read_bytes())
    with pytest.raises(IdentityUnreadable) as caught:
        identity.load(tmp_path / "a")
    assert str(tmp_path / "a") in caught.value.message
    assert "\n" not in caught.value.message


def test_contexts_take_an_identity(tmp_path: Path) -> None:
    made = identity.create(tmp_path, "berlin")
    server_context(made)
    client_context(made)


def test_a_fingerprint_is_read_however_it_was_pasted() -> None:
    digits = "ab" * 32
    colons = ":".join(["AB"] * 32)
    for text in (f"SHA256:{digits}", f" sha256:{digits.upper()}\n", f"SHA256:{colons}"):
        assert identity.parse_fingerprint(text) == f"SHA256:{digits}"


@pytest.mark.parametrize("text", ["", "SHA256:", "SHA256:" + "a" * 63, "SHA1:" + "a" * 64, "SHA256:" + "g" * 64])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        identity.parse_fingerprint(text)
