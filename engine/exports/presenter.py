"""How hosts reach a volume: one table of kinds of export, and what may be asked of each.

NBD now; iSCSI joins as another row. Whoever presents a volume names the kind and never learns how it works.
This module must never decide what is presented: the records say it, `converge` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from engine.errors import UnknownName

if TYPE_CHECKING:
    from blockstore.layer import BlockIO

NBD = "nbd"


class ExportKind(Protocol):
    """One way in for hosts. Names are unique within a kind."""

    def present(self, name: str, io: BlockIO, *, read_only: bool, description: str = "") -> None:
        """Let hosts use `io` under `name`, from now on. Raises NameTaken, BadValue."""

    async def withdraw(self, name: str) -> None:
        """No new requests; returns when those in flight are done and the hosts are disconnected. UnknownName."""

    def uri(self, name: str) -> str:
        """What a host's administrator types to reach it."""

    def exports(self) -> list[str]:
        """The names presented now."""

    def is_busy(self, name: str) -> bool:
        """True if hosts used it within the last second."""


class Presenter:
    """The kinds of export that run here, by name."""

    def __init__(self, kinds: Mapping[str, ExportKind]) -> None:
        self._kinds = dict(kinds)

    def kinds(self) -> list[str]:
        """The names of the kinds that run here."""
        return list(self._kinds)

    def kind(self, name: str = NBD) -> ExportKind:
        """The kind of that name. Raises UnknownName."""
        try:
            return self._kinds[name]
        except KeyError:
            raise UnknownName(what="kind of export", name=name) from None

    def present(self, name: str, io: BlockIO, *, read_only: bool, description: str = "", kind: str = NBD) -> str:
        """Present `io` and return its URI. Raises UnknownName (the kind), NameTaken, BadValue."""
        way = self.kind(kind)
        way.present(name, io, read_only=read_only, description=description)
        return way.uri(name)

    async def withdraw(self, name: str) -> None:
        """Withdraw `name` from every kind that presents it; nothing to do is fine, for converge repeats itself."""
        for way in self._kinds.values():
            if name in way.exports():
                await way.withdraw(name)

    def exports(self) -> list[tuple[str, str]]:
        """(kind, name) of everything presented now."""
        return [(kind, name) for kind, way in self._kinds.items() for name in way.exports()]

    def uri(self, name: str, kind: str = NBD) -> str:
        """The URI of an export, presented now or not. Raises UnknownName (the kind)."""
        return self.kind(kind).uri(name)

    def is_busy(self, name: str) -> bool:
        """True if hosts used it within the last second, whatever way."""
        return any(way.is_busy(name) for way in self._kinds.values())
