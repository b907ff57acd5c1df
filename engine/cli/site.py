"""leeward init, leeward serve: a site is made, and its daemon runs.

The only commands that work without a daemon on a data directory. This module must never know what they do.
"""

from __future__ import annotations

import rich_click as click

from engine.cli import output
from engine.cli.call import Call, common


@click.command()
@click.option("--name", required=True, metavar="SITE", help="Name of this site, as its peers will see it.")
@click.option(
    "--listen", default="0.0.0.0:7450", show_default=True, metavar="HOST:PORT", help="Where peers reach this site."
)
@click.option(
    "--nbd", default="127.0.0.1:10809", show_default=True, metavar="HOST:PORT", help="Where hosts reach its exports."
)
@click.option(
    "--api", default="127.0.0.1:8443", show_default=True, metavar="HOST:PORT", help="Where its TCP API will listen."
)
@common
def init(call: Call, name: str, listen: str, nbd: str, api: str) -> None:
    """Make a site: its data directory, identity and settings."""
    from engine.setup import create_site

    doc = create_site(call.data, name, listen, nbd, api)
    if call.as_json:
        output.document(doc)
        return
    output.line(f"Site {doc.name} is ready in {doc.data}.")
    output.facts(
        [
            ("site", doc.site_id),
            ("fingerprint", doc.fingerprint),
            ("peers", doc.listen),
            ("exports", doc.nbd),
            ("API", doc.api),
        ]
    )
    output.line(f"Start it with `leeward serve --data {doc.data}`.")


@click.command()
@common
@click.pass_context
def serve(ctx: click.Context, call: Call) -> None:
    """Run the daemon of a site until it is told to stop."""
    from engine.serve import run

    ctx.exit(run(call.data))
