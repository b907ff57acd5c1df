"""leeward version, errors, completion and demo: what needs no daemon."""

from __future__ import annotations

import re

import rich_click as click

from engine.cli import output
from engine.cli.call import Call, common
from engine.version import VERSION

SHELLS = ("bash", "zsh", "fish")


@click.command()
@common
def version(call: Call) -> None:
    """Print the version of this program."""
    if call.as_json:
        output.document({"version": VERSION})
    else:
        output.line(f"leeward {VERSION}")


@click.command()
@click.argument("code", required=False)
@common
def errors(call: Call, code: str | None) -> None:
    """Explain the code of an error, or list every error that Leeward knows."""
    from engine.errors import UnknownName
    from engine.requests import catalogue

    found = [entry for entry in catalogue() if code in (None, entry.code)]
    if not found:
        raise UnknownName(what="error", name=code or "")
    if call.as_json:
        output.document(found)
        return
    for entry in found:
        output.line(f"{entry.code} (exit status {entry.exit_status})")
        output.line(f"  {with_blanks(entry.meaning)}")
        output.line(f"  {with_blanks(entry.remedy)}")


def with_blanks(text: str) -> str:
    """A text of the catalogue with its facts as blanks to fill: {path} becomes PATH."""
    return re.sub(r"\{(\w+)\}", lambda fact: fact[1].upper(), text)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@common
@click.pass_context
def completion(ctx: click.Context, call: Call, shell: str) -> None:
    """Print the completion script of a shell; for bash: source <(leeward completion bash)."""
    from click.shell_completion import get_completion_class

    maker = get_completion_class(shell)
    assert maker is not None, f"click knows no {shell}"
    script = maker(ctx.find_root().command, {}, "leeward", "_LEEWARD_COMPLETE").source()
    if call.as_json:
        output.document({"shell": shell, "script": script})
    else:
        output.line(script)


@click.command()
@click.option(
    "--drill", is_flag=True, help="Tell the changes of roles: test copy, move, disaster, split brain, failback."
)
@common
@click.pass_context
def demo(ctx: click.Context, call: Call, drill: bool) -> None:
    """Watch two daemons replicate a real image, be killed, and bring it up again."""
    if drill:
        from engine.cli.drill import run
    else:
        from engine.cli.demo import run

    if not call.as_json:
        ctx.exit(run(output.line))
    story: list[str] = []
    status = run(story.append)
    output.document({"passed": status == 0, "story": story})
    ctx.exit(status)
