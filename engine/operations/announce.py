"""A group is made once, at the protected site; here the peer hears of it and makes it too.

For each volume the peer takes a store prepared there under the same name, at least as large as the volume, else
it makes a sparse file in its `store_dir`. If the peer is away this happens at the next contact. Repeating it
changes nothing; another RPO is taken over.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from blockstore.errors import StoreTooSmall
from blockstore.stores.kinds import make_store
from engine import model
from engine.errors import NameTaken, RefusedByState, StoreLimitReached
from engine.link.peer_link import PeerLink
from engine.model import GroupId, Role, VolumeId, VolumeState
from engine.operations.context import Context
from engine.operations.conversation import Conversation
from engine.operations.groups import check_retention
from engine.operations.handles import GroupHandle
from engine.operations.volumes import check_name
from engine.records import groups, retention, volumes
from engine.records.columns import Connection
from engine.wire.messages import GroupAccepted, GroupOffer, VolumeOffer


async def announce(ctx: Context, handle: GroupHandle, talk: Conversation) -> None:
    """Tell the peer of this group unless it knows. Raises LinkLost, PeerRefused."""
    record = await ctx.database.transact(lambda conn: groups.by_id(conn, handle.id))
    if record.announced or record.role is Role.RECOVERY:
        return
    offer = GroupOffer(
        group=record.id,
        name=record.name,
        term=record.term,
        keep=record.keep,
        rpo_s=record.rpo_s,
        retain=await ctx.database.read(lambda conn: retention.schedule_of(conn, handle.id)),
        volumes=tuple(
            VolumeOffer(id=v.record.id, name=v.name, size_bytes=v.record.size_bytes, seed=v.record.hash_seed)
            for v in handle.volumes
        ),
    )
    await talk.ask(offer, GroupAccepted)
    await ctx.database.transact(lambda conn: groups.announced(conn, record.id))


async def make_offered(ctx: Context, link: PeerLink, offer: GroupOffer) -> model.Group:
    """Make the group that the peer offers, as recovery side. Raises NameTaken, StoreTooSmall, RefusedByState."""
    _check(offer)
    found = await ctx.database.transact(lambda conn: groups.find(conn, offer.name))
    if found is not None:
        if found.id != offer.group:
            raise NameTaken(what="group", name=offer.name)
        return await ctx.database.transact(lambda conn: groups.promise(conn, found.id, offer.rpo_s))
    prepared = await ctx.database.transact(lambda conn: [volumes.find(conn, volume.name) for volume in offer.volumes])
    await _check_limit(
        ctx, sum(want.size_bytes for old, want in zip(prepared, offer.volumes, strict=True) if old is None)
    )
    members = [
        _taken(old, want, offer) if old is not None else await _made(ctx, want)
        for old, want in zip(prepared, offer.volumes, strict=True)
    ]
    group = model.Group(
        id=GroupId(offer.group),
        name=offer.name,
        version=0,
        role=Role.RECOVERY,
        term=offer.term,
        peer=link.peer.name,
        rpo_s=offer.rpo_s,
        keep=offer.keep,
        announced=True,
        common=None,
        equal_at=None,
        generation_due=False,
        generation=None,
        pending=None,
        incoming=None,
        created_at=ctx.clock.now(),
    )

    def commit(conn: Connection) -> None:
        groups.insert(conn, group)
        retention.set_schedule(conn, group.id, offer.retain.strip())
        for old, member in zip(prepared, members, strict=True):
            if old is not None:
                volumes.set_hash_seed(conn, old.id, member.hash_seed)
                volumes.fit(conn, old.id, size_bytes=member.size_bytes, store_bytes=member.store_bytes)
            else:
                volumes.insert(conn, member)
        volumes.assign(conn, group.id, [member.id for member in members])

    await ctx.database.transact(commit)
    return group


def _check(offer: GroupOffer) -> None:
    """Names become paths and export names: a peer's words are checked like anybody's. Raises BadValue."""
    check_name("group", offer.name)
    for volume in offer.volumes:
        check_name("volume", volume.name)
    check_retention(max(1, offer.keep), offer.retain)


async def _check_limit(ctx: Context, wanted_bytes: int) -> None:
    """Raises StoreLimitReached if stores of that size, made here, would pass what the operator allows."""
    limit = ctx.settings.store_limit_bytes
    if limit is None or not wanted_bytes:
        return
    folder = str(Path(ctx.settings.store_dir)) + "/"
    made = sum(v.size_bytes for v in await ctx.database.read(volumes.all) if v.store.startswith(folder))
    if made + wanted_bytes > limit:
        raise StoreLimitReached(folder=folder, made_bytes=made, wanted_bytes=wanted_bytes, limit_bytes=limit)


def _taken(old: model.Volume, want: VolumeOffer, offer: GroupOffer) -> model.Volume:
    """A volume that was prepared here under the offered name, with the size and hash seed of the peer's."""
    if not old.prepared or old.group is not None:
        raise RefusedByState(
            operation="group create", group=offer.name, reason=f"volume {old.name} at this site is not free for it"
        )
    if old.size_bytes < want.size_bytes:
        raise StoreTooSmall(path=old.store, size_bytes=old.size_bytes, needed_bytes=want.size_bytes)
    larger = old.size_bytes if old.size_bytes > want.size_bytes else None
    return replace(old, size_bytes=want.size_bytes, store_bytes=larger, hash_seed=want.seed)


async def _made(ctx: Context, want: VolumeOffer) -> model.Volume:
    folder = Path(ctx.settings.store_dir)
    ctx.disk.make_dir(str(folder))
    path = await ctx.pool.call(_new_store, ctx, folder, want)
    return model.Volume(
        id=VolumeId(want.id),
        name=want.name,
        store=path,
        size_bytes=want.size_bytes,
        prepared=False,
        state=VolumeState.ACTIVE,
        reason="",
        group=None,
        position=0,
        tracking=None,
        nonce=bytes(16),
        writes=0,
        hash_seed=want.seed,
        wwn=model.new_wwn(ctx.clock.token(13)),
        identity=None,
        top=None,
    )


def _new_store(ctx: Context, folder: Path, want: VolumeOffer) -> str:
    """Make a sparse file under a name that is free: what lies in the folder already is somebody's. Blocking."""
    for name in (want.name, f"{want.name}-{want.id.hex()}"):
        path = str(folder / f"{name}.img")
        if not ctx.disk.exists(path):
            make_store(ctx.disk, path, want.size_bytes)
            return path
    return path  # named by the volume's own id: an offer that was cut short made it, and nothing is in it yet


async def members(ctx: Context, group: model.Group) -> tuple[model.Volume, ...]:
    """The recorded volumes of a group, in its order."""
    return await ctx.database.read(lambda conn: volumes.of_group(conn, group.id))
