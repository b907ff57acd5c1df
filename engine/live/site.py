"""The running site: groups by name and id, requests that become jobs, documents for whoever asks.

A name of an operator ends here: from here on it is a group. What a request does is told in `operations`;
this module must never do it itself.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from engine import model
from engine.errors import RefusedByState, UnknownName
from engine.link.peer_link import PeerLink
from engine.live.events import Events
from engine.live.group import RunningGroup
from engine.live.jobs import Jobs, Running
from engine.live.requests import Asked, Table
from engine.operations import announce, aside, documents, volumes
from engine.operations import peers as peer_stories
from engine.operations.contact import contact
from engine.operations.context import Context
from engine.operations.conversation import converse
from engine.operations.handles import GroupHandle, VolumeHandle
from engine.records import groups, peers, points, promises, retention
from engine.requests import (
    EventDoc,
    ExportDoc,
    GroupDoc,
    JobDoc,
    PeerDoc,
    PointDoc,
    Request,
    SetAsideDoc,
    SiteDoc,
    SnapshotDoc,
    StatusDoc,
    Sync,
    VolumeDoc,
    recorded,
)
from engine.version import VERSION
from engine.wire.messages import GroupOffer


class Site:
    """One site while its daemon runs; the `Service` of the API."""

    def __init__(self, ctx: Context, events: Events) -> None:
        self.ctx = ctx
        self.groups_by_name: dict[str, RunningGroup] = {}
        self.free: dict[str, VolumeHandle] = {}
        """Volumes that no group holds."""
        self.jobs_here = Jobs(ctx)
        self.news = asyncio.Event()
        """Set when a recovery copy may have become newer: the scheduler clears it and looks."""
        self._events = events
        self._table = Table(self)
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- requests

    async def submit(self, request: Request, key: str | None) -> JobDoc:
        """As Service.submit."""
        asked = self._table.look_up(request)
        async with self._one_at_a_time:
            key = key or json.dumps([request.kind, recorded(request)])
            joined = self._joined(request, key)
            if joined is not None:
                return await self.jobs_here.doc(joined.record.id)
            job = await self.jobs_here.start(request, key, asked.group.handle.name if asked.group else None)
            self._begin(job, request, asked)
        return await self.jobs_here.doc(job.record.id)

    def _joined(self, request: Request, key: str) -> Running | None:
        if isinstance(request, Sync):
            return self.running(request.group).waiting
        return self.jobs_here.joined(key)

    def _begin(self, job: Running, request: Request, asked: Asked) -> None:
        if isinstance(request, Sync):
            self.running(request.group).queue_sync(job)
        else:
            self.spawn(self.jobs_here.run(job, asked.work))

    async def synced(self, group: str) -> None:
        """A sync of the group that begins now, or waits for its turn, is over. Raises RefusedByState if it failed."""
        job = await self.submit(Sync(group), None)
        while job.finished_at is None:
            job = await self.job(job.id, 60.0, job.revision)
        if job.error is not None:
            raise RefusedByState(operation="verify", group=group, reason=f"its sync failed: {job.error.message}")

    def can_resume_sync(self, record: model.Job) -> bool:
        """True if its group is here and has room for it."""
        group = self.groups_by_name.get(record.group or "")
        return group is not None and group.waiting is None

    def resume_sync(self, record: model.Job) -> None:
        """A sync that a restart cut runs again, under its id and with a new capture."""
        self.running(record.group or "").queue_sync(self.jobs_here.adopt(record))

    def spawn(self, work: Any) -> None:
        """Run it beside everything else; it is waited for when the site closes."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def running(self, name: str) -> RunningGroup:
        """The group of that name. Raises UnknownName."""
        found = self.groups_by_name.get(name)
        if found is None:
            raise UnknownName(what="group", name=name)
        return found

    def add_group(self, handle: GroupHandle) -> RunningGroup:
        """A group that is recorded and open joins what runs."""
        for volume in handle.volumes:
            self.free.pop(volume.name, None)
        running = self.groups_by_name[handle.name] = RunningGroup(self.ctx, self.jobs_here, handle, self.news.set)
        running.begin()
        return running

    async def remove_group(self, running: RunningGroup) -> None:
        """A group that is forgotten leaves; its volumes are free again."""
        if running.is_syncing:
            raise RefusedByState(operation="group remove", group=running.handle.name, reason="a sync of it runs")
        del self.groups_by_name[running.handle.name]
        await running.close()
        for volume in running.handle.volumes:
            self.free[volume.name] = volume

    # --- links

    async def offered(self, link: PeerLink, offer: GroupOffer) -> None:
        """The peer made a group: make it here too."""
        async with self._one_at_a_time:
            record = await announce.make_offered(self.ctx, link, offer)
            if record.name not in self.groups_by_name:
                handle = await self._open_offered(record)
                self.add_group(handle)
                self.ctx.report("info", "group_made", f"Group {record.name} was made by the peer.", group=record.name)

    async def _open_offered(self, record: model.Group) -> GroupHandle:
        handle = GroupHandle(id=record.id, name=record.name, peer=record.peer)
        for volume in await announce.members(self.ctx, record):
            before = self.free.pop(volume.name, None)
            if before is not None and before.open is not None:
                await self.ctx.pool.call(before.open.close)
            opened = VolumeHandle(volume)
            await volumes.try_open(self.ctx, opened)
            handle.volumes.append(opened)
        return handle

    def linked(self, link: PeerLink) -> None:
        """A link stands: note whose it is, and tell the peer of groups that it does not know yet."""
        if link.peer.id is None:
            self.spawn(peer_stories.know(self.ctx, link.peer, model.SiteId(link.hello.site_id)))
        for running in self.groups_by_name.values():
            if running.handle.peer == link.peer.name and not running.is_syncing and running.handle.talk is None:
                self.spawn(self._announce(running.handle, link))

    async def _announce(self, handle: GroupHandle, link: PeerLink) -> None:
        if handle.talk is not None:
            return
        try:
            async with converse(handle, link) as talk:
                await announce.announce(self.ctx, handle, talk)
                record = await self.ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
                if record.common is not None and record.role is not model.Role.RECOVERY:
                    await contact(self.ctx, handle, talk)
        except Exception as error:
            # The next contact tries again; until then `group show` says that the peer does not know the group.
            self.ctx.report("warning", "announce_failed", f"Group {handle.name}: {error}", group=handle.name)

    # --- documents

    async def status(self, group: str | None) -> StatusDoc:
        """As Service.status."""
        shown = (await self.group(group),) if group is not None else await self.groups()
        site = SiteDoc(name=self.ctx.site.name, id=self.ctx.site.id.hex(), version=VERSION)
        snapshots = await self.snapshots(group)
        return StatusDoc(
            site=site, peers=await self.peers(), groups=shown, snapshots=snapshots, link=documents.link_doc(self.ctx)
        )

    async def groups(self) -> tuple[GroupDoc, ...]:
        return tuple([await self.group(name) for name in sorted(self.groups_by_name)])

    async def group(self, name: str, operation: str | None = None) -> GroupDoc:
        handle = self.running(name).handle
        record = await self.ctx.database.read(lambda conn: groups.by_id(conn, handle.id))
        kept = await self.ctx.database.read(lambda conn: retention.kept(conn, handle.id))
        turns = await self.ctx.database.read(lambda conn: promises.of_group(conn, handle.id))
        return documents.group_doc(self.ctx, record, handle, kept, turns, operation)

    async def peers(self) -> tuple[PeerDoc, ...]:
        found = await self.ctx.database.read(peers.all)
        return tuple(documents.peer_doc(self.ctx, peer) for peer in found)

    async def volumes(self) -> tuple[VolumeDoc, ...]:
        docs = [documents.volume_doc(self.ctx, volume, None) for volume in self.free.values()]
        for running in self.groups_by_name.values():
            docs += [documents.volume_doc(self.ctx, v, running.handle.name) for v in running.handle.volumes]
        return tuple(sorted(docs, key=_name))

    async def points(self, group: str) -> tuple[PointDoc, ...]:
        handle = self.running(group).handle
        found = await self.ctx.database.read(lambda conn: points.of_group(conn, handle.id))
        space = await self.ctx.database.read(lambda conn: retention.space(conn, handle.id))
        return tuple(documents.point_doc(point, space.get(point.id, 0)) for point in found)

    async def snapshots(self, group: str | None) -> tuple[SnapshotDoc, ...]:
        shown = [self.running(group)] if group is not None else list(self.groups_by_name.values())
        return tuple(
            documents.snapshot_doc(self.ctx, running.handle, snapshot)
            for running in shown
            for snapshot in running.handle.snapshots.values()
        )

    async def set_asides(self, group: str) -> tuple[SetAsideDoc, ...]:
        return await aside.listed(self.ctx, self.running(group).handle)

    async def exports(self) -> tuple[ExportDoc, ...]:
        docs = [
            doc for running in self.groups_by_name.values() for doc in documents.export_docs(self.ctx, running.handle)
        ]
        return tuple(sorted(docs, key=_name))

    async def events(self, after: int, limit: int, wait_s: float) -> tuple[EventDoc, ...]:
        return await self._events.after(after, limit, wait_s)

    async def jobs(self) -> tuple[JobDoc, ...]:
        return await self.jobs_here.recent()

    async def job(self, id: str, wait_s: float, seen: int | None) -> JobDoc:  # the Service's word
        return await self.jobs_here.wait(id, wait_s, seen)

    # --- the end

    async def close(self) -> None:
        """End what runs; jobs that are cut short are told of at the next start."""
        for running in list(self.groups_by_name.values()):
            await running.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _name(doc: VolumeDoc | ExportDoc) -> str:
    return doc.name
