"""Call: what every command is given, and the options that every command takes after its own words.

This module must never import the client before a command asks for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import rich_click as click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from engine.api.client import Client

DEFAULT_DATA = "/var/lib/leeward"
COMPLETE_WITHIN_S = 1.0

Words = ParamSpec("Words")


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a command: the data directory of the daemon that it talks to, and how it answers."""

    data: Path
    as_json: bool

    def client(self) -> Client:
        from engine.api.client import Client

        return Client(self.data)


def common(command: Callable[Concatenate[Call, Words], Any]) -> Callable[..., Any]:
    """Gives a command --data and --json; stands right above its function."""

    @click.option(
        "--data",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="LEEWARD_DATA",
        default=DEFAULT_DATA,
        show_default=True,
        show_envvar=True,
        help="Data directory of the daemon.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document.")
    @functools.wraps(command)
    def run(data: Path, as_json: bool, *words: Words.args, **options: Words.kwargs) -> Any:
        return command(Call(data.absolute(), as_json), *words, **options)

    return run


no_wait = click.option(
    "--no-wait", is_flag=True, help="Print the id of the operation at once; `leeward jobs ID` tells how it goes."
)


def names_of(what: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Shell completion with the names of what the daemon has: `what` is a question of the client."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from engine.api.client import Client
        from engine.errors import LeewardError

        data = ctx.params.get("data") or Path(DEFAULT_DATA)
        try:
            found = getattr(Client(Path(data), answer_within_s=COMPLETE_WITHIN_S), what)()
        except LeewardError:
            return []
        return [CompletionItem(doc.name) for doc in found if doc.name.startswith(incomplete)]

    return complete


group_argument = click.argument("group", shell_complete=names_of("groups"))
