"""What a crash can leave: from the record of a run, every legal state of the disks at every moment of it.

Power: what was synced is there; of what was not, any part may be: nothing, all, each change alone, all but each,
every prefix, every cut of a change at 512 bytes, seeded subsets of sectors; names and sizes are changes of their own.
Kill: everything is there that was written, also half of the write under way, and live maps as they are; none of it is
durable yet. States are told apart by a digest, so that each is built and judged once.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from xxhash import xxh3_64_intdigest

from rig.memory_disk import ZERO, Content, Entry, MemoryDisk

POWER, KILL = "power", "kill"
SUBSETS = 24
"""Seeded subsets of pending sectors at each moment."""
ALL_SUBSETS = 6
"""Up to so many pending sectors every subset is built."""
_MASK = (1 << 64) - 1

Mask = int | None
"""Which sectors of a change land, as bits; None: all of it."""
Choice = tuple[tuple[int, Mask], ...]
"""Of the pending changes, by index: which are on the disk."""


@dataclass(frozen=True)
class Recipe:
    """How to build a state: the moment (entries of the record that have happened), and what was lost."""

    moment: int
    kind: str
    choice: Choice
    digest: int


class Replay:
    """What is durable and what is pending at one moment of a record."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.durable: dict[int, Content] = {}
        self.pending: list[Entry] = []
        self.records = b""
        self.live: dict[str, bytes] = {}
        self.folders: set[str] = set()
        self.next_inode = 1
        self._digests: dict[int, int] = {}

    def fork(self) -> Replay:
        """The same, to go another way from here."""
        other = Replay()
        other.names = dict(self.names)
        other.durable = {inode: content.copy() for inode, content in self.durable.items()}
        other.pending = list(self.pending)
        other.records, other.live, other.next_inode = self.records, self.live, self.next_inode
        other.folders = set(self.folders)
        other._digests = dict(self._digests)
        return other

    # The record goes on

    def apply(self, entry: Entry) -> None:
        """The next entry of the record."""
        kind = entry[0]
        if kind in ("data", "size"):
            if entry[3]:
                self._settle([entry])
                self._forget(entry)
            else:
                self.pending.append(entry)
        elif kind in ("create", "unlink"):
            self.next_inode = max(self.next_inode, entry[2] + 1)
            self.pending.append(entry)
        elif kind == "sync":
            self._take(lambda op: op[0] in ("data", "size") and op[1] == entry[1])
        elif kind == "dir":
            self._take(lambda op: op[0] in ("create", "unlink") and os.path.dirname(op[1]) == entry[1])
        elif kind == "folder":
            self.folders.add(entry[1])
        elif kind == "commit":
            self.records = entry[1]
        elif kind == "live":
            self.live = entry[1]

    def _take(self, chosen: Any) -> None:
        mine = [op for op in self.pending if chosen(op)]
        if mine:
            self.pending = [op for op in self.pending if not chosen(op)]
            self._settle(mine)

    def _forget(self, entry: Entry) -> None:
        """A durable write: what was pending of its sectors is older."""
        if entry[0] == "data":
            over = {sector for sector, _ in entry[2]}
            for index, op in enumerate(self.pending):
                if op[0] == "data" and op[1] == entry[1]:
                    self.pending[index] = ("data", op[1], [atom for atom in op[2] if atom[0] not in over], False)

    def _settle(self, ops: Iterable[Entry]) -> None:
        for op in ops:
            if op[0] == "create":
                self.names[op[1]] = op[2]
                self.durable.setdefault(op[2], Content())
            elif op[0] == "unlink":
                self.names.pop(op[1], None)
            else:
                self.durable.setdefault(op[1], Content()).apply(op)
                self._digests.pop(op[1], None)

    # States

    def build(self, choice: Choice) -> Replay:
        """After a power cut that left `choice` of what was pending. Everything is durable then."""
        after = Replay()
        after.names, after.records, after.next_inode = dict(self.names), self.records, self.next_inode
        after.folders = set(self.folders)
        contents = {inode: self.durable[inode] for inode in self.names.values()}
        copied: set[int] = set()
        for index, mask in choice:
            op = self.pending[index]
            if op[0] == "create":
                after.names[op[1]] = op[2]
            elif op[0] == "unlink":
                after.names.pop(op[1], None)
            else:
                inode = op[1]
                if inode not in copied:
                    copied.add(inode)
                    contents[inode] = self.durable[inode].copy() if inode in self.durable else Content()
                contents[inode].apply(_masked(op, mask))
        after.durable = {
            inode: contents.get(inode) or self.durable.get(inode) or Content() for inode in after.names.values()
        }
        for inode, content in after.durable.items():
            beyond = -(-content.size // 512)
            if inode in copied and any(sector >= beyond for sector in content.sectors):
                content.sectors = {s: part for s, part in content.sectors.items() if s < beyond}
        return after

    def digest(self, choice: Choice) -> int:
        """Tells states apart without building them."""
        names = dict(self.names)
        sectors: dict[tuple[int, int], bytes | None] = {}
        sizes: dict[int, int] = {}
        for index, mask in choice:
            op = self.pending[index]
            if op[0] == "create":
                names[op[1]] = op[2]
            elif op[0] == "unlink":
                names.pop(op[1], None)
            elif op[0] == "size":
                inode = op[1]
                if op[2] < sizes.get(inode, self.durable[inode].size if inode in self.durable else 0):
                    return _digest_of(self.build(choice))  # what is cut off has to be known
                sizes[inode] = op[2]
            else:
                for sector, part in _masked(op, mask)[2]:
                    sectors[op[1], sector] = part
        total = xxh3_64_intdigest(self.records)
        for path, inode in names.items():
            content = self.durable.get(inode)
            size = sizes.get(inode, content.size if content else 0)
            total += self._base(inode) + xxh3_64_intdigest(path.encode(), inode) + size * 0x9E3779B97F4A7C15
        here = set(names.values())
        for (inode, sector), part in sectors.items():
            content = self.durable.get(inode)
            size = sizes.get(inode, content.size if content else 0)
            if inode in here and sector * 512 < size:
                old = content.sectors.get(sector) if content else None
                total += _hash(inode, sector, part) - _hash(inode, sector, old)
        return total & _MASK

    def _base(self, inode: int) -> int:
        known = self._digests.get(inode)
        if known is None:
            content = self.durable.get(inode)
            known = sum(_hash(inode, sector, part) for sector, part in content.sectors.items()) if content else 0
            self._digests[inode] = known
        return known

    def killed(self, choice: Choice) -> Replay:
        """After a kill: all of it is in the page cache, and still pending. `choice` only cuts the last write."""
        after = self.fork()
        after.live = dict(self.live)
        if choice:
            index, mask = choice[-1]
            after.pending[index] = _masked(self.pending[index], mask)
        return after

    def boot(self) -> MemoryDisk:
        """The disk as the next process sees it."""
        disk = MemoryDisk()
        disk.names, disk.next_inode, disk.folders = dict(self.names), self.next_inode, set(self.folders)
        disk.contents = {inode: content.copy() for inode, content in self.durable.items()}
        for op in self.pending:
            if op[0] == "create":
                disk.names[op[1]] = op[2]
                disk.contents.setdefault(op[2], Content())
            elif op[0] == "unlink":
                disk.names.pop(op[1], None)
            else:
                disk.contents.setdefault(op[1], Content()).apply(op)
        disk.live = {path: bytearray(kept) for path, kept in self.live.items()}
        disk.look()
        return disk


def _masked(op: Entry, mask: Mask) -> Entry:
    if mask is None or op[0] != "data":
        return op
    return ("data", op[1], [atom for at, atom in enumerate(op[2]) if mask >> at & 1], op[3])


def _hash(inode: int, sector: int, part: bytes | None) -> int:
    return 0 if part is None or part == ZERO else xxh3_64_intdigest(part, inode << 40 | sector)


def _digest_of(state: Replay) -> int:
    total = xxh3_64_intdigest(state.records)
    for path, inode in state.names.items():
        content = state.durable[inode]
        total += sum(_hash(inode, sector, part) for sector, part in content.sectors.items())
        total += xxh3_64_intdigest(path.encode(), inode) + content.size * 0x9E3779B97F4A7C15
    return total & _MASK


def choices(replay: Replay, random: Random) -> Iterator[Choice]:
    """What a power cut may leave of what is pending."""
    pending = replay.pending
    everything = tuple((index, None) for index in range(len(pending)))
    yield ()
    yield everything
    for index in range(len(pending)):
        yield ((index, None),)
        yield everything[:index] + everything[index + 1 :]
        yield everything[:index]
    data = [(index, len(op[2])) for index, op in enumerate(pending) if op[0] == "data"]
    for index, sectors in data[-4:]:
        for cut in range(1, min(sectors, 64)):
            low, high = (1 << cut) - 1, ((1 << sectors) - 1) ^ ((1 << cut) - 1)
            for mask in (low, high):
                yield (*everything[:index], (index, mask))
                yield (*everything[:index], (index, mask), *everything[index + 1 :])
    total = sum(sectors for _, sectors in data)
    if 0 < total <= ALL_SUBSETS:
        for bits in range(1 << total):
            yield _subset(pending, bits, full=True)
    elif pending:
        for _ in range(SUBSETS):
            yield _subset(pending, random.getrandbits(total + len(pending)), full=random.random() < 0.3)


def _subset(pending: list[Entry], bits: int, *, full: bool) -> Choice:
    """The sectors that `bits` says, and of names and sizes all (`full`) or those that further bits say."""
    chosen: list[tuple[int, Mask]] = []
    for index, op in enumerate(pending):
        if op[0] == "data":
            count = len(op[2])
            mask, bits = bits & ((1 << count) - 1), bits >> count
            if mask:
                chosen.append((index, mask))
        elif full:
            chosen.append((index, None))
    if not full:
        for index, op in enumerate(pending):
            if op[0] != "data":
                if bits & 1:
                    chosen.append((index, None))
                bits >>= 1
        chosen.sort(key=lambda pair: pair[0])
    return tuple(chosen)


def kill_choices(replay: Replay, latest: Entry | None) -> Iterator[Choice]:
    """All that was written; and if the `latest` entry is a write, each part of it that may have been copied by then."""
    yield ()
    pending = replay.pending
    if pending and latest is pending[-1] and pending[-1][0] == "data" and len(pending[-1][2]) > 1:
        for cut in range(1, min(len(pending[-1][2]), 64)):
            yield ((len(pending) - 1, (1 << cut) - 1),)


def kill_digest(replay: Replay, choice: Choice) -> int:
    """Of a state after a kill: everything in the page cache, live maps, and what of it is durable."""
    everything: Choice = tuple((index, None) for index in range(len(replay.pending)))
    total = replay.digest((*everything[:-1], *choice) if choice else everything)
    for path, kept in replay.live.items():
        total += xxh3_64_intdigest(kept, xxh3_64_intdigest(path.encode()))
    return total + 1 & _MASK
