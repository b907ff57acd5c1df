"""leeward link: how fast this site may send, and does."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, words
from engine.cli.call import Call, common, no_wait
from engine.cli.waiting import carry_out
from engine.requests import LinkDoc, LinkSet


@click.command()
@click.option(
    "--limit",
    metavar="CALENDAR",
    help="From now on: '20M' a second, by day and time '20M; mon-fri 08:00-18:00 5M; sat,sun none' (the last entry that"
    " holds, in the local time of this host); empty: no limit.",
)
@no_wait
@common
def link(call: Call, limit: str | None, no_wait: bool) -> None:
    """Show or change how fast this site may send to its peers: all groups share it, the most urgent first."""
    if limit is not None:
        carry_out(call, LinkSet(limit), _tell, no_wait=no_wait)
        return
    doc = call.client().status().link
    assert doc is not None, "a daemon tells of it"
    if call.as_json:
        output.document(doc)
    else:
        _tell(doc)


def _tell(doc: LinkDoc) -> None:
    output.facts(
        [
            ("limit", doc.limit or "none"),
            ("now", words.rate(doc.limit_bytes_per_s) + f" ({doc.reason})"),
            ("sent", words.rate(doc.sent_bytes_per_s)),
        ]
    )
