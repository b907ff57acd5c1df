"""Client of the management API on the unix socket of a data directory: blocking, one connection a question.

The command line and the SRA talk to a daemon through this and nothing else. Failures of the daemon are
raised as RemoteError; no daemon is DaemonUnreachable. This module must never import anything outside the
standard library: it has to be there in 20 ms.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

from engine.api import address
from engine.api.replies import failure, many, one
from engine.errors import DaemonForeign, DaemonLost, DaemonUnreachable, UnknownName
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

Reply = TypeVar("Reply")

ANSWER_WITHIN_S = 35.0
"""How long a question may take beyond what it asked to wait: a busy daemon answers late, a hung one never."""

POLL_S = 20.0
"""How long one question about a running job may wait for news."""

FINISHED = ("done", "failed")
"""The states in which a job stays."""


class Client:
    """`data` is the data directory of the daemon, `answer_within_s` the patience with one answer in seconds."""

    def __init__(self, data: Path, *, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self.data = data
        self._answer_within_s = answer_within_s

    def status(self, group: str | None = None) -> StatusDoc:
        return self._get(one(StatusDoc), "status", group=group)

    def groups(self) -> tuple[GroupDoc, ...]:
        return self._get(many(GroupDoc), "groups")

    def group(self, name: str) -> GroupDoc:
        return self._get(one(GroupDoc), f"groups/{_part('group', name)}")

    def peers(self) -> tuple[PeerDoc, ...]:
        return self._get(many(PeerDoc), "peers")

    def volumes(self) -> tuple[VolumeDoc, ...]:
        return self._get(many(VolumeDoc), "volumes")

    def points(self, group: str) -> tuple[PointDoc, ...]:
        return self._get(many(PointDoc), f"groups/{_part('group', group)}/points")

    def set_asides(self, group: str) -> tuple[SetAsideDoc, ...]:
        return self._get(many(SetAsideDoc), f"groups/{_part('group', group)}/set-asides")

    def snapshots(self, group: str | None = None) -> tuple[SnapshotDoc, ...]:
        return self._get(many(SnapshotDoc), "snapshots", group=group)

    def exports(self) -> tuple[ExportDoc, ...]:
        return self._get(many(ExportDoc), "exports")

    def events(self, after: int, limit: int = 1000, wait_s: float = 0.0) -> tuple[EventDoc, ...]:
        """Events after a sequence, oldest first; a negative `after` asks for the newest `limit` (service.py)."""
        return self._get(many(EventDoc), "events", wait_s, after=after, limit=limit, wait_s=wait_s)

    def jobs(self) -> tuple[JobDoc, ...]:
        return self._get(many(JobDoc), "jobs")

    def job(self, id: str, *, wait_s: float = 0.0, seen: int | None = None) -> JobDoc:
        """One job, at the latest after `wait_s` seconds; `seen` is the revision to wait past (service.py)."""
        return self._get(one(JobDoc), f"jobs/{_part('operation', id)}", wait_s, wait_s=wait_s, seen=seen)

    def submit(self, request: Request, key: str | None = None) -> JobDoc:
        """Asks for a change; the job that it became, or joined under this key, is not waited for."""
        body = {"kind": request.kind, **dataclasses.asdict(request)}
        if key is not None:
            body["key"] = key
        return self._ask(one(JobDoc), "POST", "/v1/jobs", 0.0, json.dumps(body).encode())

    def wait(self, job: JobDoc, news: Callable[[JobDoc], None] = lambda job: None) -> JobDoc:
        """Waits for the end of a job and tells of each change; a failed job is returned, not raised.

        Raises DaemonLost when the daemon goes away meanwhile: the job goes on when it is back.
        """
        news(job)
        while job.state not in FINISHED:
            try:
                job = self.job(job.id, wait_s=POLL_S, seen=job.revision)
            except DaemonUnreachable as error:
                raise DaemonLost(data=str(self.data), operation=job.id) from error
            news(job)
        return job

    def _get(
        self, build: Callable[[object], Reply], path: str, patience_s: float = 0.0, **query: str | int | float | None
    ) -> Reply:
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask(build, "GET", f"/v1/{path}" + (f"?{urlencode(given)}" if given else ""), patience_s, None)

    def _ask(
        self, build: Callable[[object], Reply], method: str, path: str, patience_s: float, body: bytes | None
    ) -> Reply:
        connection = _UnixConnection(self.data / address.SOCKET, self._answer_within_s + patience_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DaemonUnreachable(data=str(self.data), reason=_reason(error)) from error
        finally:
            connection.close()
        try:
            value = json.loads(text)
            if status < http.client.BAD_REQUEST:
                return build(value)
            problem = failure(value)
        except ValueError as error:
            raise DaemonForeign(data=str(self.data), reason=f"HTTP {status}: {error}") from error
        raise problem


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with address.socket_name(self._path) as name:
            self.sock.connect(name)


def _part(what: str, name: str) -> str:
    """A name as one part of a path. No name holds a slash, so that one which does is not there."""
    if "/" in name or not name:
        raise UnknownName(what=what, name=name)
    return quote(name)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "its socket is not there"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens on its socket"
    if isinstance(error, PermissionError):
        return "its socket belongs to another user"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ConnectionError | http.client.HTTPException):
        return "it closed the connection"
    return str(error)
