"""A site in memory behind a real API on a real unix socket: what clients and the command line are tested against.

Groups, volumes and points are documents in dictionaries; a job runs as a task. A sync stops at `gate` after its
first progress, so a test decides when it goes on. The server runs in a thread with its own uvloop, as a daemon
would, and `ApiThread.on_loop` touches the site from a test.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from engine import requests as ask
from engine.api.server import ApiServer, serve_api
from engine.errors import NameTaken, PeerUnreachable, RefusedByState, UnknownName
from engine.requests import (
    EventDoc,
    ExportDoc,
    GroupDoc,
    JobDoc,
    PeerDoc,
    PointDoc,
    ProgressDoc,
    RemovedDoc,
    SiteDoc,
    SnapshotDoc,
    SnapshotVolumeDoc,
    StatusDoc,
    SyncDoc,
    VolumeDoc,
    error_doc,
)

AT = "2026-11-02T13:48:24Z"
MIB = 1 << 20
T = TypeVar("T")


class MemorySite:
    def __init__(self) -> None:
        self.site = SiteDoc("harbour", "5e" * 16, "0.1.0")
        self.peer_docs: dict[str, PeerDoc] = {}
        self.volume_docs: dict[str, VolumeDoc] = {}
        self.group_docs: dict[str, GroupDoc] = {}
        self.point_docs: dict[str, list[PointDoc]] = {}
        self.snapshot_docs: dict[tuple[str, str], SnapshotDoc] = {}
        self.event_docs: list[EventDoc] = []
        self.job_docs: dict[str, JobDoc] = {}
        self.submitted: list[tuple[ask.Request, str | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.unchanged = False
        self.broken: Exception | None = None
        self._polled: set[str] = set()
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- reads ----------------------------------------------------------------------------------------------

    async def status(self, group: str | None) -> StatusDoc:
        if self.broken is not None:
            raise self.broken
        groups = await self.groups() if group is None else (await self.group(group),)
        return StatusDoc(self.site, await self.peers(), groups)

    async def groups(self) -> tuple[GroupDoc, ...]:
        return tuple(self.group_docs.values())

    async def group(self, name: str) -> GroupDoc:
        if name not in self.group_docs:
            raise UnknownName(what="group", name=name)
        return self.group_docs[name]

    async def peers(self) -> tuple[PeerDoc, ...]:
        return tuple(self.peer_docs.values())

    async def volumes(self) -> tuple[VolumeDoc, ...]:
        return tuple(self.volume_docs.values())

    async def points(self, group: str) -> tuple[PointDoc, ...]:
        await self.group(group)
        return tuple(self.point_docs.get(group, ()))

    async def snapshots(self, group: str | None) -> tuple[SnapshotDoc, ...]:
        return tuple(doc for doc in self.snapshot_docs.values() if group in (None, doc.group))

    async def exports(self) -> tuple[ExportDoc, ...]:
        return tuple(
            ExportDoc(v.name, v.export, v.wwn, group.name, v.name, "volume", False)
            for group in self.group_docs.values()
            for v in group.volumes
            if v.export is not None
        )

    async def events(self, after: int, limit: int, wait_s: float) -> tuple[EventDoc, ...]:
        def found() -> tuple[EventDoc, ...]:
            if after < 0:
                return tuple(self.event_docs[-limit:])
            return tuple(doc for doc in self.event_docs if doc.sequence > after)[:limit]

        return await self._first(lambda: found() or None, wait_s) or ()

    async def jobs(self) -> tuple[JobDoc, ...]:
        return tuple(reversed(self.job_docs.values()))

    async def job(self, id: str, wait_s: float, seen: int | None) -> JobDoc:
        if id not in self.job_docs:
            raise UnknownName(what="operation", name=id)

        async with self._news:
            if wait_s:
                self._polled.add(id)
            self._news.notify_all()

        def fresh() -> JobDoc | None:
            job = self.job_docs[id]
            over = job.state in ("done", "failed")
            return job if over or (seen is not None and job.revision != seen) else None

        return await self._first(fresh, wait_s) or self.job_docs[id]

    async def waited_for(self, id: str) -> None:
        """Returns when somebody has begun to wait for this job."""
        await self._first(lambda: id if id in self._polled else None, 30)

    async def _first(self, look: Callable[[], T | None], wait_s: float) -> T | None:
        try:
            async with asyncio.timeout(wait_s or None), self._news:
                while (found := look()) is None and wait_s:
                    await self._news.wait()
                return found
        except TimeoutError:
            return None

    # --- jobs -----------------------------------------------------------------------------------------------

    async def submit(self, request: ask.Request, key: str | None) -> JobDoc:
        self.submitted.append((request, key))
        if isinstance(request, ask.VolumeAdd) and request.name in self.volume_docs:
            raise NameTaken(what="volume", name=request.name)
        job = JobDoc(f"job-{len(self.job_docs) + 1}", request.kind, getattr(request, "group", None), "queued", AT)
        self.job_docs[job.id] = job
        task = asyncio.create_task(self._run(job.id, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _run(self, id: str, request: ask.Request) -> None:
        await self._change(id, state="running", started_at=AT)
        try:
            outcome = await self._perform(id, request)
            await self._change(id, state="done", finished_at=AT, outcome=dataclasses.asdict(outcome))
        except Exception as error:
            await self._change(id, state="failed", finished_at=AT, error=error_doc(error))

    async def _change(self, id: str, **fields: Any) -> None:
        async with self._news:
            job = self.job_docs[id]
            self.job_docs[id] = dataclasses.replace(job, revision=job.revision + 1, **fields)
            self._news.notify_all()

    async def event(self, code: str, message: str, group: str | None = None) -> None:
        async with self._news:
            self.event_docs.append(EventDoc(len(self.event_docs) + 1, AT, "info", code, group, message, {}))
            self._news.notify_all()

    async def _perform(self, id: str, request: ask.Request) -> Any:
        match request:
            case ask.PeerAdd(name, address, fingerprint, plain):
                self.peer_docs[name] = PeerDoc(name, address, fingerprint, plain, True)
                return self.peer_docs[name]
            case ask.VolumeAdd(name, store, size_bytes, _):
                self.volume_docs[name] = VolumeDoc(name, size_bytes or MIB, store, "active", None, "6001405" + "0" * 25)
                return self.volume_docs[name]
            case ask.VolumeReopen(name):
                return self.volume_docs[name]
            case ask.GroupCreate():
                return self._make_group(request)
            case ask.GroupSet(group, keep, retain, _):
                was = self.group_docs[group]
                self.group_docs[group] = dataclasses.replace(was, keep=keep or was.keep, retain=retain or "")
                return self.group_docs[group]
            case ask.Sync(group):
                return await self._sync(id, group)
            case ask.Promote(group, force):
                return self._promote(id, group, force)
            case ask.SnapshotCreate():
                return self._snapshot(request)
            case ask.SnapshotReset(group, name):
                return self.snapshot_docs[group, name]
            case ask.SnapshotDelete(group, name):
                del self.snapshot_docs[group, name]
                return RemovedDoc(name)
            case ask.PeerRemove(name) | ask.VolumeRemove(name) | ask.GroupRemove(name):
                self.peer_docs.pop(name, self.volume_docs.pop(name, self.group_docs.pop(name, None)))
                return RemovedDoc(name)
        raise AssertionError(request)

    def _make_group(self, request: ask.GroupCreate) -> GroupDoc:
        volumes = []
        for name in request.volumes:
            if name not in self.volume_docs:
                raise UnknownName(what="volume", name=name)
            uri = f"nbd://127.0.0.1:10809/{name}"
            volumes.append(dataclasses.replace(self.volume_docs[name], group=request.name, export=uri))
        self.group_docs[request.name] = GroupDoc(
            request.name,
            "9a" * 16,
            "protected",
            "unseeded",
            "nothing was synced yet",
            request.peer,
            True,
            request.rpo_s,
            None,
            3 * MIB,
            None,
            None,
            tuple(volumes),
        )
        return self.group_docs[request.name]

    async def _sync(self, id: str, name: str) -> SyncDoc:
        group = await self.group(name)
        if group.peer == "gone":
            raise PeerUnreachable(peer=group.peer)
        if self.unchanged:
            return SyncDoc(id, name, "done", None, 0, 0, 900, 0, 0.2)
        await self._change(id, progress=ProgressDoc("sending", MIB, 3 * MIB, 2.0 * MIB))
        await self.gate.wait()
        await self._change(id, progress=ProgressDoc("sending", 3 * MIB, 3 * MIB, 2.0 * MIB))
        points = self.point_docs.setdefault(name, [])
        points.insert(0, PointDoc(f"{len(points) + 1:02x}" * 16, len(points) + 1, AT, AT, 3 * MIB, False))
        self.group_docs[name] = dataclasses.replace(group, state="ok", reason="", last_point=points[0], lag_s=1.5)
        return SyncDoc(id, name, "done", points[0], 3 * MIB, 3 * MIB, 3 * MIB + 512, 0, 0.25)

    def _promote(self, id: str, name: str, force: bool) -> GroupDoc:
        if not force:
            raise RefusedByState(operation="promote", group=name, reason="the protected site still answers")
        point = self.point_docs[name][0]
        self.group_docs[name] = dataclasses.replace(self.group_docs[name], role="protected")
        return dataclasses.replace(self.group_docs[name], operation=id, point=point)

    def _snapshot(self, request: ask.SnapshotCreate) -> SnapshotDoc:
        name = request.name or f"snap-{len(self.snapshot_docs) + 1}"
        volumes = tuple(
            SnapshotVolumeDoc(v.name, v.size, f"nbd://127.0.0.1:10809/{request.group}.{name}.{v.name}", v.wwn)
            for v in self.group_docs[request.group].volumes
        )
        doc = SnapshotDoc(name, request.group, self.point_docs[request.group][0], volumes)
        self.snapshot_docs[request.group, name] = doc
        return doc


class ApiThread:
    """A MemorySite that is served on `DATA/api.sock` from a thread, until `close`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.site: MemorySite
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api")
        self._thread.start()
        self._server: ApiServer | None = self.on_loop(self._start())

    async def _start(self) -> ApiServer:
        self.site = MemorySite()
        return await serve_api(self.site, self.data / "api.sock")

    def on_loop(self, action: Awaitable[T]) -> T:
        async def run() -> T:
            return await action

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def hold_syncs(self) -> None:
        self._loop.call_soon_threadsafe(self.site.gate.clear)

    def let_syncs_go(self) -> None:
        self._loop.call_soon_threadsafe(self.site.gate.set)

    def stop_serving(self) -> None:
        if self._server is not None:
            self.on_loop(self._server.close())
            self._server = None

    def close(self) -> None:
        self.stop_serving()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
