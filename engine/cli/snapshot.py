"""leeward snapshot: writable throw-away copies of recovery points."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, views, words
from engine.cli.call import Call, common, group_argument, names_of, no_wait
from engine.cli.waiting import carry_out
from engine.requests import RemovedDoc, SnapshotCreate, SnapshotDelete, SnapshotDoc


@click.group()
def snapshot() -> None:
    """Create, list and delete writable copies of recovery points."""


@snapshot.command("create")
@group_argument
@click.option(
    "--point", metavar="ID", help="The recovery point to copy, as `leeward points` lists it.  [default: newest]"
)
@click.option("--name", metavar="NAME", help="Name of the snapshot.  [default: the daemon picks one]")
@no_wait
@common
def create(call: Call, group: str, point: str | None, name: str | None, no_wait: bool) -> None:
    """Export a writable copy of a recovery point while replication goes on."""

    def tell(doc: SnapshotDoc) -> None:
        output.line(f"Snapshot {doc.name} of {doc.group}, point {words.point(doc.point)}, can be written now:")
        for volume in doc.volumes:
            output.line(f"  {volume.name}  {volume.export}")

    carry_out(call, SnapshotCreate(group, point, name), tell, no_wait=no_wait)


@snapshot.command("list")
@click.option("--group", metavar="GROUP", shell_complete=names_of("groups"), help="Only those of this group.")
@common
def list_(call: Call, group: str | None) -> None:
    """List the snapshots of this site."""
    docs = call.client().snapshots(group)
    if call.as_json:
        output.document(docs)
    else:
        views.snapshots(docs)


@snapshot.command("delete")
@group_argument
@click.argument("name", shell_complete=names_of("snapshots"))
@no_wait
@common
def delete(call: Call, group: str, name: str, no_wait: bool) -> None:
    """Withdraw a snapshot and drop what was written to it."""

    def tell(doc: RemovedDoc) -> None:
        output.line(f"Snapshot {doc.removed} is gone, and what was written to it.")

    carry_out(call, SnapshotDelete(group, name), tell, no_wait=no_wait)
