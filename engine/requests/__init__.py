"""What may be asked of a daemon, and the documents it answers with: the contract of API, CLI and SRA.

asked.py        the requests
documents.py    the documents

Here stand the tables over both. To add a request: a class in its part, its name in `Request`, the document of its
outcome in `OUTCOMES`, a row in the table of `live`, `make docs`. Nothing outside the standard library and
`blockstore.errors` may be imported.
"""

from __future__ import annotations

from typing import Any, get_args

from blockstore.errors import CATALOGUE, LeewardError
from engine.requests.asked import (
    Demote,
    GroupCreate,
    GroupRemove,
    GroupSet,
    LinkSet,
    Pause,
    PeerAdd,
    PeerInvite,
    PeerJoin,
    PeerRemove,
    Promote,
    Restore,
    Resume,
    Reverse,
    SetAsideDrop,
    SetAsideExport,
    SetAsideUnexport,
    SnapshotCreate,
    SnapshotDelete,
    SnapshotReset,
    Sync,
    Verify,
    VolumeAdd,
    VolumeRemove,
    VolumeReopen,
    recorded,
)
from engine.requests.documents import (
    CatalogueEntryDoc,
    DifferenceDoc,
    ErrorDoc,
    EventDoc,
    ExportDoc,
    GroupDoc,
    InitDoc,
    InvitationDoc,
    JobDoc,
    LinkDoc,
    PeerDoc,
    PointDoc,
    ProgressDoc,
    RemovedDoc,
    SetAsideDoc,
    SiteDoc,
    SnapshotDoc,
    SnapshotVolumeDoc,
    StatusDoc,
    SyncDoc,
    VerifyDoc,
    VolumeDoc,
    YieldDoc,
)

__all__ = [
    "OUTCOMES",
    "REQUESTS",
    "CatalogueEntryDoc",
    "Demote",
    "DifferenceDoc",
    "ErrorDoc",
    "EventDoc",
    "ExportDoc",
    "GroupCreate",
    "GroupDoc",
    "GroupRemove",
    "GroupSet",
    "InitDoc",
    "InvitationDoc",
    "JobDoc",
    "LinkDoc",
    "LinkSet",
    "Pause",
    "PeerAdd",
    "PeerDoc",
    "PeerInvite",
    "PeerJoin",
    "PeerRemove",
    "PointDoc",
    "ProgressDoc",
    "Promote",
    "RemovedDoc",
    "Request",
    "Restore",
    "Resume",
    "Reverse",
    "SetAsideDoc",
    "SetAsideDrop",
    "SetAsideExport",
    "SetAsideUnexport",
    "SiteDoc",
    "SnapshotCreate",
    "SnapshotDelete",
    "SnapshotDoc",
    "SnapshotReset",
    "SnapshotVolumeDoc",
    "StatusDoc",
    "Sync",
    "SyncDoc",
    "Verify",
    "VerifyDoc",
    "VolumeAdd",
    "VolumeDoc",
    "VolumeRemove",
    "VolumeReopen",
    "YieldDoc",
    "catalogue",
    "error_doc",
    "recorded",
]

Request = (
    PeerAdd
    | PeerInvite
    | PeerJoin
    | PeerRemove
    | VolumeAdd
    | VolumeRemove
    | VolumeReopen
    | GroupCreate
    | GroupSet
    | GroupRemove
    | LinkSet
    | Sync
    | Pause
    | Resume
    | Verify
    | SnapshotCreate
    | SnapshotReset
    | SnapshotDelete
    | Promote
    | Demote
    | Reverse
    | Restore
    | SetAsideDrop
    | SetAsideExport
    | SetAsideUnexport
)

REQUESTS: dict[str, type[Any]] = {cls.kind: cls for cls in get_args(Request)}


OUTCOMES: dict[str, type[Any]] = {
    PeerAdd.kind: PeerDoc,
    PeerInvite.kind: InvitationDoc,
    PeerJoin.kind: PeerDoc,
    PeerRemove.kind: RemovedDoc,
    VolumeAdd.kind: VolumeDoc,
    VolumeRemove.kind: RemovedDoc,
    VolumeReopen.kind: VolumeDoc,
    GroupCreate.kind: GroupDoc,
    GroupSet.kind: GroupDoc,
    GroupRemove.kind: RemovedDoc,
    LinkSet.kind: LinkDoc,
    Sync.kind: SyncDoc,
    Pause.kind: GroupDoc,
    Resume.kind: GroupDoc,
    Verify.kind: VerifyDoc,
    SnapshotCreate.kind: SnapshotDoc,
    SnapshotReset.kind: SnapshotDoc,
    SnapshotDelete.kind: RemovedDoc,
    Promote.kind: GroupDoc,
    Demote.kind: GroupDoc,
    Reverse.kind: YieldDoc,
    Restore.kind: YieldDoc,
    SetAsideDrop.kind: RemovedDoc,
    SetAsideExport.kind: SetAsideDoc,
    SetAsideUnexport.kind: SetAsideDoc,
}
"""The document that a finished job of each kind carries in `outcome`."""


def error_doc(error: BaseException) -> ErrorDoc:
    """What clients are told of a failure. One that is no LeewardError is `internal`, with its own words as a detail."""
    if not isinstance(error, LeewardError):
        reason = f"{type(error).__name__}: {error}"
        message = f"{LeewardError.meaning.rstrip('.')}: {reason}."
        return ErrorDoc(LeewardError.code, message, LeewardError.remedy, {"reason": reason})
    facts = error.details()
    return ErrorDoc(error.code, error.message, error.remedy.format(**facts), facts, error.exit_status)


def catalogue() -> tuple[CatalogueEntryDoc, ...]:
    """Every error of the product, by code."""
    import engine.errors  # it imports every part, and the classes enter themselves  # noqa: F401

    known: dict[str, type[LeewardError]] = {LeewardError.code: LeewardError, **CATALOGUE}
    return tuple(
        CatalogueEntryDoc(code, kind.meaning, kind.remedy, kind.exit_status) for code, kind in sorted(known.items())
    )
