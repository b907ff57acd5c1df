"""Writes the pages that the code itself knows best: docs/cli.md, docs/errors.md and docs/openapi.json.

    python docs/generate.py            writes what has changed
    python docs/generate.py --check    changes nothing; exit status 1 and the names of stale pages

`make docs` runs it, and tests/tidy/test_docs_fresh.py holds the pages to the code.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import rich_click as click

from engine import requests
from engine.api.routes import Closing, make_app
from engine.api.service import Service
from engine.cli.about import with_blanks
from engine.cli.main import PROGRAM, program

DOCS = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code: change the code, then run `make docs`. -->"

COMMON = ("data", "as_json", "help")
"""The options of every command: said once."""

CLI_HEAD = f"""\
# Command line

{NOTE}

Each command takes these options after its own words:

| option | meaning |
|---|---|
| `--data DIR` | the data directory of the daemon; without it `LEEWARD_DATA`, else `/var/lib/leeward` |
| `--json` | prints exactly one JSON document on standard output (`--watch` and `--follow`: one a line) |
| `--help` | explains the command |

Sizes take K, M, G and T (powers of 1024), durations s, m, h and d. Progress goes to standard error: a bar on a
terminal, lines elsewhere, nothing with `--json`. Ctrl-C ends the waiting and never the operation.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the command line was wrong |
| 3 | the daemon cannot be reached |
| 4 | refused by the state of things |

A failure is one line on standard error, `error: MESSAGE REMEDY [CODE]`; with `--json` it is the document
`{{"error": {{"code", "message", "remedy", "details"}}}}` on standard output. The codes are listed in
[errors](errors.md). With `LEEWARD_TRACEBACK=1` a fault inside the program (`internal`) shows where it happened.
"""

ERRORS_HEAD = f"""\
# Errors

{NOTE}

Every failure has a code that stays the same, what it means and what to do about it. Words in capitals stand for
facts of the occurrence, which `details` carries by the same names in small letters. `leeward errors CODE` prints
an entry.
"""

DOCUMENTS_HEAD = """\
## Documents

What `--json` prints and the API answers. Names are stable within a major version; more may be added. Sizes are
bytes, durations seconds, times RFC 3339 in UTC.
"""


def pages() -> dict[Path, str]:
    """Every generated page and what it has to hold."""
    return {
        DOCS / "cli.md": cli_page(),
        DOCS / "errors.md": errors_page(),
        DOCS / "openapi.json": openapi_page(),
    }


def cli_page() -> str:
    commands = (section(path, command) for path, command in leaves(program, PROGRAM))
    return "\n".join([CLI_HEAD, *commands, DOCUMENTS_HEAD, *documents()])


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, in the order of the help, with its words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from leaves(inner, f"{path} {name}")


def section(path: str, command: click.Command) -> str:
    """One command: usage, help, and a table of its own options."""
    context = click.Context(command, info_name=path)
    own = [option for option in options_of(command) if option.name not in COMMON]
    arguments = [
        param.make_metavar(context) for param in command.get_params(context) if param.param_type_name == "argument"
    ]
    usage = " ".join([path, *arguments, *(["[OPTIONS]"] if own else [])])
    lines = [f"## {path}", "", f"    {usage}", "", textwrap.dedent(command.help or "").strip(), ""]
    if own:
        lines += ["| option | meaning |", "|---|---|", *(row(option, context) for option in own), ""]
    return "\n".join(lines)


def options_of(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def row(option: click.Option, context: click.Context) -> str:
    words = option.opts[0] if option.is_flag else f"{option.opts[0]} {option.make_metavar(context)}"
    notes = (
        *(["required"] if option.required else []),
        *([f"default {option.default}"] if option.show_default and not option.is_flag else []),
    )
    help_text = " ".join((option.help or "").split())
    return f"| `{words}` | {help_text}{' (' + ', '.join(notes) + ')' if notes else ''} |".replace("x>=1", "at least 1")


def documents() -> Iterator[str]:
    """Every document of the contract: its fields and their types."""
    for name, kind in sorted(vars(requests).items()):
        if not (name.endswith("Doc") and dataclasses.is_dataclass(kind)):
            continue
        yield f"### {name.removesuffix('Doc')}\n"
        if kind.__doc__ and not kind.__doc__.startswith(f"{name}("):
            yield f"{textwrap.dedent('    ' + kind.__doc__).strip()}\n"
        hints = typing.get_type_hints(kind)
        yield "| field | type |\n|---|---|"
        yield from (f"| `{field.name}` | {in_words(hints[field.name])} |" for field in dataclasses.fields(kind))
        yield ""


def in_words(hint: Any) -> str:
    """A type as a reader of JSON knows it."""
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return f"list of {in_words(arguments[0])}"
    if typing.get_origin(hint) is dict:
        return "object"
    if arguments:
        return " or ".join(in_words(argument) for argument in arguments)
    return names.get(hint) or str(hint.__name__).removesuffix("Doc")


def errors_page() -> str:
    lines = [ERRORS_HEAD]
    for entry in requests.catalogue():
        lines += [
            f"## {entry.code}\n",
            f"{with_blanks(entry.meaning)}\n",
            f"What to do: {with_blanks(entry.remedy)} Exit status {entry.exit_status}.\n",
        ]
    return "\n".join(lines)


def openapi_page() -> str:
    app = make_app(cast(Service, None), Closing())  # nothing is asked of the site for its description
    return json.dumps(app.openapi_schema.to_schema(), indent=1, sort_keys=True) + "\n"


def stale() -> list[Path]:
    """The pages that do not say what the code says."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    found = stale()
    for path in found:
        print(f"{path.relative_to(DOCS.parent)}: {'stale' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            path.write_text(pages()[path])
    return 1 if found and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
