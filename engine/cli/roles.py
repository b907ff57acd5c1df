"""leeward demote, reverse, restore and set-aside: which side of a group is the writable one, and what was discarded."""

from __future__ import annotations

import sys

import rich_click as click

from engine.cli import output, views, words
from engine.cli.call import Call, common, group_argument, no_wait
from engine.cli.confirm import confirm
from engine.cli.waiting import carry_out
from engine.requests import (
    Demote,
    GroupDoc,
    RemovedDoc,
    Restore,
    Reverse,
    SetAsideDoc,
    SetAsideDrop,
    SetAsideExport,
    SetAsideUnexport,
    YieldDoc,
)

TOKEN = click.option("--token", metavar="TOKEN", help="Go on with the decision that a refusal has named by this.")
YES = click.option("--yes", is_flag=True, help="Do not ask for the name of the group: set aside what must be.")


@click.command()
@group_argument
@click.option("--consent", is_flag=True, help="Agree that a reverse sets aside what was written here meanwhile.")
@no_wait
@common
def demote(call: Call, group: str, consent: bool, no_wait: bool) -> None:
    """Stop accepting writes here, for a planned move; `leeward promote` undoes it."""

    def tell(doc: GroupDoc) -> None:
        output.line(f"Group {doc.name} takes no writes here any more. Sync once more, then promote the other site.")

    carry_out(call, Demote(group, consent), tell, no_wait=no_wait)


@click.command()
@group_argument
@click.option("--discard-local-changes", "discard", is_flag=True, help="Set aside what was written at this site.")
@TOKEN
@YES
@no_wait
@common
def reverse(call: Call, group: str, discard: bool, token: str | None, yes: bool, no_wait: bool) -> None:
    """After a promotion: the side protected before becomes the recovery side, and only changes are shipped."""
    confirmed = token is not None or yes
    if discard and not confirmed and not call.as_json and sys.stdin.isatty():
        confirm("reverse", group, f"What was written to {group} at this site since the common point will be set aside.")
        confirmed = True
    carry_out(call, Reverse(group, discard, token, confirmed), _tell, no_wait=no_wait)


@click.command()
@group_argument
@TOKEN
@YES
@no_wait
@common
def restore(call: Call, group: str, token: str | None, yes: bool, no_wait: bool) -> None:
    """Undo an unwanted promotion: the promoted side becomes recovery again, what was written there is set aside."""
    confirmed = token is not None or yes
    if not confirmed and not call.as_json and sys.stdin.isatty():
        confirm("restore", group, f"What was written to {group} at the promoted site will be set aside there.")
        confirmed = True
    carry_out(call, Restore(group, token, confirmed), _tell, no_wait=no_wait)


def _tell(doc: YieldDoc) -> None:
    output.line(f"Group {doc.group} is {doc.role} here.")
    if doc.set_aside is not None:
        size = words.size(doc.set_aside_blocks * 4096)
        output.line(f"Set aside as {doc.set_aside} at the side that gave way: {size}. It is kept until it is dropped.")


@click.group()
def set_aside() -> None:
    """List, show and drop what role changes discarded."""


@set_aside.command("list")
@group_argument
@common
def list_(call: Call, group: str) -> None:
    """List what this site keeps of a group."""
    docs = call.client().set_asides(group)
    if call.as_json:
        output.document(docs)
    else:
        views.set_asides(docs)


@set_aside.command("export")
@group_argument
@click.argument("name")
@no_wait
@common
def export(call: Call, group: str, name: str, no_wait: bool) -> None:
    """Let hosts read every volume as it was at the side that gave way.

    The exports are read-only and stay, also after a restart, until `set-aside unexport` or `set-aside drop`.
    """

    def tell(doc: SetAsideDoc) -> None:
        output.line(f"What was set aside of {doc.group} as {doc.name} can be read now:")
        for volume in doc.volumes:
            output.line(f"  {volume.name}  {volume.export}")

    carry_out(call, SetAsideExport(group, name), tell, no_wait=no_wait)


@set_aside.command("unexport")
@group_argument
@click.argument("name")
@no_wait
@common
def unexport(call: Call, group: str, name: str, no_wait: bool) -> None:
    """Take its exports away; it stays set aside."""

    def tell(doc: SetAsideDoc) -> None:
        output.line(f"{doc.name} of {doc.group} is not exported any more; it stays set aside.")

    carry_out(call, SetAsideUnexport(group, name), tell, no_wait=no_wait)


@set_aside.command("drop")
@group_argument
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for the name of the group.")
@no_wait
@common
def drop(call: Call, group: str, name: str, yes: bool, no_wait: bool) -> None:
    """Let it go for ever."""
    if not (yes or call.as_json) and sys.stdin.isatty():
        confirm("set-aside drop", group, f"{name} of {group} will be gone for ever.")

    def tell(doc: RemovedDoc) -> None:
        output.line(f"{doc.removed} is gone.")

    carry_out(call, SetAsideDrop(group, name), tell, no_wait=no_wait)
