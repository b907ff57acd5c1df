"""JSON of the API <-> documents and errors, for clients.

Fields that a document does not know are passed over: a newer daemon may say more. A field that is missing
or of another type is an error. This module must never import anything outside the standard library: the SRA
stands on it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.errors import LeewardError
from engine.requests import ErrorDoc, error_doc

Doc = TypeVar("Doc")


class ReplyMalformed(ValueError):
    """A reply that is not the document that was asked for; says where. Clients turn it into DaemonForeign."""


class RemoteError(LeewardError):
    """A failure that the daemon reported: it looks like the error that was raised there."""

    def __init__(self, document: ErrorDoc) -> None:
        super().__init__(document.message)
        self.document = document
        # The catalogue entry stands on the class of an error; here it came by wire, so it stands on the instance.
        self.__dict__.update(code=document.code, remedy=document.remedy, exit_status=document.exit_status)

    @property
    def message(self) -> str:
        return self.document.message

    def details(self) -> dict[str, Any]:
        return self.document.details


def describe(error: BaseException) -> ErrorDoc:
    """What to tell of a failure, whether it was raised here or by the daemon."""
    return error.document if isinstance(error, RemoteError) else error_doc(error)


def document(kind: type[Doc], value: object) -> Doc:
    """A document of this dataclass from parsed JSON. Raises ReplyMalformed."""
    made: Doc = _build(kind, value, kind.__name__)
    return made


def documents(kind: type[Doc], value: object) -> tuple[Doc, ...]:
    """Documents from a parsed JSON list. Raises ReplyMalformed."""
    if not isinstance(value, list):
        raise ReplyMalformed(f"a list of {kind.__name__} was expected")
    return tuple(_build(kind, item, f"{kind.__name__}[{index}]") for index, item in enumerate(value))


def one(kind: type[Doc]) -> Callable[[object], Doc]:
    """How a reply that is one document is read."""
    return functools.partial(document, kind)


def many(kind: type[Doc]) -> Callable[[object], tuple[Doc, ...]]:
    """How a reply that is a list of documents is read."""
    return functools.partial(documents, kind)


def failure(value: object) -> RemoteError:
    """The error in a reply of the form `{"error": {...}}`. Raises ReplyMalformed."""
    if not isinstance(value, dict) or "error" not in value:
        raise ReplyMalformed("an error was expected")
    return RemoteError(document(ErrorDoc, value["error"]))


@functools.cache
def _fields(kind: type[Any]) -> tuple[tuple[str, Any, bool], ...]:
    """The fields of a dataclass: name, resolved type, and whether it must be given."""
    hints = get_type_hints(kind)
    return tuple(
        (
            field.name,
            hints[field.name],
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    )


def _build(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _either(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ReplyMalformed(f"{where} is no list")
        return tuple(_build(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    plain = origin or kind
    if plain is Any:
        return value
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:  # not isinstance: True is no number
        raise ReplyMalformed(f"{where} is no {plain.__name__}")
    return value


def _either(kind: Any, value: Any, where: str) -> Any:
    """`X | None` is the only union of documents."""
    if value is None:
        return None
    (inner,) = (option for option in get_args(kind) if option is not types.NoneType)
    return _build(inner, value, where)


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ReplyMalformed(f"{where} is no object")
    given: dict[str, Any] = {}
    for name, inner, required in _fields(kind):
        if name in value:
            given[name] = _build(inner, value[name], f"{where}.{name}")
        elif required:
            raise ReplyMalformed(f"{where} has no {name}")
    return kind(**given)
