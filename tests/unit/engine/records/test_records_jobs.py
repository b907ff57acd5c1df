"""Jobs: idempotency by key, one way through their states, and what a restart finds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from records_build import NOW, Records

from engine.errors import Raced, UnknownName
from engine.model import Job, JobId, JobState
from engine.records import jobs


def job(id: str, key: str = "", kind: str = "sync") -> Job:
    return Job(JobId(id), key, kind, "shop", '{"kind": "sync"}', JobState.QUEUED, None, None, NOW, None, None)


def test_a_job_comes_back_as_it_was_asked(records: Records) -> None:
    records(jobs.insert, job("a", "k"))
    records.reopen()
    assert records(jobs.get, JobId("a")) == job("a", "k")
    assert records(jobs.find, JobId("b")) is None
    with pytest.raises(UnknownName, match="b"):
        records(jobs.get, JobId("b"))


def test_a_job_runs_once_and_ends_once(records: Records) -> None:
    records(jobs.insert, job("a"))
    started, finished = NOW + timedelta(seconds=1), NOW + timedelta(seconds=2)
    running = records(jobs.start, JobId("a"), started)
    assert (running.state, running.started_at) == (JobState.RUNNING, started)
    with pytest.raises(Raced):
        records(jobs.start, JobId("a"), started)
    done = records(jobs.finish, JobId("a"), finished, outcome='{"state": "done"}')
    assert (done.state, done.outcome, done.error, done.finished_at) == (
        JobState.DONE,
        '{"state": "done"}',
        None,
        finished,
    )
    with pytest.raises(Raced):
        records(jobs.finish, JobId("a"), finished, error="{}")
    with pytest.raises(Raced):
        records(jobs.requeue, JobId("a"))
    assert records(jobs.get, JobId("a")) == done


def test_a_failed_job_keeps_its_error(records: Records) -> None:
    records(jobs.insert, job("a"))
    failed = records(jobs.finish, JobId("a"), NOW, error='{"code": "c"}')
    assert (failed.state, failed.outcome, failed.error) == (JobState.FAILED, None, '{"code": "c"}')


@pytest.mark.parametrize("ends", [{}, {"outcome": "{}", "error": "{}"}])
def test_a_job_ends_with_an_outcome_or_an_error(records: Records, ends: dict[str, str]) -> None:
    records(jobs.insert, job("a"))
    with pytest.raises(AssertionError):
        records(jobs.finish, JobId("a"), NOW, **ends)
    assert records(jobs.get, JobId("a")).state is JobState.QUEUED


def test_a_repeat_finds_the_unfinished_job_of_its_key(records: Records) -> None:
    assert records(jobs.running_with_key, "k") is None
    records(jobs.insert, job("a", "k"))
    records(jobs.insert, job("b", "other"))
    found = records(jobs.running_with_key, "k")
    assert found is not None
    assert found.id == "a"
    records(jobs.start, JobId("a"), NOW)
    found = records(jobs.running_with_key, "k")
    assert found is not None
    assert found.state is JobState.RUNNING
    assert records(jobs.finished_with_key, "k") is None


def test_a_finished_job_is_found_apart_and_the_newest_counts(records: Records) -> None:
    for id in ("a", "b"):
        records(jobs.insert, job(id, "k"))
        records(jobs.finish, JobId(id), NOW, outcome=f'"{id}"')
    records(jobs.insert, job("c", "k"))
    running, finished = records(jobs.running_with_key, "k"), records(jobs.finished_with_key, "k")
    assert running is not None
    assert finished is not None
    assert (running.id, finished.id) == ("c", "b")


def test_jobs_without_a_key_are_never_joined(records: Records) -> None:
    records(jobs.insert, job("a"))
    records(jobs.insert, job("b"))
    records(jobs.finish, JobId("b"), NOW, outcome="{}")
    assert records(jobs.running_with_key, "") is None
    assert records(jobs.finished_with_key, "") is None


def test_recent_jobs_come_newest_first(records: Records) -> None:
    for id in "abcd":
        records(jobs.insert, job(id))
    assert [found.id for found in records(jobs.recent, 3)] == ["d", "c", "b"]


def test_a_restart_fails_what_was_left_and_nothing_else(records: Records) -> None:
    for id in "abc":
        records(jobs.insert, job(id))
    records(jobs.finish, JobId("a"), NOW, outcome="{}")
    records(jobs.start, JobId("b"), NOW)
    records.reopen()
    left = records(jobs.interrupt_all, NOW, '{"code": "interrupted"}')
    assert [(found.id, found.state) for found in left] == [("b", JobState.RUNNING), ("c", JobState.QUEUED)]
    assert records(jobs.unfinished) == ()
    assert records(jobs.get, JobId("a")).state is JobState.DONE
    assert records(jobs.get, JobId("c")).error == '{"code": "interrupted"}'


def test_a_job_that_a_restart_cut_may_run_again_under_its_id(records: Records) -> None:
    records(jobs.insert, job("a", "k"))
    records(jobs.start, JobId("a"), NOW)
    records.reopen()
    again = records(jobs.requeue, JobId("a"))
    assert (again.state, again.started_at) == (JobState.QUEUED, None)
    assert records(jobs.start, JobId("a"), NOW).state is JobState.RUNNING


def test_old_finished_jobs_are_forgotten_and_unfinished_ones_never(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "KEPT", 2)
    records(jobs.insert, job("old"))
    for id in "abcd":
        records(jobs.insert, job(id))
        records(jobs.finish, JobId(id), NOW, outcome="{}")
    assert [found.id for found in records(jobs.recent, 10)] == ["d", "c", "old"]
    # The oldest job ends last: its outcome is the newest.
    assert records(jobs.finish, JobId("old"), NOW + timedelta(seconds=1), outcome="{}").state is JobState.DONE
    assert [found.id for found in records(jobs.recent, 10)] == ["d", "old"]


def test_scheduled_syncs_push_nothing_out_that_was_asked_for(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEPT", 2)
    for id in ("asked", "s1", "s2", "s3", "also"):
        records(jobs.insert, job(id, jobs.SCHEDULED if id[0] == "s" else ""))
        records(jobs.finish, JobId(id), NOW, outcome="{}")
    assert [found.id for found in records(jobs.recent, 10)] == ["also", "s3", "s2", "asked"]
