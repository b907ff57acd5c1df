"""The steps of a history: what hosts, operators and fate do, one after the other.

A step is a name and a number that everything else in it is drawn from, so that a history without some of its steps
still means something: that is what shrinking needs. What cannot be done now is not done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from sim_hosts import Asked, ask, flush, write
from sim_model import Violation
from sim_site import SimHost
from sim_watch import GROUP, KEYS, Watch, record_of
from sim_world import World

from engine.model import Role
from engine.records import points, set_asides, snapshots
from engine.requests import (
    Demote,
    GroupSet,
    Promote,
    Request,
    Restore,
    Reverse,
    SetAsideDrop,
    SnapshotCreate,
    SnapshotDelete,
    SnapshotReset,
    Sync,
    Verify,
    VolumeReopen,
)

PAUSES_S = (0.0, 0.0, 0.0005, 0.0005, 0.002, 0.002, 0.01, 0.05)


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    number: int


@dataclass
class Scene:
    """Everything a step may touch."""

    world: World
    watch: Watch
    asked: list[Asked] = field(default_factory=list)
    stopping: dict[str, object] = field(default_factory=dict)
    next_write: int = 1

    def host(self, random: Random) -> SimHost:
        return random.choice(list(self.world.hosts.values()))

    def ask(self, host: SimHost, request: Request) -> None:
        asked = ask(self.watch, host, request)
        if asked is not None:
            self.asked.append(asked)


def _protected(scene: Scene, random: Random) -> SimHost:
    """One where hosts can write, if there is one."""
    found = [host for host in scene.world.hosts.values() if (r := record_of(host)) and r.role is Role.PROTECTED]
    return random.choice(found) if found else scene.host(random)


def _recovery(scene: Scene, random: Random) -> SimHost:
    found = [host for host in scene.world.hosts.values() if (r := record_of(host)) and r.role is Role.RECOVERY]
    return random.choice(found) if found else scene.host(random)


# Hosts


def _write(scene: Scene, random: Random) -> None:
    host = _protected(scene, random)
    done = []
    for _ in range(random.choice((1, 1, 2, 4))):
        key = random.choice(KEYS)
        is_again = scene.next_write > 1 and random.random() < 0.15
        number = random.randrange(1, scene.next_write) if is_again else scene.next_write
        if write(scene.watch, host, key, number):
            done.append(f"{key[0]}:{key[1]}={number}")
            scene.next_write += 1
    if done:
        scene.world.tell(f"host at {host.name} writes {' '.join(done)}")


def _flush(scene: Scene, random: Random) -> None:
    host = _protected(scene, random)
    if flush(scene.watch, host):
        scene.world.tell(f"host at {host.name} flushes")


# Operators


def _sync(scene: Scene, random: Random) -> None:
    host = _protected(scene, random) if random.random() < 0.9 else scene.host(random)
    scene.ask(host, Sync(GROUP))


def _verify(scene: Scene, random: Random) -> None:
    """It never finds a difference: whatever is in the air is no damage."""
    scene.ask(_protected(scene, random), Verify(GROUP, strong=random.random() < 0.2))


def _planned(scene: Scene, random: Random) -> None:
    """What a planned move asks for next: demote, then promote the other side, then reverse."""
    source, target = _protected(scene, random), _recovery(scene, random)
    roles = {record.role for host in scene.world.hosts.values() if (record := record_of(host))}
    if Role.DEMOTED in roles and Role.PROTECTED in roles:
        scene.ask(source, Reverse(GROUP))
    elif Role.DEMOTED in roles:
        scene.ask(target, Promote(GROUP))
    else:
        scene.ask(source, Demote(GROUP))


def _promote(scene: Scene, random: Random) -> None:
    scene.ask(_recovery(scene, random), Promote(GROUP, force=random.random() < 0.5))


def _demote(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    consent = random.random() < 0.3
    if consent:
        scene.watch.may_discard.add(host.name)
    scene.ask(host, Demote(GROUP, consent=consent))


def _reverse(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    discard = random.random() < 0.5
    scene.watch.losers.add(host.name)
    if discard:
        scene.watch.may_discard.add(host.name)
    scene.ask(host, Reverse(GROUP, discard=discard, confirmed=discard))


def _decide(scene: Scene, random: Random) -> None:
    """By the token that an earlier refusal gave, which may be an old one by now."""
    known = [asked for asked in scene.asked if asked.token and isinstance(asked.request, Reverse)]
    if not known:
        host = _protected(scene, random)
        scene.watch.losers.add(host.name)
        scene.ask(host, Reverse(GROUP, discard=True))
        return
    asked = random.choice(known[-2:])
    scene.watch.losers.add(asked.host.name)
    scene.watch.decided[asked.host.name] = asked.writes
    scene.ask(asked.host, Reverse(GROUP, discard=True, token=asked.token))


def _restore(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    confirmed = random.random() < 0.5
    if confirmed:
        scene.watch.may_discard.add(scene.watch.other(host).name)
    scene.ask(host, Restore(GROUP, confirmed=confirmed))


def _snapshot(scene: Scene, random: Random) -> None:
    host = _recovery(scene, random)
    record = record_of(host)
    if record is None:
        return
    known = snapshots.of_group(host.conn, record.id)
    if known and random.random() < 0.6:
        name = random.choice(known).name
        scene.ask(host, SnapshotDelete(GROUP, name) if random.random() < 0.6 else SnapshotReset(GROUP, name))
        return
    here = points.of_group(host.conn, record.id)
    if here and len(known) < 3:
        scene.ask(host, SnapshotCreate(GROUP, point=random.choice(here).id.hex()))


def _keep(scene: Scene, random: Random) -> None:
    scene.ask(scene.host(random), GroupSet(GROUP, keep=random.choice((1, 2, 3, 8))))


def _drop(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    record = record_of(host)
    known = set_asides.of_group(host.conn, record.id) if record else ()
    if known:
        name = random.choice(known).name
        scene.watch.asides.pop((host.name, name), None)
        scene.ask(host, SetAsideDrop(GROUP, name))


# Fate


def _kill(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    if host.daemon is not None:
        scene.world.tell(f"the daemon at {host.name} is killed")
        crash(scene, host, None)


def _power(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    scene.world.tell(f"{host.name} loses its power")
    crash(scene, host, random)


def crash(scene: Scene, host: SimHost, power: Random | None) -> None:
    """The daemon is gone, and with `power` what was not on the disk."""
    scene.stopping.pop(host.name, None)
    scene.watch.crashed.add(host.name)
    surface = scene.watch.surfaces[host.name]
    # After a sync that failed, the page cache is not what the disk has: the next life may find either.
    surface.crash(scene.world.scheduler.unique_us(), power=power is not None or host.disk.has_failed)
    if power is None:
        host.kill()
    else:
        host.cut_power(power)


def _stop(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    if host.is_up and host.daemon is not None:
        scene.world.tell(f"the daemon at {host.name} is told to stop")
        scene.stopping[host.name] = host.daemon.loop.create_task(host.daemon.stop())


def _start(scene: Scene, random: Random) -> None:
    for host in scene.world.hosts.values():
        if host.daemon is None:
            scene.world.tell(f"the daemon at {host.name} starts")
            host.start(random.getrandbits(32))


def _cut(scene: Scene, random: Random) -> None:
    scene.world.tell("the link is cut")
    scene.world.network.cut()


def _heal(scene: Scene, random: Random) -> None:
    if scene.world.network.is_cut:
        scene.world.tell("the link is there again")
        scene.world.network.heal()


def _reset(scene: Scene, random: Random) -> None:
    scene.world.tell("every connection is reset")
    scene.world.network.reset_all()


def _slow(scene: Scene, random: Random) -> None:
    scene.world.network.delay_s = random.choice((0.0002, 0.0005, 0.02, 0.3))
    for host in scene.world.hosts.values():
        host.disk.slowness = random.choice((1.0, 1.0, 1.0, 30.0))
    scene.world.tell(f"the link takes {scene.world.network.delay_s} s now")


def _full(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    host.disk.is_full = not host.disk.is_full
    scene.world.tell(f"the disk of {host.name} is {'full' if host.disk.is_full else 'not full any more'}")


def _error(scene: Scene, random: Random) -> None:
    host = scene.host(random)
    host.disk.failing_syncs = 1
    scene.world.tell(f"the next sync of the disk at {host.name} fails")


def _reopen(scene: Scene, random: Random) -> None:
    scene.ask(scene.host(random), VolumeReopen(random.choice(("v0", "v1"))))


def _wait(scene: Scene, random: Random) -> None:
    scene.world.scheduler.run(random.choice((0.05, 0.3, 1.0, 3.0, 12.0)))


Action = Callable[[Scene, Random], None]

ACTIONS: dict[str, tuple[int, Action]] = {
    "write": (60, _write),
    "flush": (12, _flush),
    "sync": (28, _sync),
    "verify": (5, _verify),
    "planned": (8, _planned),
    "promote": (5, _promote),
    "demote": (2, _demote),
    "reverse": (6, _reverse),
    "decide": (5, _decide),
    "restore": (4, _restore),
    "snapshot": (6, _snapshot),
    "keep": (2, _keep),
    "drop": (1, _drop),
    "kill": (3, _kill),
    "power": (3, _power),
    "stop": (2, _stop),
    "start": (14, _start),
    "cut": (4, _cut),
    "heal": (10, _heal),
    "reset": (3, _reset),
    "slow": (2, _slow),
    "wait": (12, _wait),
}
RARE: dict[str, tuple[int, Action]] = {"full": (3, _full), "error": (1, _error), "reopen": (3, _reopen)}
"""Only in histories with a bad disk."""


RARELY = 0.2


def drawn(seed: int, count: int) -> list[Step]:
    """A history of so many steps."""
    random = Random(seed)
    known = dict(ACTIONS) | (RARE if random.random() < RARELY else {})
    names, weights = list(known), [weight for weight, _ in known.values()]
    return [Step(random.choices(names, weights)[0], random.getrandbits(32)) for _ in range(count)]


def take(scene: Scene, step: Step) -> None:
    """One step, a while in which the world goes on, and a look at everything."""
    random = Random(step.number)
    scene.world.reseed(step.number)
    (ACTIONS | RARE)[step.name][1](scene, random)
    scene.world.scheduler.run(random.choice(PAUSES_S))
    settle_stops(scene)
    scene.watch.look()
    for asked in scene.asked[-20:]:
        if isinstance(asked.request, Verify) and asked.doc and asked.doc.outcome and asked.doc.outcome["mismatched"]:
            raise Violation(f"verify calls something a difference: {asked.doc.outcome}")


def settle_stops(scene: Scene) -> None:
    """Daemons that were told to stop and have done it."""
    for name, task in list(scene.stopping.items()):
        host = scene.world.hosts[name]
        if task.done():  # type: ignore[attr-defined]
            task.result()  # type: ignore[attr-defined]
            del scene.stopping[name]
            surface = scene.watch.surfaces[name]
            if not host.disk.is_bad:
                surface.flushed_at = scene.world.scheduler.unique_us()  # it said that it is clean
            crash(scene, host, None)


def skew(scene: Scene, random: Random) -> None:
    """The sites do not agree about the time of day."""
    for host in scene.world.hosts.values():
        host.clock_is_off = timedelta(seconds=random.choice((0, 0, -3600, 7200, -86400 * 400)))
