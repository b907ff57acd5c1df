"""leeward events: what happened at this site that an operator may want to know."""

from __future__ import annotations

from collections.abc import Iterable

import rich_click as click

from engine.cli import output, words
from engine.cli.call import Call, common
from engine.requests import EventDoc

FOLLOW_POLL_S = 30.0
MOST = 1000


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(1, MOST),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many, the newest.",
)
@click.option(
    "--after", type=click.IntRange(min=0), metavar="SEQUENCE", help="Those after this sequence, oldest first."
)
@click.option("--follow", is_flag=True, help="Then each new one until Ctrl-C; with --json one document a line.")
@common
def events(call: Call, limit: int, after: int | None, follow: bool) -> None:
    """List events, oldest first."""
    found = call.client().events(-1 if after is None else after, limit)
    if not follow:
        if call.as_json:
            output.document(found)
        else:
            _tell(found)
            if not found:
                output.line("There are no events.")
        return
    try:
        _follow(call, found, after or 0)
    except KeyboardInterrupt:
        return


def _follow(call: Call, found: tuple[EventDoc, ...], after: int) -> None:
    client = call.client()
    while True:
        if call.as_json:
            for event in found:
                output.document(event)
        else:
            _tell(found)
        after = found[-1].sequence if found else after
        found = client.events(after, MOST, FOLLOW_POLL_S)


def _tell(found: Iterable[EventDoc]) -> None:
    for event in found:
        group = f"{event.group}: " if event.group else ""
        output.line(f"{words.moment(event.at)}  {event.level:<7}  {group}{event.message} [{event.code}]")
