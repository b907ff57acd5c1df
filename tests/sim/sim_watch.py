"""Watches two sites while they run: after every step, what they show is held against the model.

It looks at records and images from outside, between two turns of any loop, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sim_model import NOTHING, SECTORS, TAIL, Content, Image, Key, Surface, Violation, check_image, fits
from sim_site import EPOCH, SimHost
from sim_world import World

from blockstore.image import Image as LayeredImage
from blockstore.steps import Step
from blockstore.units import BLOCK, BLOCKS_PER_REGION
from engine import model
from engine.model import Role
from engine.records import groups, layers, points, set_asides

VOLUMES = 2
BLOCKS = (0, 1, 2, BLOCKS_PER_REGION - 1, BLOCKS_PER_REGION, BLOCKS_PER_REGION + 3, TAIL)
"""The blocks that hosts write: in two regions, the last of them cut off by the end of the volume."""
SIZE_BYTES = TAIL * BLOCK + 512
KEYS: tuple[Key, ...] = tuple((volume, block) for volume in range(VOLUMES) for block in BLOCKS)
GROUP = "shop"


@dataclass
class Seen:
    """What was last seen of a site's records."""

    changes: int = -1
    role: Role | None = None
    term: int = 0
    promoted_to: int = 0
    own_image: bool = False
    images: tuple[object, ...] = ()
    """Points, layers and life of the daemon when its points were last read."""
    quiet: int = 0
    """Looks since anything changed there that bears on what is dirty."""
    state: tuple[object, ...] = ()
    asides: frozenset[str] = frozenset()


@dataclass
class Watch:
    """The model of the whole, and what was seen of each side."""

    world: World
    surfaces: dict[str, Surface] = field(default_factory=dict)
    points: dict[bytes, Image] = field(default_factory=dict)
    """Every point ever seen, by its id."""
    asides: dict[tuple[str, str], Image] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    may_discard: set[str] = field(default_factory=set)
    """Sites where an operator said that whatever was written may be set aside, by name."""
    losers: set[str] = field(default_factory=set)
    """Sites that an operator named the loser there. Two who do so at once leave nobody protected."""
    decided: dict[str, int] = field(default_factory=dict)
    """Sites where an operator used a token: how many writes there were when it was given."""
    broken: Violation | None = None
    """A promise that was seen broken between two looks."""
    checks: int = 0
    crashed: set[str] = field(default_factory=set)
    """Sites whose live image has to be looked at since they crashed."""

    def other(self, host: SimHost) -> SimHost:
        return next(one for one in self.world.hosts.values() if one is not host)

    def look(self) -> None:
        """After a step. Raises Violation."""
        self.checks += 1
        if self.broken is not None:
            raise self.broken
        for host in self.world.hosts.values():
            self._points(host, check=True)
        for host in self.world.hosts.values():
            seen = self.seen[host.name]
            if host.conn.total_changes != seen.changes:
                seen.changes = host.conn.total_changes
                self._role(host)
            if host.is_up and handle_of(host) is not None:
                self._after_crash(host)
                self._no_lost_change(host)
        self._one_term_each()
        if self.world.faults:
            raise Violation(self.world.faults[0])

    # Points

    def _points(self, host: SimHost, *, check: bool) -> None:
        seen = self.seen.setdefault(host.name, Seen())
        if host.conn.total_changes == seen.changes:
            return
        record = record_of(host)
        if record is None:
            return
        here = points.of_group(host.conn, record.id)
        for point in here:
            if point.id not in self.points:
                self.points[point.id] = self._captured(host, point)
                self.world.tell(f"(point {point.sequence} is visible at {host.name})")
        if not check:
            return
        rows = host.conn.execute("SELECT id, state FROM layer ORDER BY id").fetchall()
        now = (tuple(point.id for point in here), tuple(map(tuple, rows)), host.lives)
        if host.is_up and here and now != seen.images:
            seen.images = now
            for point in (here[0], *here[1:][-1:]):
                self.check_point(host, point)

    def _captured(self, host: SimHost, point: model.Point) -> Image:
        source = self.other(host)
        when = int((point.captured_at - EPOCH - source.clock_is_off).total_seconds() * 1e6 + 0.5)
        return self.surfaces[source.name].image_at(when)

    def check_point(self, host: SimHost, point: model.Point) -> None:
        """The point shows the image of its instant, read through the layers of this site."""
        handle = handle_of(host)
        if handle is None or handle.failure:
            return
        for index, volume in enumerate(handle.volumes):
            packs = {pack.layer_id: pack for pack in volume.chain}
            below = layers.up_to(host.conn, volume.record.id, point.id)
            if any(row.id not in packs for row in below):
                return  # the records are a turn ahead of what runs
            opened = volume.require_open()
            image = LayeredImage(opened.store, [packs[row.id] for row in below], opened.size_bytes, opened.hash_seed)
            keys = [key for key in KEYS if key[0] == index]
            check_image(
                f"point {point.sequence} at {host.name}",
                self.points[point.id],
                keys,
                lambda key, image=image: read_block(image, key[1]),  # type: ignore[misc]
            )

    # Roles

    def committed(self, host: SimHost) -> None:
        """The records of a host changed, this very moment: what follows from a role must be seen before it goes on."""
        seen = self.seen.get(host.name)
        if seen is None or seen.role is None:
            return
        role, term = host.conn.execute('SELECT role, term FROM "group"').fetchone()
        if (role, term) != (seen.role.value, seen.term):
            try:
                for one in self.world.hosts.values():
                    self._points(one, check=False)
                self._role(host)
            except Violation as violation:
                self.broken = self.broken or violation  # the product must not see it: the next look raises it

    def _role(self, host: SimHost) -> None:
        seen = self.seen[host.name]
        record = record_of(host)
        if record is None:
            return
        if seen.role is Role.RECOVERY and record.role is not Role.RECOVERY:
            self._promoted(host, record, seen)
        elif seen.role not in (None, Role.RECOVERY) and record.role is Role.RECOVERY:
            self._gave_way(host, record, seen)
        if record.term < seen.term:
            raise Violation(f"the term of {host.name} went back from {seen.term} to {record.term}")
        seen.asides = frozenset(kept.name for kept in set_asides.of_group(host.conn, record.id))
        seen.role, seen.term, seen.own_image = record.role, record.term, record.own_image

    def _promoted(self, host: SimHost, record: model.Group, seen: Seen) -> None:
        if record.term <= seen.term:
            raise Violation(f"{host.name} was promoted in term {record.term}, which is not new")
        seen.promoted_to = record.term
        assert record.common is not None
        if not seen.own_image:
            self.surfaces[host.name].rebase(self.points[record.common.id], self.world.scheduler.unique_us())
        self.world.tell(f"({host.name} is promoted, term {record.term})")

    def _gave_way(self, host: SimHost, record: model.Group, seen: Seen) -> None:
        """What hosts wrote there and the other side lacks must be set aside, and only on an operator's word."""
        now = self.world.scheduler.unique_us()
        surface, common = self.surfaces[host.name], self.points[model.require(record.common).id]
        lost = [key for key in KEYS if not any(fits(one, common.get(key, NOTHING)) for one in surface.at(key, now))]
        fresh = [kept for kept in set_asides.of_group(host.conn, record.id) if kept.name not in seen.asides]
        self.world.tell(f"({host.name} gave way: {len(lost)} blocks differ, set aside {[k.name for k in fresh]})")
        if lost and not fresh:
            raise Violation(f"{host.name} gave way, and blocks {lost} are gone")
        if lost and host.name in self.decided and host.name not in self.may_discard:
            if surface.answered() != self.decided[host.name]:
                raise Violation(f"{host.name} gave way by a token from before some of its writes")
        elif lost and host.name not in self.may_discard:
            raise Violation(f"{host.name} gave way with blocks {lost}, and nobody said that it may")
        for kept in fresh:
            self.asides[host.name, kept.name] = surface.image_at(now)

    def _one_term_each(self) -> None:
        """Two sides are protected in one term only if both were promoted to it, unseen by each other."""
        sides = [self.seen[name] for name in self.world.hosts]
        if all(seen.role is Role.RECOVERY for seen in sides) and len(self.losers) < len(sides):
            raise Violation("nobody is protected: both sides gave way")
        terms = {seen.term for seen in sides if seen.role is Role.PROTECTED}
        is_tie = all(seen.role is Role.PROTECTED for seen in sides) and len(terms) == 1
        if is_tie and not all(seen.promoted_to == seen.term for seen in sides):
            raise Violation(f"both sides are protected in term {terms}, and were not both promoted to it")

    # What hosts see

    def _after_crash(self, host: SimHost) -> None:
        """The first look after a crash settles what each block holds."""
        if host.name not in self.crashed:
            return
        io = live_io(host)
        if io is None:
            return
        self.crashed.remove(host.name)
        surface = self.surfaces[host.name]
        now = self.world.scheduler.unique_us()
        for key in KEYS:
            allowed = surface.at(key, now)
            found = read_block(io[key[0]], key[1])
            if not fits(found, allowed):
                where = f"volume {key[0]} block {key[1]}"
                raise Violation(f"after the crash of {host.name} {where} holds {found}, not {sorted(allowed)}")
            surface.observed(key, found)

    def check_live(self, host: SimHost) -> None:
        """Hosts read what they wrote."""
        io = live_io(host)
        if io is None or host.name in self.crashed:
            return
        now = self.world.scheduler.unique_us()
        image = self.surfaces[host.name].image_at(now)
        check_image(f"the volumes at {host.name}", image, KEYS, lambda key: read_block(io[key[0]], key[1]))

    def _no_lost_change(self, host: SimHost) -> None:
        """A block that differs from the newest common point is dirty, or frozen in a sync that is under way."""
        record, handle = record_of(host), handle_of(host)
        if record is None or handle is None or record.role is Role.RECOVERY or record.common is None:
            return
        if host.name in self.crashed:
            return
        common = self.points.get(record.common.id)
        if common is None:
            raise Violation(f"{host.name} takes {record.common.sequence} for common, which was never visible")
        surface, now, seen = self.surfaces[host.name], self.world.scheduler.unique_us(), self.seen[host.name]
        state = (host.conn.total_changes, host.lives, sum(map(len, surface.writes.values())), surface.since)
        seen.quiet = seen.quiet + 1 if state == seen.state else 0
        seen.state = state
        if seen.quiet > 3:
            return
        for key in KEYS:
            allowed = surface.at(key, now)
            if len(allowed) > 1 or fits(next(iter(allowed)), common.get(key, NOTHING)):
                continue
            opened = handle.volumes[key[0]].open
            if opened is None or not opened.is_tracked:
                continue
            region, bit = divmod(key[1], BLOCKS_PER_REGION)
            if not opened.dirty_bits(region) >> bit & 1:
                raise Violation(
                    f"{host.name}: volume {key[0]} block {key[1]} holds {allowed}, point {record.common.sequence} has"
                    f" {sorted(common.get(key, NOTHING))}, and it is not dirty"
                )


def record_of(host: SimHost) -> model.Group | None:
    """The group's record, read anew when the records changed."""
    changes = host.conn.total_changes
    if host.read_at != changes:
        host.read_at, host.record = changes, groups.find(host.conn, GROUP)
    return host.record


def handle_of(host: SimHost) -> Any:
    """The running group's handle; None while there is none."""
    if host.daemon is None or not host.daemon.is_up:
        return None
    running = host.daemon.site.groups_by_name.get(GROUP)
    return running.handle if running is not None else None


def live_io(host: SimHost) -> list[Any] | None:
    """What hosts of that site read and write, volume by volume; None while a volume is not up."""
    if host.daemon is None or not host.daemon.is_up:
        return None
    up = host.daemon.exports.up
    names = [f"v{index}" for index in range(VOLUMES)]
    return [up[name] for name in names] if all(name in up for name in names) else None


def read_block(io: Any, block: int) -> Content:
    """The numbers in the sectors of a block, read at this very moment."""
    length = min(BLOCK, SIZE_BYTES - block * BLOCK)
    buffer = bytearray(length)
    wait = io.read_into(block * BLOCK, memoryview(buffer))
    if isinstance(wait, Step) and not wait.over:
        wait.run()
    found = []
    for sector in range(SECTORS):
        raw = bytes(buffer[sector * 512 : sector * 512 + 512]) or bytes(512)
        if raw != raw[:4] * 128:
            raise Violation(f"block {block}: sector {sector} is torn within: {raw[:16]!r}...")
        found.append(int.from_bytes(raw[:4], "little"))
    return tuple(found)
