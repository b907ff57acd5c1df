"""The `leeward` program: the table of its commands, and the edge where a failure becomes words and an exit status.

Exit status: 0 done, 1 failed, 2 usage, 3 cannot reach the daemon, 4 refused by state. This module must never
import a command before it is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import rich_click as click

from engine.cli import output
from engine.errors import EXIT_FAILED, CommandInterrupted, IoFailed, LeewardError, UsageWrong

PROGRAM = "leeward"

COMMANDS = {
    "init": "site",
    "serve": "site",
    "peer": "peer",
    "volume": "volume",
    "group": "group",
    "sync": "sync",
    "points": "sync",
    "verify": "verify",
    "link": "link",
    "pause": "sync",
    "resume": "sync",
    "snapshot": "snapshot",
    "demote": "roles",
    "promote": "promote",
    "reverse": "roles",
    "restore": "roles",
    "set-aside": "roles",
    "status": "status",
    "events": "events",
    "jobs": "jobs",
    "export": "export",
    "errors": "about",
    "demo": "about",
    "completion": "about",
    "version": "about",
}
"""Each command, in the order of the help, and the module of this package that has a function of its name."""


class Program(click.RichGroup):
    """Loads the module of a command when the command is named, or listed in the help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"engine.cli.{COMMANDS[cmd_name]}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.command(
    PROGRAM,
    cls=Program,
    epilog="Every command takes --data DIR and --json after its own words.",
)
def program() -> None:
    """Block replication for disaster recovery.

    Replicates block volumes from a protected site to a recovery site, into recovery points that are whole or not there.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit status."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        returned = program.main(words, prog_name=PROGRAM, standalone_mode=False)
    except BrokenPipeError:
        output.give_up_output()
        return EXIT_FAILED
    except Exception as error:
        return _failed(error, as_json="--json" in words)
    return returned if isinstance(returned, int) else 0


def _failed(error: Exception, *, as_json: bool) -> int:
    from engine.api.replies import describe

    if not isinstance(error, LeewardError) and os.environ.get("LEEWARD_TRACEBACK"):
        raise error
    doc = describe(_ours(error))
    output.failure(doc, as_json=as_json)
    return doc.exit_status


def _ours(error: Exception) -> Exception:
    """The failures of click and of the system as entries of our catalogue."""
    if isinstance(error, click.Abort):
        return CommandInterrupted()
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx is not None else PROGRAM
        return UsageWrong(reason=" ".join(error.format_message().split()), command=command)
    if isinstance(error, click.ClickException):
        return UsageWrong(reason=" ".join(error.format_message().split()), command=PROGRAM)
    if isinstance(error, OSError):  # init and serve touch files themselves
        return IoFailed(path=str(error.filename or "a file"), reason=error.strerror or str(error))
    return error
