"""leeward volume: the stores of this site that are, or will be, under replication."""

from __future__ import annotations

import os

import rich_click as click

from engine.cli import output, quantities, views, words
from engine.cli.call import Call, common, names_of, no_wait
from engine.cli.waiting import carry_out
from engine.requests import RemovedDoc, VolumeAdd, VolumeDoc, VolumeRemove, VolumeReopen


@click.group()
def volume() -> None:
    """Add, list, remove and reopen volumes."""


@volume.command("add")
@click.argument("name")
@click.option("--store", required=True, metavar="PATH", help="A regular file or a block device.")
@click.option(
    "--size",
    metavar="SIZE",
    callback=quantities.typed(quantities.size),
    help="Make the store, sparse, if it is missing: 512M, 10G.",
)
@click.option(
    "--recovery",
    is_flag=True,
    help="Keep it for a group of the peer that has a volume of this name and at most this size.",
)
@no_wait
@common
def add(call: Call, name: str, store: str, size: int | None, recovery: bool, no_wait: bool) -> None:
    """Put a store under the care of this site."""

    def tell(doc: VolumeDoc) -> None:
        what = "waits for a group of the peer" if recovery else "can be put into a group"
        output.line(f"Volume {doc.name} of {words.size(doc.size)} on {doc.store} {what}.")

    # The daemon has another working directory. Not resolved: /dev/disk/by-id names have to stay.
    carry_out(call, VolumeAdd(name, os.path.abspath(store), size, recovery), tell, no_wait=no_wait)


@volume.command("list")
@common
def list_(call: Call) -> None:
    """List the volumes of this site."""
    docs = call.client().volumes()
    if call.as_json:
        output.document(docs)
    else:
        views.volumes(docs)


@volume.command("remove")
@click.argument("name", shell_complete=names_of("volumes"))
@no_wait
@common
def remove(call: Call, name: str, no_wait: bool) -> None:
    """Forget a volume that is in no group; its store stays as it is."""

    def tell(doc: RemovedDoc) -> None:
        output.line(f"Volume {doc.removed} is forgotten here; its store was not touched.")

    carry_out(call, VolumeRemove(name), tell, no_wait=no_wait)


@volume.command("reopen")
@click.argument("name", shell_complete=names_of("volumes"))
@no_wait
@common
def reopen(call: Call, name: str, no_wait: bool) -> None:
    """Take a failed volume back after its disk was repaired; the next sync compares all of it."""

    def tell(doc: VolumeDoc) -> None:
        output.line(f"Volume {doc.name} is {doc.state} again.")

    carry_out(call, VolumeReopen(name), tell, no_wait=no_wait)
