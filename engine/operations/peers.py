"""Peers come and go, by address and typed fingerprint; by invitation: `pairing.py`. Takes effect at once.

This module must never wait for the peer.
"""

from __future__ import annotations

from engine import model
from engine.errors import BadValue
from engine.link.identity import parse_fingerprint
from engine.operations.context import Context
from engine.operations.volumes import check_name
from engine.records import peers
from engine.requests import PeerAdd
from engine.settings import parse_address

LOOPBACK = ("127.", "::1", "localhost")


async def add(ctx: Context, request: PeerAdd) -> model.Peer:
    """Trust a site from now on, and dial it. Raises BadValue, NameTaken."""
    check_name("peer", request.name)
    try:
        address = parse_address(request.address)
    except ValueError as error:
        raise BadValue(what="address", value=request.address, reason=str(error)) from None
    fingerprint = parse_fingerprint(request.fingerprint)
    if request.plain and not address.host.startswith(LOOPBACK):
        reason = "--plain is without encryption and only for loopback addresses"
        raise BadValue(what="address", value=request.address, reason=reason)
    peer = model.Peer(request.name, str(address), fingerprint, request.plain, None)
    await ctx.database.transact(lambda conn: peers.insert(conn, peer, ctx.clock.now()))
    await refresh(ctx)
    return peer


async def remove(ctx: Context, name: str) -> None:
    """Trust it no more; its link ends. Raises UnknownName, RefusedByState while a group replicates to it."""
    await ctx.database.transact(lambda conn: peers.delete(conn, name))
    await refresh(ctx)


async def refresh(ctx: Context) -> None:
    """Make the links match the recorded peers."""
    ctx.links.set_peers(await ctx.database.read(peers.all))


async def know(ctx: Context, peer: model.Peer, site: model.SiteId) -> None:
    """The first contact tells which site answers to the pinned certificate; another one later is refused."""
    await ctx.database.transact(lambda conn: peers.set_id(conn, peer.name, site))
    await refresh(ctx)
