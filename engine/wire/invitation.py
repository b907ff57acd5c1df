"""An invitation: the token that one site prints and the other is given, and the proofs that both know its secret.

    "leeward1", then in base32 (small letters, no padding): 32 bytes fingerprint of the inviting site | 16 secret
    u8 length, its name | u8 count of addresses, for each u8 length, HOST:PORT | 4 bytes of check

The check is the beginning of a SHA-256 over all before it: it finds a token that was cut or mistyped. The secret never
travels and is never kept: what a proof is made with, and the name an invitation goes by, are derived from it. A proof
is an HMAC-SHA256 over the role of who gives it and the certificates of both ends, so it is worth nothing on a
connection between any other two. Pure. This module must never put a secret into an error or a log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final, Literal

from engine.errors import BadValue

SECRET_BYTES: Final = 16
PROOF_BYTES: Final = 32
ADDRESSES: Final = 4
"""Addresses in one token, at most."""

PREFIX: Final = "leeward1"
_CHECK_BYTES: Final = 4
_FINGERPRINT_BYTES: Final = 32
_LONGEST_TOKEN: Final = 4096

Role = Literal["inviter", "joiner"]


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says. `site` is the name that the inviting site gave itself."""

    site: str
    addresses: tuple[str, ...]
    fingerprint: str
    secret: bytes = field(repr=False)


def write(token: Token) -> str:
    """The token as it is printed. Raises BadValue if a name or an address is too long for it."""
    assert len(token.secret) == SECRET_BYTES, "a secret of 128 bits"
    assert 0 < len(token.addresses) <= ADDRESSES, "somewhere to go"
    kind, _, digits = token.fingerprint.partition(":")
    assert kind == "SHA256", "the only kind of fingerprint there is"
    body = bytes.fromhex(digits) + token.secret + _short("site name", token.site)
    body += bytes([len(token.addresses)]) + b"".join(_short("address", address) for address in token.addresses)
    return PREFIX + base64.b32encode(body + _check(body)).decode().rstrip("=").lower()


def read(text: str) -> Token:
    """What a token says that a person pasted, line breaks and all. Raises BadValue, which does not repeat it."""
    joined = "".join(text.split()).lower()
    if len(joined) > _LONGEST_TOKEN or not joined.startswith(PREFIX):
        raise _invalid(f"one begins with {PREFIX} and is the whole word that `leeward peer invite` printed")
    letters = joined.removeprefix(PREFIX).upper()
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        raise _invalid("it has letters that no token has, or some are missing") from None
    body = raw[:-_CHECK_BYTES]
    if not hmac.compare_digest(_check(body), raw[-_CHECK_BYTES:]):
        raise _invalid("it is not whole, or a letter is wrong")
    try:
        return _parse(body)
    except (IndexError, UnicodeDecodeError):
        raise _invalid("its parts do not fit together") from None


def _parse(body: bytes) -> Token:
    fingerprint, at = body[:_FINGERPRINT_BYTES].hex(), _FINGERPRINT_BYTES + SECRET_BYTES
    site, at = _take(body, at)
    count, at = body[at], at + 1
    addresses = []
    for _ in range(count):
        address, at = _take(body, at)
        addresses.append(address)
    if at != len(body) or not 0 < count <= ADDRESSES:
        raise _invalid("its parts do not fit together")
    return Token(site, tuple(addresses), f"SHA256:{fingerprint}", body[_FINGERPRINT_BYTES:][:SECRET_BYTES])


def _take(body: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + body[at]
    if end > len(body):
        raise IndexError("the body ends in the middle of a word")
    return body[at + 1 : end].decode(), end


def _short(what: str, text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 255:
        raise BadValue(what=what, value=text, reason="it is longer than the 255 bytes that a token has for it")
    return bytes([len(encoded)]) + encoded


def _check(body: bytes) -> bytes:
    return hashlib.sha256(PREFIX.encode() + body).digest()[:_CHECK_BYTES]


def _invalid(reason: str) -> BadValue:
    return BadValue(what="invitation token", value="What was given", reason=reason)


def id_of(secret: bytes) -> bytes:
    """What an invitation goes by, at both sites and on the wire: 16 bytes that say nothing about the secret."""
    return hmac.digest(secret, b"Leeward invitation, version 1: id", "sha256")[:16]


def key_of(secret: bytes) -> bytes:
    """The key that proofs are made with: 32 bytes."""
    return hmac.digest(secret, b"Leeward invitation, version 1: key", "sha256")


def proof(key: bytes, role: Role, *, inviter: str, joiner: str) -> bytes:
    """Proof that who plays `role` knows the secret, for these two certificates (fingerprints) and no others."""
    told = "\n".join(("Leeward invitation, version 1: proof", role, inviter, joiner))
    return hmac.digest(key, told.encode(), "sha256")


def is_proof(given: bytes, key: bytes, role: Role, *, inviter: str, joiner: str) -> bool:
    """Whether `given` is that proof; how long this takes tells nothing."""
    return hmac.compare_digest(given, proof(key, role, inviter=inviter, joiner=joiner))
