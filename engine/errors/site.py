"""A site that cannot be made or started: settings, data directory, records, ports, and what the system refuses.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_REFUSED, EXIT_USAGE, LeewardError


@dataclass(eq=False)
class SiteExists(LeewardError):
    path: str
    code: ClassVar[str] = "site_exists"
    meaning: ClassVar[str] = "{path} holds a site already; it is left as it is."
    remedy: ClassVar[str] = "Start it with `leeward serve --data {path}`, or choose another directory."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class NotInitialised(LeewardError):
    data: str
    code: ClassVar[str] = "not_initialised"
    meaning: ClassVar[str] = "{data} holds no site."
    remedy: ClassVar[str] = (
        "Run `leeward init --data {data} --name NAME` first, or name the right directory with --data."
    )


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


@dataclass(eq=False)
class IdentityUnreadable(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "identity_unreadable"
    meaning: ClassVar[str] = "The identity of this site in {path} cannot be used: {reason}."
    remedy: ClassVar[str] = "Restore the folder from a backup; a new identity has to be paired with every peer again."


@dataclass(eq=False)
class ListenFailed(LeewardError):
    address: str
    what: str
    reason: str
    code: ClassVar[str] = "listen_failed"
    meaning: ClassVar[str] = "The {what} cannot listen on {address}: {reason}."
    remedy: ClassVar[str] = "Name an address of this host in leeward.toml."


@dataclass(eq=False)
class PortTaken(LeewardError):
    address: str
    what: str
    code: ClassVar[str] = "port_taken"
    meaning: ClassVar[str] = "The {what} cannot listen on {address}: another program does."
    remedy: ClassVar[str] = "Stop that program, or change the address in leeward.toml."


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
class IoFailed(LeewardError):
    """The operating system refused an operation on a file that no other class of the catalogue names."""

    path: str
    reason: str
    code: ClassVar[str] = "io_failed"
    meaning: ClassVar[str] = "Reading or writing {path} failed: {reason}."
    remedy: ClassVar[str] = "Look at the disk, its free space and the permissions of the path, then try again."


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
