"""Jobs: every request becomes one, outlives its client, and is answered from its record when it is over.

A running request with the same key is joined. A job's progress lives in memory, everything else in the
records. This module must never know what a request does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from engine import model
from engine.errors import IoFailed, LeewardError, UnknownName
from engine.model import JobId, JobState
from engine.operations.context import Context, Progress
from engine.operations.documents import at_text
from engine.records import jobs
from engine.requests import ErrorDoc, JobDoc, ProgressDoc, Request, error_doc, recorded

Work = Callable[[str, Progress], Awaitable[Any]]
"""work(job id, progress) -> the outcome document."""

NOTICE_S = 0.25
"""Progress makes a new revision of a job at most this often."""


@dataclass(slots=True)
class Running:
    """A job that is not over: its progress, and who waits for news of it."""

    record: model.Job
    progress: Progress
    revision: int = 1
    news: asyncio.Event = field(default_factory=asyncio.Event)
    told: tuple[str, int] = ("", 0)

    def notice(self) -> None:
        """Wake who waits; they see a new revision."""
        self.revision += 1
        self.news.set()
        self.news = asyncio.Event()


class Jobs:
    """The jobs of this site."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._running: dict[str, Running] = {}
        self._unrecorded: dict[str, model.Job] = {}
        """Jobs that are over while their rows say otherwise: there was no space to record their ends."""

    def joined(self, key: str | None) -> Running | None:
        """The job under this key that is not over."""
        return next((job for job in self._running.values() if key and job.record.key == key), None)

    async def start(self, request: Request, key: str | None, group: str | None) -> Running:
        """Record a new job, queued."""
        record = model.Job(
            id=JobId(self._ctx.clock.token(8).hex()),
            key=key or "",
            kind=request.kind,
            group=group,
            request=json.dumps(recorded(request)),
            state=JobState.QUEUED,
            outcome=None,
            error=None,
            created_at=self._ctx.clock.now(),
            started_at=None,
            finished_at=None,
        )
        await self._ctx.database.transact(lambda conn: jobs.insert(conn, record))
        return self.adopt(record)

    def adopt(self, record: model.Job) -> Running:
        """A recorded job that is to be run: a new one, or one that a restart cut."""
        running = self._running[record.id] = Running(record, Progress(self._ctx.clock))
        return running

    async def run(self, job: Running, work: Work) -> None:
        """Run a queued job to its end and record it. Never raises but for cancellation, which leaves it unfinished."""
        outcome: str | None = None
        error: str | None = None
        try:
            started = self._ctx.clock.now()
            job.record = await self._ctx.database.transact(lambda conn: jobs.start(conn, job.record.id, started))
            job.notice()
            outcome = json.dumps(asdict(await work(job.record.id, job.progress)))
        except LeewardError as failure:
            error = json.dumps(asdict(error_doc(failure)))
            self._ctx.report("error", failure.code, failure.message, group=job.record.group, operation=job.record.id)
        except OSError as failure:
            told = IoFailed(path=str(failure.filename or ""), reason=failure.strerror or str(failure))
            error = json.dumps(asdict(error_doc(told)))
            self._ctx.report("error", told.code, told.message, group=job.record.group, operation=job.record.id)
        except Exception as failure:
            # A fault of ours must not take the daemon down with it: it is recorded, with its trace in the log.
            error = json.dumps(asdict(error_doc(failure)))
            self._ctx.report(
                "error", "internal", f"{job.record.kind} failed: {failure!r}", group=job.record.group, trace=failure
            )
        await self._finish(job, outcome, error)

    async def _finish(self, job: Running, outcome: str | None, error: str | None) -> None:
        """Record the end. Where even the second try fails, clients are told all the same; boot sorts the row out."""
        now = self._ctx.clock.now()
        finish = partial(jobs.finish, job=job.record.id, at=now, outcome=outcome, error=error)
        ended = replace(
            job.record,
            state=JobState.FAILED if error else JobState.DONE,
            outcome=outcome,
            error=error,
            finished_at=now,
        )
        for _ in range(2):  # a full disk gives its ballast up at the first
            try:
                ended = await self._ctx.database.transact(finish)
                break
            except LeewardError as failure:
                self._ctx.report("error", failure.code, f"The end of {job.record.kind} was not recorded: {failure}")
        else:
            self._unrecorded[job.record.id] = ended
        job.record = ended
        del self._running[job.record.id]
        job.notice()

    async def doc(self, id: str) -> JobDoc:
        """What is known of one job. Raises UnknownName."""
        running = self._running.get(id)
        if running is not None:
            return document(running.record, running)
        record = self._unrecorded.get(id)
        if record is None:
            record = await self._ctx.database.transact(lambda conn: jobs.find(conn, JobId(id)))
        if record is None:
            raise UnknownName(what="job", name=id)
        return document(record, None)

    async def wait(self, id: str, wait_s: float, seen: int | None) -> JobDoc:
        """As `doc`, once the job is over or has another revision than `seen`, at the latest after `wait_s`."""
        deadline = self._ctx.clock.monotonic() + wait_s
        while (running := self._running.get(id)) is not None:
            self._notice_progress(running)
            left = deadline - self._ctx.clock.monotonic()
            if left <= 0 or (seen is not None and running.revision != seen):
                break
            news = running.news
            try:
                async with asyncio.timeout(min(left, NOTICE_S)):
                    await news.wait()
            except TimeoutError:
                continue  # time to look at the progress again
        return await self.doc(id)

    def _notice_progress(self, running: Running) -> None:
        now = (running.progress.phase, running.progress.done_bytes)
        if now != running.told:
            running.told = now
            running.revision += 1

    async def recent(self, limit: int = 100) -> tuple[JobDoc, ...]:
        """The newest jobs, newest first."""
        found = await self._ctx.database.transact(lambda conn: jobs.recent(conn, limit))
        known = [self._unrecorded.get(record.id, record) for record in found]
        return tuple(document(record, self._running.get(record.id)) for record in known)


def document(record: model.Job, running: Running | None) -> JobDoc:
    """The job as clients see it."""
    progress = running.progress if running and record.state is JobState.RUNNING else None
    return JobDoc(
        id=record.id,
        kind=record.kind,
        group=record.group,
        state=record.state.value,
        created_at=at_text(record.created_at),
        started_at=at_text(record.started_at) if record.started_at else None,
        finished_at=at_text(record.finished_at) if record.finished_at else None,
        progress=ProgressDoc(progress.phase, progress.done_bytes, progress.total_bytes) if progress else None,
        outcome=json.loads(record.outcome) if record.outcome else None,
        error=ErrorDoc(**json.loads(record.error)) if record.error else None,
        revision=running.revision if running else 0,
    )
