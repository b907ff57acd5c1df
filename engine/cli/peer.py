"""leeward peer: the sites that this one is paired with."""

from __future__ import annotations

import rich_click as click

from engine.cli import output, views
from engine.cli.call import Call, common, names_of, no_wait
from engine.cli.waiting import carry_out
from engine.requests import PeerAdd, PeerDoc, PeerRemove, RemovedDoc


@click.group()
def peer() -> None:
    """Pair this site with others, and list them."""


@peer.command("add")
@click.argument("name")
@click.option("--address", required=True, metavar="HOST:PORT", help="Where the peer listens for its peers.")
@click.option(
    "--fingerprint", required=True, metavar="SHA256:HEX", help="Fingerprint that `leeward init` printed at the peer."
)
@click.option("--plain", is_flag=True, help="No TLS: loopback addresses only, and the peer has to say so too.")
@no_wait
@common
def add(call: Call, name: str, address: str, fingerprint: str, plain: bool, no_wait: bool) -> None:
    """Pair this site with the site that has this fingerprint; do the same over there."""

    def tell(doc: PeerDoc) -> None:
        link = "it is connected" if doc.connected else "it will be dialled until it answers"
        output.line(f"Peer {doc.name} at {doc.address} is known here; {link}.")

    carry_out(call, PeerAdd(name, address, fingerprint, plain), tell, no_wait=no_wait)


@peer.command("list")
@common
def list_(call: Call) -> None:
    """List the peers and whether they are connected."""
    docs = call.client().peers()
    if call.as_json:
        output.document(docs)
    else:
        views.peers(docs)


@peer.command("remove")
@click.argument("name", shell_complete=names_of("peers"))
@no_wait
@common
def remove(call: Call, name: str, no_wait: bool) -> None:
    """Forget a peer that no group uses."""

    def tell(doc: RemovedDoc) -> None:
        output.line(f"Peer {doc.removed} is forgotten here.")

    carry_out(call, PeerRemove(name), tell, no_wait=no_wait)
