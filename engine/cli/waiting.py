"""Asks for a change and waits for its job: the one story of every command that changes something.

The job belongs to the daemon: an interrupted wait leaves it running. This module must never print a result in
two ways: JSON is the document of the job, people get what the command tells of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from engine.cli import output
from engine.cli.call import Call
from engine.requests import OUTCOMES, JobDoc, Request

Doc = TypeVar("Doc")


def carry_out(
    call: Call,
    request: Request,
    tell: Callable[[Any], None],
    *,
    no_wait: bool = False,
    complete: Callable[[Any], Any] = lambda doc: doc,
) -> None:
    """Submits a request, waits for it, and shows its outcome: as JSON, or to people through `tell`.

    `tell` gets the document that OUTCOMES names for the kind of the request, after `complete` has put in what no
    daemon may know. Raises LeewardError.
    """
    client = call.client()
    job = client.submit(request)
    if no_wait:
        _show_asked(call, job)
    else:
        show_outcome(call, waited(call, job), tell, complete)


def waited(call: Call, job: JobDoc) -> JobDoc:
    """The job at its end, with progress on the way. Raises WaitInterrupted on Ctrl-C, and the job's own failure."""
    from engine.api.replies import RemoteError
    from engine.errors import DaemonForeign, WaitInterrupted

    try:
        with output.progress(quiet=call.as_json) as news:
            job = call.client().wait(job, news)
    except KeyboardInterrupt:
        raise WaitInterrupted(operation=job.id) from None
    if job.state == "done":
        return job
    if job.error is None:
        raise DaemonForeign(data=str(call.data), reason=f"operation {job.id} is {job.state} without an error")
    raise RemoteError(job.error)


def show_outcome(
    call: Call, job: JobDoc, tell: Callable[[Any], None], complete: Callable[[Any], Any] = lambda doc: doc
) -> None:
    """The outcome of a finished job."""
    from engine.api.replies import ReplyMalformed, document
    from engine.errors import DaemonForeign

    try:
        outcome = complete(document(OUTCOMES[job.kind], job.outcome))
    except (KeyError, ReplyMalformed) as error:
        raise DaemonForeign(data=str(call.data), reason=f"outcome of {job.kind}: {error}") from error
    if call.as_json:
        fields = output.plain(outcome)
        if "operation" in fields:
            fields["operation"] = job.id
        output.document(fields)
    else:
        tell(outcome)


def _show_asked(call: Call, job: JobDoc) -> None:
    if call.as_json:
        output.document({"operation": job.id, "kind": job.kind, "group": job.group, "state": job.state})
    else:
        output.line(job.id)
