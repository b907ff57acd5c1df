"""How hosts reach a volume: requests that failed and clients that were turned away.

This module must never import anything outside the standard library and `blockstore.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blockstore.errors import EXIT_REFUSED, LeewardError


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
