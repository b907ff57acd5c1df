"""leeward promote: the recovery side of a group becomes the writable one."""

from __future__ import annotations

import sys

import rich_click as click

from engine.cli import output, views, words
from engine.cli.call import Call, common, group_argument, no_wait
from engine.cli.confirm import confirm
from engine.cli.waiting import carry_out
from engine.requests import GroupDoc, Promote


@click.command()
@group_argument
@click.option("--force", is_flag=True, help="Also when the protected site may still be writing.")
@click.option("--yes", is_flag=True, help="Do not ask for the name of the group on a terminal.")
@no_wait
@common
def promote(call: Call, group: str, force: bool, yes: bool, no_wait: bool) -> None:
    """Make the newest recovery point writable here; never needs the peer."""

    def tell(doc: GroupDoc) -> None:
        output.line(f"Group {doc.name} is writable here, as of point {words.point(doc.point or doc.last_point)}.")
        output.line()
        views.volumes(doc.volumes)

    if not (yes or call.as_json) and sys.stdin.isatty():
        confirm("promote", group, f"{group} will be writable at this site, from its newest recovery point on.")
    carry_out(call, Promote(group, force), tell, no_wait=no_wait)
