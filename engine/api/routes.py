"""The paths of the management API over a Service: reads, long polls, and POST /v1/jobs for every change.

Frozen dataclasses become JSON and back here and nowhere else (msgspec, inside Litestar). This module must
never decide anything, and never hold a connection longer than LONGEST_WAIT_S.
"""

from __future__ import annotations

import asyncio
import dataclasses
import typing
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
from litestar import Controller, Litestar, Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter, SkipValidation

from engine.api.service import Service
from engine.errors import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, BadValue, LeewardError, UnknownName
from engine.requests import (
    REQUESTS,
    ErrorDoc,
    EventDoc,
    ExportDoc,
    GroupDoc,
    JobDoc,
    PeerDoc,
    PointDoc,
    SetAsideDoc,
    SnapshotDoc,
    StatusDoc,
    VolumeDoc,
    error_doc,
)
from engine.version import VERSION

LONGEST_WAIT_S = 60
LONGEST_EVENTS = 1000
LONGEST_BODY_BYTES = 1 << 20

Answer = TypeVar("Answer")
log = structlog.get_logger("api")


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """The body of every reply that is not the document asked for."""

    error: ErrorDoc


class Closing:
    """Says to long polls that the server closes: they answer at once with what is known."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    def set(self) -> None:
        self._over.set()

    async def first(self, patient: Awaitable[Answer], now: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of `patient`, or of `now` when the server closes before it has one."""
        waiting = asyncio.ensure_future(patient)
        closing = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((waiting, closing), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            closing.cancel()
            waiting.cancel()
        return await now()


def _asked(kind: type[Any]) -> type[msgspec.Struct]:
    """The body that asks for a request: its fields, tagged by `kind`, and the idempotency key."""
    hints = typing.get_type_hints(kind)
    fields: list[tuple[str, Any, Any]] = [
        (field.name, hints[field.name], msgspec.NODEFAULT if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(kind)
    ]
    fields.append(("key", str | None, None))
    return msgspec.defstruct(
        f"Ask{kind.__name__}",
        fields,
        tag_field="kind",
        tag=kind.kind,
        forbid_unknown_fields=True,
        kw_only=True,
        frozen=True,
        module=__name__,
    )


if typing.TYPE_CHECKING:
    Asked = msgspec.Struct
else:
    Asked = typing.Union[tuple(_asked(kind) for kind in REQUESTS.values())]  # noqa: UP007

Site = NamedDependency[SkipValidation[Service]]
Poll = NamedDependency[SkipValidation[Closing]]
WaitS = Annotated[float, QueryParameter(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for news")]
Limit = Annotated[int, QueryParameter(ge=1, le=LONGEST_EVENTS)]

FAILURES: dict[int, ResponseSpec] = {
    status: ResponseSpec(Failure, generate_examples=False, description=status.phrase)
    for status in (
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
}


class Reads(Controller):
    """What is there and what happened; nothing here changes anything."""

    path = "/v1"

    @get("/status", responses=FAILURES)
    async def status(self, site: Site, group: FromQuery[str | None] = None) -> StatusDoc:
        return await site.status(group)

    @get("/peers", responses=FAILURES)
    async def peers(self, site: Site) -> tuple[PeerDoc, ...]:
        return await site.peers()

    @get("/volumes", responses=FAILURES)
    async def volumes(self, site: Site) -> tuple[VolumeDoc, ...]:
        return await site.volumes()

    @get("/groups", responses=FAILURES)
    async def groups(self, site: Site) -> tuple[GroupDoc, ...]:
        return await site.groups()

    @get("/groups/{name:str}", responses=FAILURES)
    async def group(self, site: Site, name: FromPath[str]) -> GroupDoc:
        return await site.group(name)

    @get("/groups/{name:str}/points", responses=FAILURES)
    async def points(self, site: Site, name: FromPath[str]) -> tuple[PointDoc, ...]:
        return await site.points(name)

    @get("/snapshots", responses=FAILURES)
    async def snapshots(self, site: Site, group: FromQuery[str | None] = None) -> tuple[SnapshotDoc, ...]:
        return await site.snapshots(group)

    @get("/groups/{name:str}/set-asides", responses=FAILURES)
    async def set_asides(self, site: Site, name: FromPath[str]) -> tuple[SetAsideDoc, ...]:
        return await site.set_asides(name)

    @get("/exports", responses=FAILURES)
    async def exports(self, site: Site) -> tuple[ExportDoc, ...]:
        return await site.exports()

    @get("/events", responses=FAILURES)
    async def events(
        self, site: Site, poll: Poll, after: FromQuery[int] = 0, limit: Limit = LONGEST_EVENTS, wait_s: WaitS = 0.0
    ) -> tuple[EventDoc, ...]:
        """Events after a sequence, oldest first; a negative `after` asks for the newest `limit`."""
        return await poll.first(site.events(after, limit, wait_s), lambda: site.events(after, limit, 0.0))


class Jobs(Controller):
    """Every change is asked for here and becomes a job."""

    path = "/v1/jobs"

    @get(responses=FAILURES)
    async def jobs(self, site: Site) -> tuple[JobDoc, ...]:
        return await site.jobs()

    @get("/{id:str}", responses=FAILURES)
    async def job(
        self, site: Site, poll: Poll, id: FromPath[str], wait_s: WaitS = 0.0, seen: FromQuery[int | None] = None
    ) -> JobDoc:
        """One job: when it is finished, when its revision is not `seen`, or after `wait_s` seconds."""
        return await poll.first(site.job(id, wait_s, seen), lambda: site.job(id, 0.0, None))

    @post(status_code=HTTPStatus.ACCEPTED, responses=FAILURES)
    async def submit(self, site: Site, data: JSONBody[Asked]) -> JobDoc:
        """Asks for a change. `key` makes it idempotent: a running job with the same key is joined."""
        fields = msgspec.structs.asdict(data)
        key = fields.pop("key")
        request = REQUESTS[str(data.__struct_config__.tag)](**fields)
        return await site.submit(request, key)


def status_of(error: LeewardError) -> int:
    """The HTTP status that goes with a failure; clients go by the code in the body."""
    if isinstance(error, UnknownName):
        return HTTPStatus.NOT_FOUND
    by_exit = {
        EXIT_USAGE: HTTPStatus.BAD_REQUEST,
        EXIT_UNREACHABLE: HTTPStatus.SERVICE_UNAVAILABLE,
        EXIT_REFUSED: HTTPStatus.CONFLICT,
    }
    return by_exit.get(error.exit_status, HTTPStatus.INTERNAL_SERVER_ERROR)


def _refused(request: Request[Any, Any, Any], error: LeewardError) -> Response[Failure]:
    return Response(Failure(error_doc(error)), status_code=status_of(error))


def _misread(request: Request[Any, Any, Any], error: HTTPException) -> Response[Failure]:
    """Litestar's own refusals: an unknown path, a body or a parameter that is no valid request."""
    extra = error.extra if isinstance(error.extra, list) else []
    said = ((item.get("key", "data"), item.get("message", "")) for item in extra)
    reason = "; ".join(text if key == "data" else f"{key}: {text}" for key, text in said) or error.detail
    bad = BadValue(what="request", value=f"{request.method} {request.url.path}", reason=reason.rstrip("."))
    return Response(Failure(error_doc(bad)), status_code=error.status_code)


def _broken(request: Request[Any, Any, Any], error: Exception) -> Response[Failure]:
    log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return Response(Failure(error_doc(error)), status_code=HTTPStatus.INTERNAL_SERVER_ERROR)


def make_app(site: Service, closing: Closing) -> Litestar:
    """The ASGI application; long polls end when `closing` is set."""
    return Litestar(
        [Reads, Jobs],
        dependencies={
            "site": Provide(lambda: site, sync_to_thread=False),
            "poll": Provide(lambda: closing, sync_to_thread=False),
        },
        exception_handlers={LeewardError: _refused, HTTPException: _misread, Exception: _broken},
        openapi_config=OpenAPIConfig(
            title="Leeward management API",
            version=VERSION,
            path="/schema",
            use_handler_docstrings=True,
            render_plugins=[JsonRenderPlugin(path="/")],
        ),
        logging_config=None,
        request_max_body_size=LONGEST_BODY_BYTES,
    )
