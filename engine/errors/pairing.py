"""Pairing by invitation: why a site was not let in, or why its way in came to nothing.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_REFUSED, LeewardError


@dataclass(eq=False)
class InvitationUnknown(LeewardError):
    site: str
    address: str
    fingerprint: str
    code: ClassVar[str] = "invitation_unknown"
    meaning: ClassVar[str] = (
        "Site {site} with fingerprint {fingerprint} came from {address} with an invitation that is not known here."
    )
    remedy: ClassVar[str] = (
        "Make a new one with `leeward peer invite NAME`: a newer one for the same name ends the older, "
        "and what ended is forgotten after a day."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class InvitationExpired(LeewardError):
    peer: str
    expired_at: str
    address: str
    fingerprint: str
    code: ClassVar[str] = "invitation_expired"
    meaning: ClassVar[str] = (
        "The invitation for {peer} was valid until {expired_at}; {fingerprint} came with it from {address}."
    )
    remedy: ClassVar[str] = (
        "Make a new one with `leeward peer invite {peer}`; if {peer} is a peer there already, remove that first."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class InvitationUsed(LeewardError):
    """`user` is the fingerprint of the site that was let in."""

    peer: str
    user: str
    address: str
    fingerprint: str
    code: ClassVar[str] = "invitation_used"
    meaning: ClassVar[str] = (
        "The invitation for {peer} was used by {user}; {fingerprint} came with it from {address} once more."
    )
    remedy: ClassVar[str] = (
        "If {user} is not the site that you invited, `leeward peer remove {peer}` there at once; "
        "then make a new one with `leeward peer invite`."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class InvitationClosed(LeewardError):
    peer: str
    attempts: int
    address: str
    fingerprint: str
    code: ClassVar[str] = "invitation_closed"
    meaning: ClassVar[str] = (
        "The invitation for {peer} was closed after {attempts} wrong proofs; {fingerprint} came with it from {address}."
    )
    remedy: ClassVar[str] = "Find out who tries, then make a new one with `leeward peer invite {peer}`."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class InvitationWrong(LeewardError):
    """The other end does not know the secret, or proves it for another certificate."""

    peer: str
    address: str
    fingerprint: str
    code: ClassVar[str] = "invitation_wrong"
    meaning: ClassVar[str] = (
        "{fingerprint} at {address} does not know the secret of the invitation for {peer}, or not for this pair."
    )
    remedy: ClassVar[str] = "Join with the whole token as `leeward peer invite` printed it, or make a new one."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class InvitationNameTaken(LeewardError):
    """Another site got the name after the invitation was made."""

    peer: str
    site: str
    code: ClassVar[str] = "invitation_name_taken"
    meaning: ClassVar[str] = "Another site is the peer {peer} of site {site} by now."
    remedy: ClassVar[str] = "Use `leeward peer invite` with another name, or `leeward peer remove {peer}` there."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class InviterWrong(LeewardError):
    """Who answers at an address of the token is not the site that made it."""

    address: str
    expected: str
    found: str
    code: ClassVar[str] = "inviter_wrong"
    meaning: ClassVar[str] = (
        "{address} has fingerprint {found}; the invitation is from {expected}. It was told nothing of it."
    )
    remedy: ClassVar[str] = (
        "Find out who answers there; if the address is wrong, make a new invitation with --address HOST:PORT."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class InviterUnreachable(LeewardError):
    """No address of the token gave an answer; an answer that was lost counts as none."""

    address: str
    reason: str
    code: ClassVar[str] = "inviter_unreachable"
    meaning: ClassVar[str] = "The site that made the invitation gave no answer at {address}: {reason}."
    remedy: ClassVar[str] = (
        "Check that its daemon runs and that the address is reachable from here, then join again with the same token."
    )


@dataclass(eq=False)
class AlreadyPaired(LeewardError):
    peer: str
    site: str
    fingerprint: str
    code: ClassVar[str] = "already_paired"
    meaning: ClassVar[str] = "{fingerprint} is the peer {peer} of site {site} already."
    remedy: ClassVar[str] = "Use it under that name, or `leeward peer remove {peer}` there first."
    exit_status: ClassVar[int] = EXIT_REFUSED
