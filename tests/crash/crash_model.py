"""What must be true after a crash, known from what hosts, senders and operators did, and from nothing in the product.

Contents: of each sector every value in order, how far it was replied to and how far flushed. Points: the image of
each at its capture. The rest are sets: what may be visible, and what must be, since somebody was told.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from blockstore.units import BLOCK
from rig.disk_states import KILL
from rig.memory_disk import SECTOR, ZERO

Image = dict[int, bytes]
"""Block -> 4096 bytes; blocks that are not in it are zeros."""
ZERO_BLOCK = bytes(BLOCK)
PER_BLOCK = BLOCK // SECTOR


class Violation(AssertionError):
    """A state after a crash breaks a promise."""


class Written:
    """What hosts did to one thing that they write: a volume, a snapshot, a promoted top. `below`: what was there."""

    def __init__(self, below: Image) -> None:
        self.below = dict(below)
        self.history: dict[int, list[bytes]] = {}
        self.replied: dict[int, int] = {}
        self.flushed: dict[int, int] = {}
        self.maybe: dict[int, dict[int, bytes]] = {}
        self.marks: dict[int, dict[int, int]] = {}

    def _below(self, sector: int) -> bytes:
        block, inside = divmod(sector, PER_BLOCK)
        return self.below.get(block, ZERO_BLOCK)[inside * SECTOR : (inside + 1) * SECTOR]

    def wrote(self, number: int, offset: int, data: bytes) -> None:
        """A write is about to be dispatched."""
        first = offset // SECTOR
        self.maybe[number] = {
            first + at: data[at * SECTOR : (at + 1) * SECTOR].ljust(SECTOR, b"\0")
            for at in range(-(-len(data) // SECTOR))
        }

    def dispatched(self, number: int) -> None:
        """It was: from now on it is the newest of its sectors."""
        marks = self.marks[number] = {}
        for sector, part in self.maybe.pop(number).items():
            history = self.history.setdefault(sector, [self._below(sector)])
            history.append(part)
            marks[sector] = len(history) - 1

    def was_replied(self, number: int) -> None:
        """The host has its answer."""
        self.replied.update(self.marks[number])

    def was_flushed(self, marks: dict[int, int]) -> None:
        """A flush that began when `marks` had been replied to has been answered."""
        for sector, mark in marks.items():
            self.flushed[sector] = max(mark, self.flushed.get(sector, 0))

    def now(self, block: int) -> bytes:
        """The block as all dispatched writes make it."""
        sectors = range(block * PER_BLOCK, (block + 1) * PER_BLOCK)
        return b"".join(self.history[s][-1] if s in self.history else self._below(s) for s in sectors)

    def blocks(self) -> set[int]:
        """All blocks that anybody touched."""
        touched = {sector // PER_BLOCK for sector in self.history} | set(self.below)
        return touched.union(*({sector // PER_BLOCK for sector in some} for some in self.maybe.values()))

    def image(self) -> Image:
        return {block: self.now(block) for block in self.blocks()}

    def check(self, what: str, block: int, content: bytes, kind: str) -> None:
        """The content of a block after a crash is one of those that it may have."""
        floors = self.replied if kind == KILL else self.flushed
        for at in range(PER_BLOCK):
            sector = block * PER_BLOCK + at
            found = content[at * SECTOR : (at + 1) * SECTOR]
            history = self.history.get(sector) or [self._below(sector)]
            legal = history[floors.get(sector, 0) :]
            if found not in legal and not any(some.get(sector) == found for some in self.maybe.values()):
                where = "lost" if found in history or found == ZERO else "never written"
                raise Violation(f"{what}: sector {sector} after {kind}: what was acknowledged is {where}")

    def reset_maybe(self) -> None:
        """All of it may be as it is below again; what was written counts as before until then."""
        for block in self.blocks():
            for sector in range(block * PER_BLOCK, (block + 1) * PER_BLOCK):
                self.history.setdefault(sector, [self._below(sector)]).append(self._below(sector))

    def lost_power(self) -> None:
        """What was not flushed may be gone: from now on only what was flushed is promised."""
        self.replied = dict(self.flushed)


TIGHTER = frozenset({"flushed", "adopted", "told", "visible", "gone", "role", "snapshot", "snapshot_gone", "was_reset"})
"""Notes that promise more than was promised before."""


@dataclass
class Sync:
    """A sync that somebody sends here: all that its frames may say. `plans`: a volume's blocks, None for zeros."""

    begin: Any
    plans: list[dict[int, bytes | None]]
    told: list[set[int]] = field(default_factory=list)
    """Regions of each volume that the sender was told are durable."""


@dataclass
class Model:
    """The promises that stand at one moment. Its methods are the notes of a record."""

    written: dict[str, Written] = field(default_factory=dict)
    images: dict[bytes, dict[str, Image]] = field(default_factory=dict)
    common: set[bytes] = field(default_factory=set)
    """Which points the protected side may take for the newest common one."""
    may_exist: set[bytes] = field(default_factory=set)
    """Points that the peer was asked to seal."""
    must: set[bytes] = field(default_factory=set)
    may: set[bytes] = field(default_factory=set)
    """Points that are visible for certain; and those that may be."""
    roles: set[str] = field(default_factory=set)
    sync: Sync | None = None
    snapshots: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    """Name -> its point, and whether it is certain to be there."""
    version: int = 0
    """Grows when more is promised: the same disk is judged again then."""
    replies: int = 0
    """Grows when a host has an answer, which is a promise for kills only."""

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def tell(self, name: str, arguments: tuple[Any, ...]) -> None:
        """A note of the record."""
        self.replies += name == "replied"
        self.version += name in TIGHTER
        getattr(self, name)(*arguments)

    def surface(self, name: str, below: Image) -> None:
        self.written[name] = Written(below)

    def wrote(self, surface: str, number: int, offset: int, data: bytes) -> None:
        self.written[surface].wrote(number, offset, data)

    def dispatched(self, surface: str, number: int) -> None:
        self.written[surface].dispatched(number)

    def replied(self, surface: str, number: int) -> None:
        self.written[surface].was_replied(number)

    def flushed(self, surface: str, marks: dict[int, int]) -> None:
        self.written[surface].was_flushed(marks)

    def imaged(self, point: bytes, image: dict[str, Image]) -> None:
        self.images[point] = image

    def captured_now(self, point: bytes) -> None:
        """The switch, for all volumes at this instant."""
        self.images[point] = {name: written.image() for name, written in self.written.items()}

    def frozen_read(self, point: bytes, name: str, runs: tuple[tuple[int, int], ...], data: bytes) -> None:
        """A sender read this of the frozen image: it must be what was there at the switch."""
        at = 0
        for first, count in runs:
            for block in range(first, first + count):
                if data[at : at + BLOCK] != self.images[point][name].get(block, ZERO_BLOCK):
                    raise Violation(f"block {block} of {name} does not read as it was at the switch")
                at += BLOCK

    def seal_sent(self, point: bytes) -> None:
        self.may_exist.add(point)

    def sealed_heard(self, point: bytes) -> None:
        self.common.add(point)

    def adopted(self, point: bytes) -> None:
        self.common, self.may_exist = {point}, set()

    def begun(self, sync: Sync, on: bytes, plan: dict[int, bytes | None]) -> None:
        """A sync is sent; its point is the point `on`, if any, with these blocks, in every volume."""
        self.sync = copy.deepcopy(sync)
        if on:
            news = {block: data or ZERO_BLOCK for block, data in plan.items()}
            self.images[sync.begin.point] = {name: {**image, **news} for name, image in self.images[on].items()}

    def written_over(self, surface: str, point: bytes, name: str) -> None:
        """Hosts write over a volume as of a point."""
        self.written[surface] = Written(self.images[point][name])

    def told(self, sync: bytes, volume: int, regions: set[int]) -> None:
        if self.sync is not None and self.sync.begin.sync == sync:
            self.sync.told[volume] |= regions

    def visible_maybe(self, point: bytes) -> None:
        self.may.add(point)

    def visible(self, point: bytes) -> None:
        self.must.add(point)
        self.sync = None

    def gone_maybe(self, point: bytes) -> None:
        self.must.discard(point)

    def gone(self, point: bytes) -> None:
        self.may.discard(point)

    def role_maybe(self, role: str) -> None:
        self.roles.add(role)

    def role(self, role: str) -> None:
        self.roles = {role}

    def snapshot_maybe(self, name: str, point: bytes) -> None:
        self.snapshots[name] = (point, False)

    def snapshot(self, name: str, point: bytes) -> None:
        self.snapshots[name] = (point, True)

    def snapshot_gone(self, name: str) -> None:
        del self.snapshots[name]

    def reset_maybe(self, surface: str) -> None:
        self.written[surface].reset_maybe()

    def was_reset(self, surface: str) -> None:
        """Nothing of what was written is there."""
        below = self.written[surface].below
        self.written[surface] = Written({**dict.fromkeys(self.written[surface].blocks(), ZERO_BLOCK), **below})
