"""Service: what the API asks of a running site. `engine/live/site.py` is one.

Every failure is raised as a LeewardError; the server turns it into an ErrorDoc, and anything else that is
raised into `internal`. All calls run on the daemon's loop. This module must never hold behaviour.
"""

from __future__ import annotations

from typing import Protocol

from engine.requests import (
    EventDoc,
    ExportDoc,
    GroupDoc,
    JobDoc,
    PeerDoc,
    PointDoc,
    Request,
    SetAsideDoc,
    SnapshotDoc,
    StatusDoc,
    VolumeDoc,
)


class Service(Protocol):
    """A running site, as its clients see it."""

    async def status(self, group: str | None) -> StatusDoc:
        """The whole site, or with only that group in `groups`. UnknownName."""

    async def groups(self) -> tuple[GroupDoc, ...]:
        """Every group, by name."""

    async def group(self, name: str) -> GroupDoc:
        """One group. UnknownName."""

    async def peers(self) -> tuple[PeerDoc, ...]:
        """Every paired site, by name."""

    async def volumes(self) -> tuple[VolumeDoc, ...]:
        """Every volume of this site, in a group or not, by name."""

    async def points(self, group: str) -> tuple[PointDoc, ...]:
        """The recovery points of a group, newest first. UnknownName."""

    async def snapshots(self, group: str | None) -> tuple[SnapshotDoc, ...]:
        """The snapshots of a group, or of all groups. UnknownName."""

    async def set_asides(self, group: str) -> tuple[SetAsideDoc, ...]:
        """What role changes of a group discarded and this site keeps, oldest first. UnknownName."""

    async def exports(self) -> tuple[ExportDoc, ...]:
        """What hosts can reach now, by name."""

    async def events(self, after: int, limit: int, wait_s: float) -> tuple[EventDoc, ...]:
        """At most `limit` events with a sequence above `after`, oldest first.

        A negative `after` asks for the newest `limit` events (still oldest first). Where there is none, waits
        up to `wait_s` seconds for one; the result may be empty.
        """

    async def jobs(self) -> tuple[JobDoc, ...]:
        """The jobs that run or wait, and the most recent others; newest first."""

    async def job(self, id: str, wait_s: float, seen: int | None) -> JobDoc:
        """One job, as soon as it is finished or its `revision` is not `seen`, at the latest after `wait_s` seconds.

        `seen` None waits for the end of the job. `revision` changes with the state of a job and, at most a few
        times a second, with its progress. UnknownName.
        """

    async def submit(self, request: Request, key: str | None) -> JobDoc:
        """Starts a job, or joins the one that runs under this key, and returns it without waiting for its end.

        Without a key the site makes one of the request, so that the same request twice at once is one job
        (but a sync always queues one more). Refusals that are known at once are raised, not made a job.
        """
