"""The failures of replication, by part. The class is the catalogue entry; this file lists them all.

command.py       the command line, and the daemon that it asks
site.py          settings, data directory, records, ports
link.py          peers, the link to them, the wire
pairing.py       pairing by invitation
exports.py       hosts and their requests
operations.py    what was asked and cannot be done as things stand

The root, the exit statuses and the failures of storage stand in `blockstore.errors`; every class enters itself in the
`CATALOGUE` there. To add one: a class in its part, its name here, `make docs`. Nothing else may stand here, and
nothing outside the standard library and `blockstore.errors` may be imported.
"""

from blockstore.errors import EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, LeewardError
from engine.errors.command import (
    CommandInterrupted,
    DaemonForeign,
    DaemonLost,
    DaemonUnreachable,
    NotConfirmed,
    UsageWrong,
    WaitInterrupted,
)
from engine.errors.exports import (
    ExportFailed,
    NbdClientRefused,
    NbdClientsTooMany,
)
from engine.errors.link import (
    DialFailed,
    HandshakeFailed,
    LinkCrossed,
    LinkSilent,
    LinkStuck,
    PeerFingerprintWrong,
    PeerSiteChanged,
    PeerUnknown,
    PeerUnreachable,
    PlainBeyondLoopback,
    PlainNotAgreed,
    ProtocolVersion,
    TooManyStrangers,
    WireDamaged,
    WireLimit,
)
from engine.errors.operations import (
    BadValue,
    Interrupted,
    NameTaken,
    PeerRefused,
    PointPinned,
    Raced,
    RefusedByState,
    SealMismatch,
    StoreLimitReached,
    TokenStale,
    UnknownName,
    WouldDiscard,
)
from engine.errors.pairing import (
    AlreadyPaired,
    InvitationClosed,
    InvitationExpired,
    InvitationNameTaken,
    InvitationUnknown,
    InvitationUsed,
    InvitationWrong,
    InviterUnreachable,
    InviterWrong,
)
from engine.errors.site import (
    DataInUse,
    DataRefused,
    IdentityUnreadable,
    IoFailed,
    ListenFailed,
    MetadataNewer,
    MetadataSpace,
    MetadataUncertain,
    MetadataUnreadable,
    NotInitialised,
    PortTaken,
    SettingsInvalid,
    SiteExists,
)

__all__ = [
    "EXIT_FAILED",
    "EXIT_REFUSED",
    "EXIT_UNREACHABLE",
    "EXIT_USAGE",
    "AlreadyPaired",
    "BadValue",
    "CommandInterrupted",
    "DaemonForeign",
    "DaemonLost",
    "DaemonUnreachable",
    "DataInUse",
    "DataRefused",
    "DialFailed",
    "ExportFailed",
    "HandshakeFailed",
    "IdentityUnreadable",
    "Interrupted",
    "InvitationClosed",
    "InvitationExpired",
    "InvitationNameTaken",
    "InvitationUnknown",
    "InvitationUsed",
    "InvitationWrong",
    "InviterUnreachable",
    "InviterWrong",
    "IoFailed",
    "LeewardError",
    "LinkCrossed",
    "LinkSilent",
    "LinkStuck",
    "ListenFailed",
    "MetadataNewer",
    "MetadataSpace",
    "MetadataUncertain",
    "MetadataUnreadable",
    "NameTaken",
    "NbdClientRefused",
    "NbdClientsTooMany",
    "NotConfirmed",
    "NotInitialised",
    "PeerFingerprintWrong",
    "PeerRefused",
    "PeerSiteChanged",
    "PeerUnknown",
    "PeerUnreachable",
    "PlainBeyondLoopback",
    "PlainNotAgreed",
    "PointPinned",
    "PortTaken",
    "ProtocolVersion",
    "Raced",
    "RefusedByState",
    "SealMismatch",
    "SettingsInvalid",
    "SiteExists",
    "StoreLimitReached",
    "TokenStale",
    "TooManyStrangers",
    "UnknownName",
    "UsageWrong",
    "WaitInterrupted",
    "WireDamaged",
    "WireLimit",
    "WouldDiscard",
]
