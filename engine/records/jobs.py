"""Jobs: what was asked, and what became of it. An outcome is recorded in the transaction of its change.

The newest 1,000 finished jobs are kept, and as many scheduled syncs. This module must never judge whether a finished
job still answers a repeat: the state it made must be looked at for that (`decide/roles.py`).
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from engine.errors import Raced, UnknownName
from engine.model import Job, JobId, JobState
from engine.records.columns import from_us, maybe_at, maybe_us, to_us

KEPT = 1_000
"""Older finished jobs than so many are forgotten: of those that were asked for, and of those that the clock began."""

SCHEDULED = "schedule"
"""The key of a sync that the clock began. There may be one each second, and they push nothing else out."""

_NAMES = "id, key, kind, group_name, request, state, outcome, error, created_us, started_us, finished_us"
_UNFINISHED = "state IN ('queued', 'running')"


def _from(row: sqlite3.Row) -> Job:
    return Job(
        id=JobId(row["id"]),
        key=row["key"],
        kind=row["kind"],
        group=row["group_name"],
        request=row["request"],
        state=JobState(row["state"]),
        outcome=row["outcome"],
        error=row["error"],
        created_at=from_us(row["created_us"]),
        started_at=maybe_at(row["started_us"]),
        finished_at=maybe_at(row["finished_us"]),
    )


def insert(conn: sqlite3.Connection, job: Job) -> None:
    """Record what was asked, before its first step. Ask `running_with_key` first, in the same transaction."""
    conn.execute(
        f"INSERT INTO job ({_NAMES}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            job.id,
            job.key,
            job.kind,
            job.group,
            job.request,
            job.state.value,
            job.outcome,
            job.error,
            to_us(job.created_at),
            maybe_us(job.started_at),
            maybe_us(job.finished_at),
        ),
    )


def start(conn: sqlite3.Connection, job: JobId, at: datetime) -> Job:
    """It runs from now on. Raises Raced unless it is queued."""
    changed = conn.execute(
        "UPDATE job SET state = 'running', started_us = ? WHERE id = ? AND state = 'queued'", (to_us(at), job)
    )
    if changed.rowcount != 1:
        raise Raced(what="job", name=job, reason="it is not queued")
    return get(conn, job)


def requeue(conn: sqlite3.Connection, job: JobId) -> Job:
    """It runs again from the start under its id, after a restart. Raises Raced if it is finished."""
    changed = conn.execute(f"UPDATE job SET state = 'queued', started_us = NULL WHERE id = ? AND {_UNFINISHED}", (job,))
    if changed.rowcount != 1:
        raise Raced(what="job", name=job, reason="it is finished")
    return get(conn, job)


def finish(
    conn: sqlite3.Connection, job: JobId, at: datetime, *, outcome: str | None = None, error: str | None = None
) -> Job:
    """Done with `outcome` or failed with `error`, a JSON document each. Raises Raced if it was finished before."""
    assert (outcome is None) != (error is None), "a job ends with an outcome or with an error"
    state = JobState.DONE if error is None else JobState.FAILED
    changed = conn.execute(
        f"UPDATE job SET state = ?, outcome = ?, error = ?, finished_us = ? WHERE id = ? AND {_UNFINISHED}",
        (state.value, outcome, error, to_us(at), job),
    )
    if changed.rowcount != 1:
        raise Raced(what="job", name=job, reason="it is finished")
    conn.execute(
        f"DELETE FROM job WHERE rowid IN (SELECT rowid FROM job WHERE NOT {_UNFINISHED}"
        " AND (key = ?1) = (SELECT key = ?1 FROM job WHERE id = ?2)"
        " ORDER BY finished_us DESC, rowid DESC LIMIT -1 OFFSET ?3)",
        (SCHEDULED, job, KEPT),
    )
    return get(conn, job)


def _select(conn: sqlite3.Connection, where: str, *values: object) -> tuple[Job, ...]:
    return tuple(_from(row) for row in conn.execute(f"SELECT {_NAMES} FROM job WHERE {where}", values))


def find(conn: sqlite3.Connection, job: JobId) -> Job | None:
    """None: it never was, or is forgotten."""
    found = _select(conn, "id = ?", job)
    return found[0] if found else None


def get(conn: sqlite3.Connection, job: JobId) -> Job:
    """Raises UnknownName."""
    found = find(conn, job)
    if found is None:
        raise UnknownName(what="job", name=job)
    return found


def recent(conn: sqlite3.Connection, limit: int = 100) -> tuple[Job, ...]:
    """Newest first."""
    return _select(conn, "TRUE ORDER BY rowid DESC LIMIT ?", limit)


def running_with_key(conn: sqlite3.Connection, key: str) -> Job | None:
    """The unfinished job that a repeat with this key joins; an empty key joins nothing."""
    return _newest(conn, f"key = ? AND {_UNFINISHED}", key)


def finished_with_key(conn: sqlite3.Connection, key: str) -> Job | None:
    """The newest finished job with this key: it answers a repeat while the state it made still holds."""
    return _newest(conn, f"key = ? AND NOT {_UNFINISHED}", key)


def _newest(conn: sqlite3.Connection, where: str, key: str) -> Job | None:
    found = _select(conn, f"{where} ORDER BY rowid DESC LIMIT 1", key) if key else ()
    return found[0] if found else None


def unfinished(conn: sqlite3.Connection) -> tuple[Job, ...]:
    """Queued and running ones, oldest first: at boot, what the last daemon left."""
    return _select(conn, f"{_UNFINISHED} ORDER BY rowid")


def interrupt_all(conn: sqlite3.Connection, at: datetime, error: str) -> tuple[Job, ...]:
    """Fail what the last daemon left, with this error document; returns those jobs as they were."""
    left = unfinished(conn)
    for job in left:
        finish(conn, job.id, at, error=error)
    return left
