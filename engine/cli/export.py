"""leeward export: how hosts reach volumes and snapshots."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, words
from engine.cli.call import Call, common


@click.group()
def export() -> None:
    """List what hosts can reach."""


@export.command("list")
@common
def list_(call: Call) -> None:
    """List the exports of this site."""
    docs = call.client().exports()
    if call.as_json:
        output.document(docs)
        return
    rows = [(doc.name, doc.kind, doc.group, doc.volume, words.yes(not doc.read_only), doc.uri) for doc in docs]
    output.table(("export", "kind", "group", "volume", "writable", "uri"), rows, "There are no exports.")
