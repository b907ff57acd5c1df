"""The failures of replication: link, records, state and requests. The class is the catalogue entry.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, LeewardError

__all__ = ["EXIT_FAILED", "EXIT_REFUSED", "EXIT_UNREACHABLE", "EXIT_USAGE", "LeewardError"]


@dataclass(eq=False)
class UnknownName(LeewardError):
    """A group, volume, peer, point, snapshot or job that is not here."""

    what: str
    name: str
    code: ClassVar[str] = "unknown_name"
    meaning: ClassVar[str] = "There is no {what} named {name} here."
    remedy: ClassVar[str] = "Run `leeward status` to see what there is."


@dataclass(eq=False)
class NameTaken(LeewardError):
    what: str
    name: str
    code: ClassVar[str] = "name_taken"
    meaning: ClassVar[str] = "There is a {what} named {name} already."
    remedy: ClassVar[str] = "Choose another name."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class BadValue(LeewardError):
    what: str
    value: str
    reason: str
    code: ClassVar[str] = "bad_value"
    meaning: ClassVar[str] = "{value} is no valid {what}: {reason}."
    remedy: ClassVar[str] = "Correct it and try again."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class RefusedByState(LeewardError):
    """The request is well-formed, but not allowed as things stand."""

    operation: str
    group: str
    reason: str
    code: ClassVar[str] = "refused_by_state"
    meaning: ClassVar[str] = "{operation} of {group} is refused: {reason}."
    remedy: ClassVar[str] = "Run `leeward group show {group}` to see its state."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PeerUnreachable(LeewardError):
    peer: str
    code: ClassVar[str] = "peer_unreachable"
    meaning: ClassVar[str] = "There is no contact with peer {peer}."
    remedy: ClassVar[str] = (
        "Check that its daemon runs and that its address and fingerprint are right (`leeward peer list`)."
    )


@dataclass(eq=False)
class DaemonUnreachable(LeewardError):
    data: str
    reason: str
    code: ClassVar[str] = "daemon_unreachable"
    meaning: ClassVar[str] = "No daemon answers for {data} ({reason})."
    remedy: ClassVar[str] = "Start it with `leeward serve --data {data}`, or name the right directory with --data."
    exit_status: ClassVar[int] = EXIT_UNREACHABLE


@dataclass(eq=False)
class PortTaken(LeewardError):
    address: str
    what: str
    code: ClassVar[str] = "port_taken"
    meaning: ClassVar[str] = "The {what} cannot listen on {address}: another program does."
    remedy: ClassVar[str] = "Stop that program, or change the address in leeward.toml."


@dataclass(eq=False)
class PeerRefused(LeewardError):
    """The peer said no. `cause` is the peer's catalogue code."""

    peer: str
    reason: str
    cause: str
    cure: str
    code: ClassVar[str] = "peer_refused"
    meaning: ClassVar[str] = "Peer {peer} refused: {reason}"
    remedy: ClassVar[str] = "{cure}"
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class DaemonForeign(LeewardError):
    """What answers on the socket is not the API of this version."""

    data: str
    reason: str
    code: ClassVar[str] = "daemon_foreign"
    meaning: ClassVar[str] = "The daemon of {data} gave an answer that this program cannot read ({reason})."
    remedy: ClassVar[str] = "Use the same version of Leeward for the daemon and the command (`leeward version`)."


@dataclass(eq=False)
class DaemonLost(LeewardError):
    """The daemon went away while a client waited for a job."""

    data: str
    operation: str
    code: ClassVar[str] = "daemon_lost"
    meaning: ClassVar[str] = "The daemon of {data} went away while operation {operation} was running."
    remedy: ClassVar[str] = "Start it again; `leeward jobs {operation}` then tells how the operation ended."
    exit_status: ClassVar[int] = EXIT_UNREACHABLE


@dataclass(eq=False)
class CommandInterrupted(LeewardError):
    code: ClassVar[str] = "command_interrupted"
    meaning: ClassVar[str] = "The command was interrupted."
    remedy: ClassVar[str] = "Run it again; `leeward jobs` shows what the daemon had been asked before."


@dataclass(eq=False)
class NotConfirmed(LeewardError):
    operation: str
    group: str
    code: ClassVar[str] = "not_confirmed"
    meaning: ClassVar[str] = "{operation} of {group} was not confirmed; nothing was changed."
    remedy: ClassVar[str] = "Type the name of the group when you are asked, or give --yes."


@dataclass(eq=False)
class UsageWrong(LeewardError):
    """A command line that cannot be understood."""

    reason: str
    command: str
    code: ClassVar[str] = "usage"
    meaning: ClassVar[str] = "{reason}"
    remedy: ClassVar[str] = "Run `{command} --help` to see how it is used."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class WaitInterrupted(LeewardError):
    """The operator stopped waiting; the job did not stop."""

    operation: str
    code: ClassVar[str] = "wait_interrupted"
    meaning: ClassVar[str] = "Waiting was interrupted; operation {operation} goes on in the daemon."
    remedy: ClassVar[str] = "Run `leeward jobs {operation}` to see how it ends."


@dataclass(eq=False)
class DataInUse(LeewardError):
    data: str
    holder: str
    code: ClassVar[str] = "data_in_use"
    meaning: ClassVar[str] = "The data directory {data} is in use by {holder}."
    remedy: ClassVar[str] = "Stop that daemon, or name another directory with --data."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class DataRefused(LeewardError):
    data: str
    reason: str
    code: ClassVar[str] = "data_refused"
    meaning: ClassVar[str] = "{data} cannot be used as a data directory: {reason}."
    remedy: ClassVar[str] = "Choose a directory on a local file system that the daemon's user owns."


@dataclass(eq=False)
class MetadataNewer(LeewardError):
    path: str
    found: int
    known: int
    code: ClassVar[str] = "metadata_newer"
    meaning: ClassVar[str] = "{path} was written by a newer Leeward (schema {found}, this one knows up to {known})."
    remedy: ClassVar[str] = "Install that version of Leeward again; nothing was changed."


@dataclass(eq=False)
class MetadataSpace(LeewardError):
    path: str
    code: ClassVar[str] = "metadata_space"
    meaning: ClassVar[str] = "There was no space to record a change in {path}; nothing of it was recorded."
    remedy: ClassVar[str] = (
        "Free space on that file system and repeat; the reserve for the next few changes was given up."
    )


@dataclass(eq=False)
class MetadataUncertain(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "metadata_uncertain"
    meaning: ClassVar[str] = "A change of {path} may or may not be recorded ({reason}); the daemon stops at once."
    remedy: ClassVar[str] = "Repair the disk, then start the daemon again: it reads what is true."


@dataclass(eq=False)
class MetadataUnreadable(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "metadata_unreadable"
    meaning: ClassVar[str] = "The records in {path} cannot be used ({reason}); nothing was changed."
    remedy: ClassVar[str] = (
        "Restore {path} from a copy; if `leeward init` was cut short, remove the directory and run it again."
    )


@dataclass(eq=False)
class NotInitialised(LeewardError):
    data: str
    code: ClassVar[str] = "not_initialised"
    meaning: ClassVar[str] = "{data} holds no site."
    remedy: ClassVar[str] = (
        "Run `leeward init --data {data} --name NAME` first, or name the right directory with --data."
    )


@dataclass(eq=False)
class PointPinned(LeewardError):
    """`holders` says what keeps the point, as the records name it: `snapshot:<id>`, `promoted`."""

    point: str
    holders: str
    code: ClassVar[str] = "point_pinned"
    meaning: ClassVar[str] = "Point {point} is held by {holders}."
    remedy: ClassVar[str] = "Delete what holds it first (`leeward snapshot list`)."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class Raced(LeewardError):
    """A compare-and-set lost: what the change was decided on is no longer so. Read again, decide again."""

    what: str
    name: str
    reason: str
    code: ClassVar[str] = "raced"
    meaning: ClassVar[str] = "The {what} {name} changed meanwhile: {reason}."
    remedy: ClassVar[str] = "Try again."


@dataclass(eq=False)
class SettingsInvalid(LeewardError):
    """`key` is the dotted key, or the line where the file is no TOML at all."""

    path: str
    key: str
    reason: str
    code: ClassVar[str] = "settings_invalid"
    meaning: ClassVar[str] = "{path}: {key}: {reason}."
    remedy: ClassVar[str] = "Correct it in the file; `leeward init` writes one that explains every key."
    exit_status: ClassVar[int] = EXIT_USAGE


# --- wire and link --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class DialFailed(LeewardError):
    peer: str
    address: str
    reason: str
    code: ClassVar[str] = "dial_failed"
    meaning: ClassVar[str] = "Peer {peer} does not answer at {address}: {reason}. It is dialled again and again."
    remedy: ClassVar[str] = "Check that its daemon runs, that the address is right, and what lies between."


@dataclass(eq=False)
class HandshakeFailed(LeewardError):
    """A connection ended before both sides knew each other."""

    address: str
    reason: str
    code: ClassVar[str] = "handshake_failed"
    meaning: ClassVar[str] = "A connection with {address} came to nothing: {reason}."
    remedy: ClassVar[str] = (
        "If it is a peer: look at the events there, and compare the fingerprints on both sides (`leeward peer list`)."
    )


@dataclass(eq=False)
class IdentityUnreadable(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "identity_unreadable"
    meaning: ClassVar[str] = "The identity of this site in {path} cannot be used: {reason}."
    remedy: ClassVar[str] = "Restore the folder from a backup; a new identity has to be paired with every peer again."


@dataclass(eq=False)
class LinkCrossed(LeewardError):
    """Both sides dialled at once; this connection is the one that gives way."""

    peer: str
    code: ClassVar[str] = "link_crossed"
    meaning: ClassVar[str] = "Another connection with {peer} takes the place of this one."
    remedy: ClassVar[str] = "Nothing: there is one link for two sites, whoever dialled."


@dataclass(eq=False)
class LinkSilent(LeewardError):
    peer: str
    silence_s: float
    code: ClassVar[str] = "link_silent"
    meaning: ClassVar[str] = "Nothing came from peer {peer} for {silence_s:g} s; the link is dialled again."
    remedy: ClassVar[str] = "If it stays away: check its host, its daemon and the network between."


@dataclass(eq=False)
class LinkStuck(LeewardError):
    peer: str
    backlog_bytes: int
    code: ClassVar[str] = "link_stuck"
    meaning: ClassVar[str] = "Peer {peer} sends but does not read: {backlog_bytes} bytes wait for it."
    remedy: ClassVar[str] = "The link is made anew; if it goes on, look at the daemon there."


@dataclass(eq=False)
class ListenFailed(LeewardError):
    address: str
    what: str
    reason: str
    code: ClassVar[str] = "listen_failed"
    meaning: ClassVar[str] = "The {what} cannot listen on {address}: {reason}."
    remedy: ClassVar[str] = "Name an address of this host in leeward.toml."


@dataclass(eq=False)
class PeerFingerprintWrong(LeewardError):
    """Who answers at the peer's address is someone else."""

    peer: str
    address: str
    expected: str
    found: str
    code: ClassVar[str] = "wrong_fingerprint"
    meaning: ClassVar[str] = (
        "{address} does not answer as peer {peer}: its fingerprint is {found}, the one paired is {expected}."
    )
    remedy: ClassVar[str] = (
        "Ask the other site for its fingerprint; if it truly is this one, `leeward peer remove {peer}` and add it anew."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PeerSiteChanged(LeewardError):
    peer: str
    expected: str
    found: str
    code: ClassVar[str] = "peer_site_changed"
    meaning: ClassVar[str] = "Peer {peer} is site {found} now; it was {expected} when the two first met."
    remedy: ClassVar[str] = "If its data directory was made anew, `leeward peer remove {peer}` and add it again."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PeerUnknown(LeewardError):
    address: str
    site: str
    fingerprint: str
    code: ClassVar[str] = "unknown_peer"
    meaning: ClassVar[str] = "Site {site} with fingerprint {fingerprint} dialled from {address}, and is no peer here."
    remedy: ClassVar[str] = "If it should be: `leeward peer add NAME --address HOST:PORT --fingerprint {fingerprint}`."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class PlainBeyondLoopback(LeewardError):
    address: str
    code: ClassVar[str] = "plain_beyond_loopback"
    meaning: ClassVar[str] = "{address} is not on this host: a link without TLS is allowed on loopback only."
    remedy: ClassVar[str] = "Add the peer without --plain."
    exit_status: ClassVar[int] = EXIT_USAGE


@dataclass(eq=False)
class PlainNotAgreed(LeewardError):
    peer: str
    code: ClassVar[str] = "plain_not_agreed"
    meaning: ClassVar[str] = "Peer {peer} dialled without TLS, but was added with TLS here."
    remedy: ClassVar[str] = "Give --plain to `leeward peer add` on both sides, or on neither."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class ProtocolVersion(LeewardError):
    peer: str
    theirs: int
    ours: str
    code: ClassVar[str] = "protocol_version"
    meaning: ClassVar[str] = "Site {peer} speaks version {theirs} of the protocol, this one {ours}."
    remedy: ClassVar[str] = "Bring the older of the two daemons up to date."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class TooManyStrangers(LeewardError):
    address: str
    limit: int
    code: ClassVar[str] = "too_many_strangers"
    meaning: ClassVar[str] = (
        "A connection from {address} was dropped: {limit} that have not said who they are is the limit."
    )
    remedy: ClassVar[str] = "Find out who dials from there; peers get through as soon as the others have timed out."


@dataclass(eq=False)
class WireDamaged(LeewardError):
    reason: str
    code: ClassVar[str] = "wire_damaged"
    meaning: ClassVar[str] = "What arrived on a link is not the protocol: {reason}."
    remedy: ClassVar[str] = "The link is made anew; if it goes on, find out what else talks to this port."


@dataclass(eq=False)
class WireLimit(LeewardError):
    what: str
    size: int
    limit: int
    code: ClassVar[str] = "wire_limit"
    meaning: ClassVar[str] = "A message on a link is too large: {what} of {size}, the limit is {limit}."
    remedy: ClassVar[str] = "The link is made anew; if it goes on, find out what else talks to this port."


# --- exports ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ExportFailed(LeewardError):
    """A host's request failed below the export, by an error that has no entry of its own."""

    export: str
    request: str
    reason: str
    code: ClassVar[str] = "export_failed"
    meaning: ClassVar[str] = "A {request} of export {export} failed: {reason}."
    remedy: ClassVar[str] = "Look at the disk under the volume's store (space, kernel log); the host was told."


@dataclass(eq=False)
class NbdClientRefused(LeewardError):
    """A client broke the protocol, so it was disconnected; nothing of what it sent last was done."""

    client: str
    reason: str
    code: ClassVar[str] = "nbd_client_refused"
    meaning: ClassVar[str] = "NBD client {client} was disconnected: {reason}."
    remedy: ClassVar[str] = "Point NBD clients only at this port; if it was one, update it and look at the network."


@dataclass(eq=False)
class NbdClientsTooMany(LeewardError):
    client: str
    limit: int
    code: ClassVar[str] = "nbd_clients_too_many"
    meaning: ClassVar[str] = "NBD client {client} was turned away: {limit} are connected."
    remedy: ClassVar[str] = "Disconnect clients that are not needed (every host may use several connections)."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class IoFailed(LeewardError):
    """The operating system refused an operation on a file that no other class of the catalogue names."""

    path: str
    reason: str
    code: ClassVar[str] = "io_failed"
    meaning: ClassVar[str] = "Reading or writing {path} failed: {reason}."
    remedy: ClassVar[str] = "Look at the disk, its free space and the permissions of the path, then try again."


@dataclass(eq=False)
class SealMismatch(LeewardError):
    """What the receiver holds is not what the sender says it sent: nothing is sealed."""

    volume: str
    sent: int
    held: int
    code: ClassVar[str] = "seal_mismatch"
    meaning: ClassVar[str] = "Volume {volume}: {sent} blocks were sent, {held} are held, or their digests differ."
    remedy: ClassVar[str] = "The sync is dropped and nothing was sealed; sync again, and report it if it goes on."


@dataclass(eq=False)
class Interrupted(LeewardError):
    """A job that a restart of the daemon cut short."""

    operation: str
    code: ClassVar[str] = "interrupted"
    meaning: ClassVar[str] = "Operation {operation} was cut short by a restart of the daemon."
    remedy: ClassVar[str] = "Look at `leeward status` for what it reached, and ask again."


@dataclass(eq=False)
class SiteExists(LeewardError):
    path: str
    code: ClassVar[str] = "site_exists"
    meaning: ClassVar[str] = "{path} holds a site already; it is left as it is."
    remedy: ClassVar[str] = "Start it with `leeward serve --data {path}`, or choose another directory."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class StoreLimitReached(LeewardError):
    """The peer's group would need more room than this site gives to stores that it makes by itself."""

    folder: str
    made_bytes: int
    wanted_bytes: int
    limit_bytes: int
    code: ClassVar[str] = "store_limit_reached"
    meaning: ClassVar[str] = (
        "{wanted_bytes} bytes more in {folder} pass the limit of {limit_bytes}; {made_bytes} are there."
    )
    remedy: ClassVar[str] = (
        "Raise store_limit in leeward.toml, or prepare a store with `leeward volume add --recovery`."
    )
    exit_status: ClassVar[int] = EXIT_REFUSED
