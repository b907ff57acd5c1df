"""What may be asked to pair two sites by an invitation; and what is kept of a request that holds a secret.

A part of `engine/requests.py`, whose tables list it. This module must never import anything outside the standard
library.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any, ClassVar

SECRET = {"secret": True}
"""Marks a field of a request that is never logged or recorded as it is."""


@dataclass(frozen=True, slots=True)
class PeerInvite:
    """`secret`: 32 hex digits that who asks has drawn at random; the token is made of it and of the answer.

    `addresses`: where the other site reaches this one; none: where this site listens.
    """

    kind: ClassVar[str] = "peer_invite"
    name: str
    secret: str = field(repr=False, metadata=SECRET)
    addresses: tuple[str, ...] = ()
    valid_s: int = 600


@dataclass(frozen=True, slots=True)
class PeerJoin:
    """`name`: what the inviting site is called here, None: what it calls itself.

    `address`: where it reaches this site, None: where this one listens, at the host that it sees.
    """

    kind: ClassVar[str] = "peer_join"
    token: str = field(repr=False, metadata=SECRET)
    name: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class InvitationDoc:
    """An invitation for the site that will be `peer`. `token`: made where the secret was drawn; no daemon knows it."""

    peer: str
    site: str
    addresses: tuple[str, ...]
    fingerprint: str
    expires_at: str
    token: str = ""


def recorded(request: Any) -> dict[str, Any]:
    """The fields of a request as they may be kept: of a secret its SHA-256, which tells two of them apart."""
    kept = asdict(request)
    for known in fields(request):
        if known.metadata.get("secret"):
            kept[known.name] = f"sha256:{sha256(kept[known.name].encode()).hexdigest()}"
    return kept
