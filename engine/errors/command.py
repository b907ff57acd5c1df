"""What the command line says of itself and of the daemon that it asks.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_UNREACHABLE, EXIT_USAGE, LeewardError


@dataclass(eq=False)
class DaemonUnreachable(LeewardError):
    data: str
    reason: str
    code: ClassVar[str] = "daemon_unreachable"
    meaning: ClassVar[str] = "No daemon answers for {data} ({reason})."
    remedy: ClassVar[str] = "Start it with `leeward serve --data {data}`, or name the right directory with --data."
    exit_status: ClassVar[int] = EXIT_UNREACHABLE


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
class CommandInterrupted(LeewardError):
    code: ClassVar[str] = "command_interrupted"
    meaning: ClassVar[str] = "The command was interrupted."
    remedy: ClassVar[str] = "Run it again; `leeward jobs` shows what the daemon had been asked before."


@dataclass(eq=False)
class NotConfirmed(LeewardError):
    operation: str
    group: str
    code: ClassVar[str] = "not_confirmed"
    meaning: ClassVar[str] = "{operation} of {group} was not confirmed; nothing was changed."
    remedy: ClassVar[str] = "Type the name of the group when you are asked, or give --yes."


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
