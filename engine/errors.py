"""The failures of replication: link, records, state and requests. The class is the catalogue entry.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, LeewardError

__all__ = ["EXIT_FAILED", "EXIT_REFUSED", "EXIT_UNREACHABLE", "EXIT_USAGE", "LeewardError"]


@dataclass(eq=False)
class UnknownName(LeewardError):
    """A group, volume, peer, point, snapshot or job that is not here."""

    what: str
    name: str
    code: ClassVar[str] = "unknown_name"
    meaning: ClassVar[str] = "There is no {what} named {name} here."
    remedy: ClassVar[str] = "Run `leeward status` to see what there is."


@dataclass(eq=False)
class NameTaken(LeewardError):
    what: str
    name: str
    code: ClassVar[str] = "name_taken"
    meaning: ClassVar[str] = "There is a {what} named {name} already."
    remedy: ClassVar[str] = "Choose another name."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class BadValue(LeewardError):
    what: str
    value: str
    reason: str
    code: ClassVar[str] = "bad_value"
    meaning: ClassVar[str] = "{value} is no valid {what}: {reason}."
    remedy: ClassVar[str] = "Correct it and try again."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class RefusedByState(LeewardError):
    """The request is well-formed, but not allowed as things stand."""

    operation: str
    group: str
    reason: str
    code: ClassVar[str] = "refused_by_state"
    meaning: ClassVar[str] = "{operation} of {group} is refused: {reason}."
    remedy: ClassVar[str] = "Run `leeward group show {group}` to see its state."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PeerUnreachable(LeewardError):
    peer: str
    code: ClassVar[str] = "peer_unreachable"
    meaning: ClassVar[str] = "There is no contact with peer {peer}."
    remedy: ClassVar[str] = (
        "Check that its daemon runs and that its address and fingerprint are right (`leeward peer list`)."
    )


@dataclass(eq=False)
class DaemonUnreachable(LeewardError):
    data: str
    reason: str
    code: ClassVar[str] = "daemon_unreachable"
    meaning: ClassVar[str] = "No daemon answers for {data} ({reason})."
    remedy: ClassVar[str] = "Start it with `leeward serve --data {data}`, or name the right directory with --data."
    exit_status: ClassVar[int] = EXIT_UNREACHABLE


@dataclass(eq=False)
class PortTaken(LeewardError):
    address: str
    what: str
    code: ClassVar[str] = "port_taken"
    meaning: ClassVar[str] = "The {what} cannot listen on {address}: another program does."
    remedy: ClassVar[str] = "Stop that program, or change the address in leeward.toml."
