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
from engine.operations import (
    aside,
    budget,
    demote,
    documents,
    groups,
    pairing,
    pause,
    peers,
    promote,
    reopen,
    reverse,
    snapshot,
    verify,
    volumes,
)
from engine.operations.context import Progress
from engine.operations.converge import converge, withdraw_all
from engine.requests import (
    Demote,
    GroupCreate,
    GroupDoc,
    GroupRemove,
    GroupSet,
    InvitationDoc,
    LinkDoc,
    LinkSet,
    Pause,
    PeerAdd,
    PeerDoc,
    PeerInvite,
    PeerJoin,
    PeerRemove,
    Promote,
    RemovedDoc,
    Request,
    Restore,
    Resume,
    Reverse,
    SetAsideDoc,
    SetAsideDrop,
    SetAsideExport,
    SetAsideUnexport,
    SnapshotCreate,
    SnapshotDelete,
    SnapshotDoc,
    SnapshotReset,
    Sync,
    Verify,
    VerifyDoc,
    VolumeAdd,
    VolumeDoc,
    VolumeRemove,
    VolumeReopen,
    YieldDoc,
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
            LinkSet: self._link_set,
            GroupCreate: self._group_create,
            GroupSet: self._group_set,
            GroupRemove: self._group_remove,
            SnapshotCreate: self._snapshot_create,
            SnapshotReset: self._snapshot_reset,
            SnapshotDelete: self._snapshot_delete,
            Pause: self._pause,
            Resume: self._pause,
            Promote: self._promote,
            Demote: self._demote,
            Reverse: self._reverse,
            Restore: self._restore,
            SetAsideDrop: self._set_aside_drop,
            SetAsideExport: self._set_aside_export,
            SetAsideUnexport: self._set_aside_unexport,
        }

    def look_up(self, request: Request) -> Asked:
        """Raises UnknownName for a group that is not here."""
        group = self._site.running(request.group) if hasattr(request, "group") else None
        if isinstance(request, Sync):
            return Asked(group, _queued)
        if isinstance(request, Verify):
            return Asked(group, lambda _, progress: self._verify(request, progress))
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
        if running is not None:
            running.retain()
        return documents.volume_doc(self._site.ctx, handle, group.name if group else None)

    def _volume(self, name: str) -> tuple[Any, RunningGroup | None]:
        if name in self._site.free:
            return self._site.free[name], None
        for running in self._site.groups_by_name.values():
            for volume in running.handle.volumes:
                if volume.name == name:
                    return volume, running
        raise UnknownName(what="volume", name=name)

    async def _link_set(self, request: LinkSet, _: str) -> LinkDoc:
        await budget.limit(self._site.ctx, request)
        return documents.link_doc(self._site.ctx)

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
            await groups.change(self._site.ctx, running.handle, request)
        running.retain()
        self._site.news.set()
        link = self._site.ctx.links.get(running.handle.peer)
        if request.rpo_s is not None and link is not None:
            self._site.linked(link)
        return await self._site.group(request.group)

    async def _group_remove(self, request: GroupRemove, _: str) -> RemovedDoc:
        running = self._site.running(request.group)
        async with running.handle.lock:
            await groups.check_removable(self._site.ctx, running.handle)
        await self._site.remove_group(running)
        await withdraw_all(self._site.ctx, running.handle)
        await groups.remove(self._site.ctx, running.handle)
        return RemovedDoc(request.group)

    async def _verify(self, request: Verify, progress: Progress) -> VerifyDoc:
        handle = self._site.running(request.group).handle
        ctx, began = self._site.ctx, self._site.ctx.clock.monotonic()
        found = await verify.verify(ctx, handle, request, progress)
        repaired = 0
        if request.repair and found.differing:
            await verify.mark(ctx, handle, found.differing)
            await self._site.synced(request.group)
            repaired = found.mismatched - await verify.again(ctx, handle, found.differing, strong=request.strong)
        seconds = ctx.clock.monotonic() - began
        return documents.verify_doc(handle, found, repaired=repaired, seconds=seconds)

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

    async def _pause(self, request: Pause | Resume, operation: str) -> GroupDoc:
        await pause.pause(self._site.ctx, self._site.running(request.group).handle, request)
        self._site.news.set()
        return await self._site.group(request.group, operation)

    async def _promote(self, request: Promote, operation: str) -> GroupDoc:
        handle = self._site.running(request.group).handle
        against = "" if request.force else await promote.objection(self._site.ctx, handle)
        async with handle.lock:
            await promote.promote(self._site.ctx, handle, request, against=against)
        return await self._site.group(request.group, operation)

    async def _demote(self, request: Demote, operation: str) -> GroupDoc:
        await demote.demote(self._site.ctx, self._site.running(request.group).handle, request)
        return await self._site.group(request.group, operation)

    async def _reverse(self, request: Reverse, _: str) -> YieldDoc:
        return await reverse.reverse(self._site.ctx, self._site.running(request.group).handle, request)

    async def _restore(self, request: Restore, _: str) -> YieldDoc:
        return await reverse.restore(self._site.ctx, self._site.running(request.group).handle, request)

    async def _set_aside_drop(self, request: SetAsideDrop, _: str) -> RemovedDoc:
        running = self._site.running(request.group)
        await aside.drop(self._site.ctx, running.handle, request.name)
        running.retain()
        return RemovedDoc(request.name)

    async def _set_aside_export(self, request: SetAsideExport, _: str) -> SetAsideDoc:
        return await aside.export(self._site.ctx, self._site.running(request.group).handle, request.name)

    async def _set_aside_unexport(self, request: SetAsideUnexport, _: str) -> SetAsideDoc:
        return await aside.unexport(self._site.ctx, self._site.running(request.group).handle, request.name)


async def _queued(_: str, __: Progress) -> None:
    raise AssertionError("a sync runs in its group's queue")
