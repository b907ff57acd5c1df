"""leeward group: consistency groups, which are captured, sealed and promoted as one."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, quantities, views, words
from engine.cli.call import Call, common, group_argument, names_of, no_wait
from engine.cli.waiting import carry_out
from engine.requests import GroupCreate, GroupDoc, GroupRemove, GroupSet, RemovedDoc

KEEP = "Recovery points to keep whatever their age: the newest N."
RETAIN = (
    "Points to keep beside them, by age: all:1h,hourly:1d,daily:30d keeps every point for an hour, the first of each"
    " hour for a day and the first of each day for 30 days; weekly is there too."
)


@click.group()
def group() -> None:
    """Create, list, show, change and remove groups."""


@group.command("create")
@click.argument("name")
@click.option(
    "--volume",
    "volumes",
    multiple=True,
    required=True,
    metavar="V",
    shell_complete=names_of("volumes"),
    help="A volume of this site; again for each further one. Their order stays.",
)
@click.option(
    "--peer",
    required=True,
    metavar="PEER",
    shell_complete=names_of("peers"),
    help="The site that keeps the recovery side.",
)
@click.option(
    "--rpo",
    metavar="DURATION",
    callback=quantities.typed(quantities.duration),
    help="Sync by itself, so that no more than this is lost: 30s, 5m, 1h.",
)
@click.option("--keep", type=click.IntRange(min=1), metavar="N", default=24, show_default=True, help=KEEP)
@click.option("--retain", metavar="SCHEDULE", default="", help=RETAIN)
@no_wait
@common
def create(
    call: Call, name: str, volumes: tuple[str, ...], peer: str, rpo: int | None, keep: int, retain: str, no_wait: bool
) -> None:
    """Protect volumes together: said once, at the protected site; the peer makes its side by itself."""

    def tell(doc: GroupDoc) -> None:
        output.line(f"Group {doc.name} is protected here.")
        output.line()
        views.group(doc)

    carry_out(call, GroupCreate(name, volumes, peer, rpo, keep, retain), tell, no_wait=no_wait)


@group.command("list")
@common
def list_(call: Call) -> None:
    """List the groups of this site."""
    docs = call.client().groups()
    if call.as_json:
        output.document(docs)
    else:
        views.groups(docs)


@group.command("show")
@group_argument
@common
def show(call: Call, group: str) -> None:
    """Show one group: its role, state, lag and volumes."""
    doc = call.client().group(group)
    if call.as_json:
        output.document(doc)
    else:
        views.group(doc)


@group.command("set")
@group_argument
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help=KEEP)
@click.option("--retain", metavar="SCHEDULE", help=f"{RETAIN} Empty: by --keep alone.")
@click.option(
    "--rpo",
    metavar="DURATION|none",
    callback=quantities.typed(quantities.duration_or_none),
    help="Sync by itself, so that no more than this is lost; none: only when asked. Said at the protected site.",
)
@no_wait
@common
def set_(call: Call, group: str, keep: int | None, retain: str | None, rpo: int | None, no_wait: bool) -> None:
    """Change which recovery points stay at this site, or what RPO is promised.

    Retention is said where the points are, at the recovery site; what may go is then dropped in the background. The
    newest point, and a point that a snapshot holds, always stay.
    """

    def tell(doc: GroupDoc) -> None:
        beside = f", and {doc.retain}" if doc.retain else ""
        output.line(f"Group {doc.name} keeps the newest {doc.keep} points{beside}.")
        if rpo is not None:
            output.line(f"Its recovery point objective: {words.promise(doc)}.")

    carry_out(call, GroupSet(group, keep, retain, rpo), tell, no_wait=no_wait)


@group.command("remove")
@group_argument
@no_wait
@common
def remove(call: Call, group: str, no_wait: bool) -> None:
    """End the replication of a group at this site; the stores of its volumes stay."""

    def tell(doc: RemovedDoc) -> None:
        output.line(f"Group {doc.removed} is removed here; the stores of its volumes were not touched.")

    carry_out(call, GroupRemove(group), tell, no_wait=no_wait)
