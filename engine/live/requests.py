"""Request type -> the story that answers it, and what is checked before it becomes a job.

One row a request. The work of a row runs as a job and returns the request's document. This module must
never hold a story.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import UnknownName
from engine.live.group import RunningGroup
from engine.model import Role
from engine.operations import documents, groups, pairing, peers, promote, reopen, snapshot, volumes
from engine.operations.context import Progress
from engine.operations.converge import converge, withdraw_all
from engine.pairing_requests import InvitationDoc, PeerInvite, PeerJoin
from engine.records import groups as group_records
from engine.requests import (
    GroupCreate,
    GroupDoc,
    GroupRemove,
    GroupSet,
    PeerAdd,
    PeerDoc,
    PeerRemove,
    Promote,
    RemovedDoc,
    Request,
    SnapshotCreate,
    SnapshotDelete,
    SnapshotDoc,
    SnapshotReset,
    Sync,
    VolumeAdd,
    VolumeDoc,
    VolumeRemove,
    VolumeReopen,
)

if TYPE_CHECKING:
    from engine.live.site import Site


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was understood: its group, if it is about one, and its work."""

    group: RunningGroup | None
    work: Callable[[str, Progress], Awaitable[Any]]


class Table:
    """The rows."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows: dict[type[Any], Callable[[Any, str], Awaitable[Any]]] = {
            PeerAdd: self._peer_add,
            PeerInvite: self._peer_invite,
            PeerJoin: self._peer_join,
            PeerRemove: self._peer_remove,
            VolumeAdd: self._volume_add,
            VolumeRemove: self._volume_remove,
            VolumeReopen: self._volume_reopen,
            GroupCreate: self._group_create,
            GroupSet: self._group_set,
            GroupRemove: self._group_remove,
            SnapshotCreate: self._snapshot_create,
            SnapshotReset: self._snapshot_reset,
            SnapshotDelete: self._snapshot_delete,
            Promote: self._promote,
        }

    def look_up(self, request: Request) -> Asked:
        """Raises UnknownName for a group that is not here."""
        group = self._site.running(request.group) if hasattr(request, "group") else None
        if isinstance(request, Sync):
            return Asked(group, _queued)
        row = self._rows[type(request)]
        return Asked(group, lambda id, _: row(request, id))

    async def _peer_add(self, request: PeerAdd, _: str) -> PeerDoc:
        return documents.peer_doc(self._site.ctx, await peers.add(self._site.ctx, request))

    async def _peer_invite(self, request: PeerInvite, _: str) -> InvitationDoc:
        return await pairing.invite(self._site.ctx, request)

    async def _peer_join(self, request: PeerJoin, _: str) -> PeerDoc:
        return documents.peer_doc(self._site.ctx, await pairing.join(self._site.ctx, request))

    async def _peer_remove(self, request: PeerRemove, _: str) -> RemovedDoc:
        await peers.remove(self._site.ctx, request.name)
        return RemovedDoc(request.name)

    async def _volume_add(self, request: VolumeAdd, _: str) -> VolumeDoc:
        handle = self._site.free[request.name] = await volumes.add(self._site.ctx, request)
        return documents.volume_doc(self._site.ctx, handle, None)

    async def _volume_remove(self, request: VolumeRemove, _: str) -> RemovedDoc:
        handle, _group = self._volume(request.name)
        await volumes.remove(self._site.ctx, handle)
        del self._site.free[request.name]
        return RemovedDoc(request.name)

    async def _volume_reopen(self, request: VolumeReopen, _: str) -> VolumeDoc:
        handle, running = self._volume(request.name)
        group = running.handle if running else None
        await reopen.reopen(self._site.ctx, handle, group)
        return documents.volume_doc(self._site.ctx, handle, group.name if group else None)

    def _volume(self, name: str) -> tuple[Any, RunningGroup | None]:
        if name in self._site.free:
            return self._site.free[name], None
        for running in self._site.groups_by_name.values():
            for volume in running.handle.volumes:
                if volume.name == name:
                    return volume, running
        raise UnknownName(what="volume", name=name)

    async def _group_create(self, request: GroupCreate, operation: str) -> GroupDoc:
        handle = await groups.create(self._site.ctx, request, self._site.free)
        self._site.add_group(handle)
        await converge(self._site.ctx, handle)
        link = self._site.ctx.links.get(handle.peer)
        if link is not None:
            self._site.linked(link)
        return await self._site.group(request.name, operation)

    async def _group_set(self, request: GroupSet, _: str) -> GroupDoc:
        running = self._site.running(request.group)
        async with running.handle.lock:
            await groups.set_retention(self._site.ctx, running.handle, request)
        running.retain()
        return await self._site.group(request.group)

    async def _group_remove(self, request: GroupRemove, _: str) -> RemovedDoc:
        running = self._site.running(request.group)
        async with running.handle.lock:
            await groups.check_removable(self._site.ctx, running.handle)
        await self._site.remove_group(running)
        await withdraw_all(self._site.ctx, running.handle)
        await groups.remove(self._site.ctx, running.handle)
        return RemovedDoc(request.group)

    async def _snapshot_create(self, request: SnapshotCreate, _: str) -> SnapshotDoc:
        handle = self._site.running(request.group).handle
        async with handle.lock:
            made = await snapshot.create(self._site.ctx, handle, request)
            await converge(self._site.ctx, handle)
        return documents.snapshot_doc(self._site.ctx, handle, made)

    async def _snapshot_reset(self, request: SnapshotReset, _: str) -> SnapshotDoc:
        running = self._site.running(request.group)
        async with running.handle.lock:
            made = await snapshot.reset(self._site.ctx, running.handle, request)
            await converge(self._site.ctx, running.handle)
        running.tidy()
        return documents.snapshot_doc(self._site.ctx, running.handle, made)

    async def _snapshot_delete(self, request: SnapshotDelete, _: str) -> RemovedDoc:
        running = self._site.running(request.group)
        async with running.handle.lock:
            await snapshot.delete(self._site.ctx, running.handle, request)
        running.tidy()
        return RemovedDoc(request.name)

    async def _promote(self, request: Promote, operation: str) -> GroupDoc:
        handle = self._site.running(request.group).handle
        link = self._site.ctx.links.get(handle.peer)
        record = await self._site.ctx.database.read(lambda conn: group_records.by_id(conn, handle.id))
        peer_is_protected = link is not None and record.role is Role.RECOVERY
        async with handle.lock:
            await promote.promote(self._site.ctx, handle, request, peer_is_protected=peer_is_protected)
        return await self._site.group(request.group, operation)


async def _queued(_: str, __: Progress) -> None:
    raise AssertionError("a sync runs in its group's queue")
