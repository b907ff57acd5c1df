"""leeward jobs: operations that were asked for, and how they go; they belong to the daemon, not to who asked."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, views
from engine.cli.call import Call, common
from engine.cli.waiting import waited


@click.command()
@click.argument("id", required=False)
@click.option("--wait", is_flag=True, help="With an ID: wait for its end; the exit status is that of the operation.")
@common
def jobs(call: Call, id: str | None, wait: bool) -> None:
    """List operations, newest first, or show the one with this ID."""
    if id is None:
        if wait:
            raise click.UsageError("--wait needs the ID of an operation.", click.get_current_context())
        docs = call.client().jobs()
        if call.as_json:
            output.document(docs)
        else:
            views.jobs(docs)
        return
    doc = call.client().job(id)
    if wait:
        doc = waited(call, doc)
    if call.as_json:
        output.document(doc)
    else:
        views.job(doc)
