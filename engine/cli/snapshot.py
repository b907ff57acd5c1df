"""leeward snapshot: writable throw-away copies of recovery points."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, quantities, views, words
from engine.cli.call import Call, common, group_argument, names_of, no_wait
from engine.cli.waiting import carry_out
from engine.requests import RemovedDoc, SnapshotCreate, SnapshotDelete, SnapshotDoc, SnapshotReset


@click.group()
def snapshot() -> None:
    """Create, list, reset and delete writable copies of recovery points."""


@snapshot.command("create")
@group_argument
@click.option(
    "--point",
    metavar="POINT",
    help="The recovery point to copy, by its number or id as `leeward points` lists them.  [default: newest]",
)
@click.option("--name", metavar="NAME", help="Name of the snapshot.  [default: the daemon picks one]")
@click.option(
    "--for",
    "for_s",
    metavar="DURATION",
    callback=quantities.typed(quantities.duration),
    help="Delete it by itself after this long: 30m, 4h, 2d.  [default: it stays]",
)
@no_wait
@common
def create(call: Call, group: str, point: str | None, name: str | None, for_s: int | None, no_wait: bool) -> None:
    """Export a writable copy of a recovery point while replication goes on.

    There may be several at once, of the same point or of different ones; each holds its point. With --for it goes by
    itself, at the next start of the daemon if that is down when the time is over.
    """
    carry_out(call, SnapshotCreate(group, point, name, for_s), _tell, no_wait=no_wait)


def _tell(doc: SnapshotDoc) -> None:
    until = f", until {words.moment(doc.expires_at)}" if doc.expires_at else ""
    output.line(f"Snapshot {doc.name} of {doc.group}, point {words.point(doc.point)}, can be written now{until}:")
    for volume in doc.volumes:
        output.line(f"  {volume.name}  {volume.export}")


@snapshot.command("reset")
@group_argument
@click.argument("name", shell_complete=names_of("snapshots"))
@no_wait
@common
def reset(call: Call, group: str, name: str, no_wait: bool) -> None:
    """Throw away what was written to a snapshot: it shows its recovery point again.

    Hosts that use it are disconnected first. Its name, its exports and the time until which it stays do not change.
    """
    carry_out(call, SnapshotReset(group, name), _tell, no_wait=no_wait)


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
