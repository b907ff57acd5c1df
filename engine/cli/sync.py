"""leeward sync, pause, resume, points: recovery points are made, not made for a while, and listed."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, views, words
from engine.cli.call import Call, common, group_argument, no_wait
from engine.cli.waiting import carry_out
from engine.requests import GroupDoc, Pause, Resume, Sync, SyncDoc


@click.command()
@group_argument
@no_wait
@common
def sync(call: Call, group: str, no_wait: bool) -> None:
    """Ship what changed into a new recovery point, and wait until it is sealed.

    Done means: every write that was acknowledged before the call is in a sealed point. If a sync is running,
    one more is queued.
    """

    def tell(doc: SyncDoc) -> None:
        if doc.point is None or not doc.bytes_changed:
            output.line(f"Group {doc.group}: nothing had changed, in {words.duration(doc.seconds)}.")
            return
        output.line(
            f"Group {doc.group}: point {words.point(doc.point)} is sealed. "
            f"{words.size(doc.bytes_changed)} changed, {words.size(doc.bytes_sent)} sent, "
            f"{words.size(doc.bytes_wire)} on the wire, in {words.duration(doc.seconds)}."
        )

    carry_out(call, Sync(group), tell, no_wait=no_wait)


@click.command()
@group_argument
@no_wait
@common
def pause(call: Call, group: str, no_wait: bool) -> None:
    """Send nothing of a group until it is resumed: a running sync is ended, hosts go on writing.

    The recovery copy stays as it is. A promised RPO is told as broken meanwhile.
    """

    def tell(doc: GroupDoc) -> None:
        output.line(f"Group {doc.name} is paused: nothing of it is sent until `leeward resume {doc.name}`.")

    carry_out(call, Pause(group), tell, no_wait=no_wait)


@click.command()
@group_argument
@no_wait
@common
def resume(call: Call, group: str, no_wait: bool) -> None:
    """End a pause: with an RPO the next sync begins at once, else when it is asked for."""

    def tell(doc: GroupDoc) -> None:
        output.line(f"Group {doc.name} is sent again; {words.size(doc.backlog_bytes)} wait.")

    carry_out(call, Resume(group), tell, no_wait=no_wait)


@click.command()
@group_argument
@common
def points(call: Call, group: str) -> None:
    """List the recovery points of a group, newest first."""
    docs = call.client().points(group)
    if call.as_json:
        output.document(docs)
    else:
        views.points(docs)
