"""Two sites on paper: the decisions of `engine/decide`, with sets and dictionaries for what files and records hold.

Whatever is decided here is decided by the product's own pure code (verdict, settling, guards, tokens, transitions);
the paper only keeps the images, the sets of blocks and the points that those decisions are about, and checks after
every step what must always hold: the image of a side equals its common point outside its changed set, what is sealed
is what was captured, and no written value is nowhere.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from engine.decide import transitions, yielding
from engine.decide.lineage import PendingFate, Standing, VerdictKind, settle_pending, verdict
from engine.decide.yielding import Yield
from engine.errors import Raced
from engine.model import Group, GroupId, Incoming, Pending, Point, PointId, Role, SyncId, SyncState

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BLOCKS = (1, 2, 3)
Image = dict[int, str]


def point(number: int, sequence: int) -> Point:
    return Point(PointId(number.to_bytes(16, "big")), GROUP, sequence, EPOCH, EPOCH, None, b"", 0, 0)


GROUP = GroupId(b"g" * 16)
FIRST = point(1, 1)
START: Image = {block: f"start{block}" for block in BLOCKS}


@dataclass
class Paper:
    """One site: its record, its image, its sets, its points (oldest first: point, image, blocks of its layer)."""

    name: str
    group: Group
    image: Image
    points: list[tuple[Point, Image, set[int]]]
    written: set[int] = field(default_factory=set)
    frozen: set[int] = field(default_factory=set)
    rolled: set[int] = field(default_factory=set)
    capture: Image | None = None
    """The image of the pending capture, while it is held: it ends with the process."""
    receiving: tuple[set[int], Image] | None = None
    """The plan of what is half received, and the blocks that came."""
    set_asides: list[tuple[set[int], Image]] = field(default_factory=list)

    @property
    def standing(self) -> Standing:
        group = self.group
        return Standing(
            role=group.role,
            term=group.term,
            common=group.common.id if group.common else None,
            pending=group.pending.point if group.pending else None,
            resumable=self.capture is not None,
            incoming=group.incoming.point if group.incoming else None,
            written=len(self.written | self.frozen),
            rolled=len(self.rolled),
        )

    @property
    def changed(self) -> set[int]:
        return self.written | self.frozen | self.rolled

    @property
    def holds_common(self) -> bool:
        return any(known == self.group.common for known, _, _ in self.points)

    def settle(self, peer: Standing) -> None:
        if self.group.pending is None:
            return
        fate = settle_pending(self.standing, peer)
        if fate is PendingFate.ADOPT:
            self.adopt()
        elif fate is PendingFate.ABANDON:
            self.abandon()

    def adopt(self) -> None:
        pending = self.group.pending
        assert pending is not None
        self.group = transitions.adopted(self.group, point(int.from_bytes(pending.point, "big"), pending.sequence))
        self.frozen, self.rolled, self.capture, self.points = set(), set(), None, []

    def abandon(self) -> None:
        self.group = transitions.abandoned(self.group)
        self.written, self.frozen, self.capture = self.written | self.frozen, set(), None


class World:
    """Both sites and the link between them. Each method is a word of the histories, and returns its answer."""

    def __init__(self) -> None:
        group = Group(
            id=GROUP,
            name="ships",
            version=1,
            role=Role.PROTECTED,
            term=1,
            peer="peer",
            rpo_s=None,
            keep=24,
            announced=True,
            common=FIRST,
            equal_at=None,
            generation_due=False,
            generation=None,
            pending=None,
            incoming=None,
            created_at=EPOCH,
        )
        self.a = Paper("A", group, dict(START), [])
        self.b = Paper("B", replace(group, role=Role.RECOVERY), dict(START), [(FIRST, dict(START), set())])
        self.truth: dict[bytes, Image] = {FIRST.id: dict(START)}
        self.values: dict[str, int] = {}
        """Every value that a host wrote and no host wrote over, with its block."""
        self.numbers = 1
        self.link = True
        self.late_seal: tuple[Paper, PointId] | None = None

    def site(self, name: str) -> Paper:
        return self.a if name == "A" else self.b

    def peer(self, site: Paper) -> Paper:
        return self.b if site is self.a else self.a

    # Hosts, processes, the link

    def write(self, site: Paper, block: int) -> None:
        assert site.group.role is Role.PROTECTED, "only a protected side has a writer"
        self.numbers += 1
        self.values.pop(site.image[block], None)
        site.image[block] = f"{site.name}{self.numbers}"
        self.values[site.image[block]] = block
        site.written.add(block)

    def kill(self, site: Paper) -> None:
        site.capture = None
        if self.late_seal is not None and self.late_seal[0] is self.peer(site):
            return  # the SEAL is in the other side's buffer
        self.late_seal = None

    def cut(self) -> None:
        self.link = False

    def heal(self) -> None:
        self.link = True

    # Contact and sync

    def contact(self) -> VerdictKind:
        assert self.link
        self.late_seal = None  # a contact ends every older session before it answers
        a, b = self.a.standing, self.b.standing
        self.a.settle(b)
        self.b.settle(a)
        found = verdict(self.a.standing, self.b.standing)
        assert found is verdict(self.b.standing, self.a.standing), "both sides come to the same verdict"
        return found

    def sync(self, *, until: str = "adopted") -> set[int] | VerdictKind:
        """The plan; or the verdict that forbids it. `until`: part, sent, sealed (the answer is lost), adopted."""
        found = self.contact()
        if found not in (VerdictKind.FORWARD, VerdictKind.IN_SYNC, VerdictKind.SEEDING):
            return found
        source = self.a if self.a.standing.is_writable else self.b
        target = self.peer(source)
        if not source.changed and not target.changed:
            return set()
        self._capture(source)
        plan = source.frozen | source.rolled | target.changed
        assert source.group.pending is not None
        assert source.group.common is not None
        pending = source.group.pending
        incoming = Incoming(
            pending.sync, pending.point, pending.sequence, source.group.common.id, EPOCH, bytes(16), len(plan)
        )
        target.group = transitions.receiving(target.group, incoming)
        assert source.capture is not None
        target.receiving = (plan, {} if until == "part" else {block: source.capture[block] for block in plan})
        if until == "sent":
            self.late_seal = (target, pending.point)
        elif until in ("sealed", "adopted"):
            self.seal(target, pending.point)
            if until == "adopted":
                source.adopt()
        return plan

    def _capture(self, source: Paper) -> None:
        self.numbers += 1
        made = PointId(self.numbers.to_bytes(16, "big"))
        assert source.group.common is not None
        pending = Pending(SyncId(made), made, source.group.common.sequence + 1, EPOCH, SyncState.SEALING)
        source.group = transitions.capturing(source.group, pending)
        source.frozen, source.written = source.frozen | source.written, set()
        source.capture = dict(source.image)
        self.truth[made] = dict(source.image)

    def seal(self, target: Paper, made: PointId) -> None:
        """Raises Raced when the target does not wait for this point any more."""
        incoming = target.group.incoming
        sequence = incoming.sequence if incoming else 0
        sealed = point(int.from_bytes(made, "big"), sequence)
        target.group = transitions.sealed(target.group, sealed, self.peer(target).group.term)
        assert target.receiving is not None
        plan, came = target.receiving
        target.image = {**target.image, **came}
        target.written, target.frozen, target.rolled, target.receiving = set(), set(), set(), None
        target.points.append((sealed, dict(target.image), plan))
        assert target.image == self.truth[made], "what is sealed is not what was captured"

    def handle_late_seal(self, waiting: tuple[Paper, PointId] | None) -> str:
        """The buffered SEAL of an older session. A receiver whose session ended throws its buffer away."""
        if self.late_seal is None:
            return "refused"
        assert waiting is not None
        try:
            self.seal(*waiting)
        except Raced:
            return "refused"
        return "sealed"

    # Roles

    def demote(self, site: Paper, *, consent: bool = False) -> None:
        term = None
        if consent and self.link:
            self.contact()
            peer = self.peer(site).standing
            term = peer.term if peer.is_writable and peer.term > site.standing.term else None
        site.group = transitions.demoted(site.group, term)

    def promote(self, site: Paper, *, older: bool = False) -> None:
        if site.group.role is Role.DEMOTED:
            site.group = transitions.demote_undone(site.group)
            return
        if not site.group.own_image:
            index = -2 if older else -1
            above = site.points[index + 1 :] if older else []
            site.rolled = {block for _, _, blocks in above for block in blocks}
            for _, image, blocks in above:
                site.set_asides.append((set(blocks), dict(image)))
            site.image = dict(site.points[index][1])
        seen = self.peer(site).group.term if self.link else 0
        site.group = transitions.promoted(site.group, 1 + max(site.group.term, seen))
        site.receiving = None

    def give_way(self, site: Paper) -> set[int]:
        """The one step of reverse, discard and restore; the caller has asked the guard. What it sets aside."""
        how = yielding.how_to_yield(site.standing, holds_common=site.holds_common)
        written = set(site.written)
        common = site.group.common
        assert common is not None
        site.group = transitions.gave_way(site.group, how, self.peer(site).group.term)
        if written:
            site.set_asides.append((written, dict(site.image)))
        if how is Yield.TO_POINT:
            site.image = next(dict(image) for known, image, _ in site.points if known == common)
            site.written, site.rolled = set(), set()
        elif how is Yield.AS_POINT:
            site.points.append((common, dict(site.image), set()))
        site.receiving = None
        return written

    def reverse(self) -> set[int] | str:
        """Asked at either end: the old side yields, or the reason why not."""
        found = self.contact()
        old = self.a if self.a.group.term <= self.b.group.term else self.b
        reason = yielding.why_not_reverse(old.standing, self.peer(old).standing, found, old.group.consent_term)
        return reason or self.give_way(old)

    def discard(self, loser: Paper) -> set[int] | str:
        found = self.contact()
        reason = yielding.why_not_discard(self.peer(loser).standing, found)
        return reason or self.give_way(loser)

    def restore(self) -> set[int] | str:
        found = self.contact()
        if found in (VerdictKind.IN_SYNC, VerdictKind.FORWARD):  # the promoted side has given way before
            old = self.a if self.a.standing.is_writable else self.b
            kept: set[int] = set()
        else:
            old = self.a if self.a.group.term < self.b.group.term else self.b
            reason = yielding.why_not_restore(old.standing, self.peer(old).standing, found)
            if reason:
                return reason
            kept = self.give_way(self.peer(old))
        if old.group.role is Role.DEMOTED:
            old.group = transitions.demote_undone(old.group)
        return kept

    # What must hold after every step

    def check(self) -> None:
        for site in (self.a, self.b):
            common = site.group.common
            assert common is not None
            truth = self.truth[common.id]
            differs = {block for block in BLOCKS if site.image[block] != truth[block]}
            assert differs <= site.changed, f"{site.name} differs from its common point outside its changed set"
            for known, image, _ in site.points:
                assert image == self.truth[known.id], f"{site.name} holds a point that is not what was captured"
        held = {value for site in (self.a, self.b) for value in self._held(site)}
        assert set(self.values) <= held, "a value that a host wrote is in no image, point or set-aside"

    @staticmethod
    def _held(site: Paper) -> set[str]:
        images: list[Image] = [site.image, *(image for _, image, _ in site.points)]
        images += [image for _, image in site.set_asides]
        return {value for image in images for value in image.values()}


def clone(site: Paper) -> dict[str, Any]:
    """A copy of all that a site holds: a backup of it."""
    return copy.deepcopy(site.__dict__)
