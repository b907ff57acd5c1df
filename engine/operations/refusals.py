"""Failures as the peer and the operator are told of them: any exception -> a catalogue error -> REFUSED. Pure."""

from __future__ import annotations

from blockstore.errors import LeewardError
from engine.errors import IoFailed
from engine.wire.messages import Refused


def as_leeward(error: Exception) -> LeewardError:
    """`error` itself if it is in the catalogue, else the entry that says it best."""
    if isinstance(error, LeewardError):
        return error
    if isinstance(error, OSError):
        return IoFailed(path=str(error.filename or "a file"), reason=error.strerror or str(error))
    return LeewardError()


def refused(error: LeewardError, *, group: bytes | None, sync: bytes | None) -> Refused:
    """The message that tells the peer."""
    return Refused(
        group=group, sync=sync, code=error.code, message=error.message[:2000], remedy=error.advice[:2000], details={}
    )
