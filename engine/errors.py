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


@dataclass(eq=False)
class PeerRefused(LeewardError):
    """The peer said no. `cause` is the peer's catalogue code."""

    peer: str
    reason: str
    cause: str
    cure: str
    code: ClassVar[str] = "peer_refused"
    meaning: ClassVar[str] = "Peer {peer} refused: {reason}"
    remedy: ClassVar[str] = "{cure}"
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class DaemonForeign(LeewardError):
    """What answers on the socket is not the API of this version."""

    data: str
    reason: str
    code: ClassVar[str] = "daemon_foreign"
    meaning: ClassVar[str] = "The daemon of {data} gave an answer that this program cannot read ({reason})."
    remedy: ClassVar[str] = "Use the same version of Leeward for the daemon and the command (`leeward version`)."


@dataclass(eq=False)
class DaemonLost(LeewardError):
    """The daemon went away while a client waited for a job."""

    data: str
    operation: str
    code: ClassVar[str] = "daemon_lost"
    meaning: ClassVar[str] = "The daemon of {data} went away while operation {operation} was running."
    remedy: ClassVar[str] = "Start it again; `leeward jobs {operation}` then tells how the operation ended."
    exit_status: ClassVar[int] = EXIT_UNREACHABLE


@dataclass(eq=False)
class NotConfirmed(LeewardError):
    operation: str
    group: str
    code: ClassVar[str] = "not_confirmed"
    meaning: ClassVar[str] = "{operation} of {group} was not confirmed; nothing was changed."
    remedy: ClassVar[str] = "Type the name of the group when you are asked, or give --yes."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class UsageWrong(LeewardError):
    """A command line that cannot be understood."""

    reason: str
    command: str
    code: ClassVar[str] = "usage"
    meaning: ClassVar[str] = "{reason}"
    remedy: ClassVar[str] = "Run `{command} --help` to see how it is used."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class WaitInterrupted(LeewardError):
    """The operator stopped waiting; the job did not stop."""

    operation: str
    code: ClassVar[str] = "wait_interrupted"
    meaning: ClassVar[str] = "Waiting was interrupted; operation {operation} goes on in the daemon."
    remedy: ClassVar[str] = "Run `leeward jobs {operation}` to see how it ends."
