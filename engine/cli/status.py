"""leeward status: the whole site in one picture, once or again and again."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, views
from engine.cli.call import Call, common, names_of

WATCH_EVERY_S = 1.0


@click.command()
@click.argument("group", required=False, shell_complete=names_of("groups"))
@click.option("--watch", is_flag=True, help="Again each second until Ctrl-C; with --json one document a line.")
@common
def status(call: Call, group: str | None, watch: bool) -> None:
    """Show the site, its peers and its groups; exit 0 says that the daemon is up and serves."""
    if not watch:
        _show(call, group)
        return
    try:
        _watch(call, group)
    except KeyboardInterrupt:
        return


def _watch(call: Call, group: str | None) -> None:
    client = call.client()
    newest = client.events(-1, limit=1)
    after = newest[-1].sequence if newest else 0
    while True:
        if not call.as_json:
            output.clear()
        _show(call, group)
        # Waits in the daemon for an event, so that the picture changes as soon as something happens.
        for event in client.events(after, wait_s=WATCH_EVERY_S):
            after = event.sequence


def _show(call: Call, group: str | None) -> None:
    doc = call.client().status(group)
    if call.as_json:
        output.document(doc)
    else:
        views.status(doc)
