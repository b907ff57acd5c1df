"""One history from its seed to its end: the pair as it was made, the steps, and the day after, when all is mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from types import SimpleNamespace
from typing import Any

from sim_hosts import LONGEST_S, ask
from sim_model import NOTHING, Surface, Violation, check_image, fits
from sim_net import HOST, socket_module
from sim_site import SimHost, open_records
from sim_steps import Scene, Step, drawn, settle_stops, skew, take
from sim_watch import GROUP, KEYS, SIZE_BYTES, VOLUMES, Watch, handle_of, live_io, read_block, record_of
from sim_world import World

import engine.link.connecting
import engine.link.listener
import engine.link.peer
from blockstore.tracking import recovery
from engine.model import Role
from engine.records import points, set_asides
from engine.requests import GroupCreate, PeerAdd, Promote, Request, Reverse, SetAsideExport, Sync, VolumeAdd
from rig.disk_states import Replay

PORTS = {"east": 7001, "west": 7002}
KEEP = 3


@dataclass
class Outcome:
    """How a history went. `violation` is empty if every promise was kept."""

    seed: int
    steps: Sequence[Step]
    violation: str = ""
    story: list[str] = field(default_factory=list)
    checks: int = 0


@dataclass(frozen=True)
class Template:
    """What the hosts have on their disks when a history begins: a pair in step, nothing written yet."""

    records: dict[str, bytes]
    replays: dict[str, Replay]
    seconds: float


def run(seed: int, steps: Sequence[Step]) -> Outcome:
    """Run these steps on a fresh pair, then mend everything and see that both sides agree."""
    outcome = Outcome(seed, steps)
    scene = _scene(seed)
    try:
        for step in steps:
            take(scene, step)
        _afterwards(scene)
    except Violation as violation:
        outcome.violation = str(violation)
    except AssertionError as error:
        outcome.violation = f"{type(error).__name__}: {error}"
    outcome.story, outcome.checks = scene.world.story, scene.watch.checks
    if outcome.violation:
        scene.world.tell(f"VIOLATION: {outcome.violation}")
    _GRAVE.append(scene)
    return outcome


_GRAVE: list[Any] = []
"""Runs that are over, never finalised: what a killed daemon had open must not come to life again."""


def history(seed: int, count: int) -> Outcome:
    return run(seed, drawn(seed, count))


def shrunk(outcome: Outcome) -> Outcome:
    """The same violation with as few steps as can be found: chunks of steps are left out while it stays."""
    best, size = outcome, max(1, len(outcome.steps) // 2)
    kind = outcome.violation[:24]
    while True:
        at, shorter = 0, False
        while at < len(best.steps):
            steps = [*best.steps[:at], *best.steps[at + size :]]
            tried = run(outcome.seed, steps)
            if tried.violation[:24] == kind:
                best, shorter = tried, True
            else:
                at += size
        if size == 1 and not shorter:
            return best
        size = max(1, size // 2)


# The pair


def install(world: World, seed: int) -> None:
    """The product's sockets, certificates and nonces are of this world."""
    sockets = socket_module(world.network)
    modules: Any = (engine.link.connecting, engine.link.listener)
    for module in modules:
        module.socket = sockets
    peer: Any = engine.link.peer
    peer.client_context = peer.server_context = lambda identity: None
    recovery.secrets = SimpleNamespace(token_bytes=Random(seed).randbytes)  # type: ignore[attr-defined]


def _scene(seed: int) -> Scene:
    template = _template()
    world = World(seed)
    install(world, seed)
    world.reseed(seed)
    world.scheduler.now = template.seconds
    world.scheduler.unique_us()
    watch = Watch(world)
    world.committed = watch.committed
    scene = Scene(world, watch)
    random = Random(seed)
    for name, port in PORTS.items():
        host = world.hosts[name] = SimHost(world, name, port)
        host.conn = open_records(template.records[name])
        host.disk = host.disk._restarted(template.replays[name].fork())
        watch.surfaces[name] = Surface()
        host.start(random.getrandbits(32))
    if random.random() < 0.3:
        skew(scene, random)
    for host in world.hosts.values():
        record = record_of(host)
        assert record is not None
        for point in points.of_group(host.conn, record.id):
            watch.points[point.id] = {}
    _wait_up(scene)
    watch.look()
    return scene


@lru_cache(maxsize=1)
def _template() -> Template:
    world = World(0)
    install(world, 0)
    world.reseed(0)
    watch = Watch(world)
    for name, port in PORTS.items():
        host = world.hosts[name] = SimHost(world, name, port)
        host.disk.make_dir("/stores")
        watch.surfaces[name] = Surface()
        host.start(port)
    scene = Scene(world, watch)
    _wait_up(scene)
    east, west = world.hosts["east"], world.hosts["west"]
    _do(scene, east, PeerAdd("west", f"{HOST}:{west.port}", west.fingerprint, plain=True))
    _do(scene, west, PeerAdd("east", f"{HOST}:{east.port}", east.fingerprint, plain=True))
    for number in range(VOLUMES):
        _do(scene, east, VolumeAdd(f"v{number}", f"/stores/v{number}", SIZE_BYTES))
    _do(scene, east, GroupCreate(GROUP, tuple(f"v{number}" for number in range(VOLUMES)), "west", keep=KEEP))
    _do(scene, east, Sync(GROUP))
    for host in world.hosts.values():
        assert host.daemon is not None
        scene.stopping[host.name] = host.daemon.loop.create_task(host.daemon.stop())
    world.scheduler.run(60, lambda: all(task.done() for task in scene.stopping.values()))  # type: ignore[attr-defined]
    settle_stops(scene)
    records = {name: host.conn.serialize() for name, host in world.hosts.items()}
    return Template(records, {n: host.disk.replay for n, host in world.hosts.items()}, world.scheduler.now + 10)


def _wait_up(scene: Scene) -> None:
    hosts = scene.world.hosts.values()
    if not scene.world.scheduler.run(60, lambda: all(host.is_up for host in hosts)):
        for host in hosts:
            if host.daemon is not None and host.daemon.starting.done():
                host.daemon.starting.result()
        raise Violation("a daemon did not come up within 60 s")


def _do(scene: Scene, host: SimHost, request: Request) -> Any:
    """Ask, and wait for the answer. Raises Violation if it hangs."""
    asked = ask(scene.watch, host, request)
    assert asked is not None
    if not scene.world.scheduler.run(LONGEST_S, lambda: asked.is_over):
        raise Violation(f"{request.kind} at {host.name} hangs")
    return asked


# The day after


def _afterwards(scene: Scene) -> None:
    """All is mended: what was asked ends, the sides agree after a few words of an operator, and show the same."""
    world, watch = scene.world, scene.watch
    world.tell("--- everything is mended")
    world.network.heal()
    world.network.delay_s = 0.0005
    world.scheduler.run(5)
    settle_stops(scene)
    for host in world.hosts.values():
        host.disk.is_full, host.disk.failing_syncs, host.disk.slowness = False, 0, 1.0
        if host.daemon is None:
            host.start(1)
    _wait_up(scene)
    if not world.scheduler.run(LONGEST_S, lambda: all(asked.is_over for asked in scene.asked)):
        hanging = next(asked for asked in scene.asked if not asked.is_over)
        raise Violation(f"{hanging.request.kind} at {hanging.host.name} hangs since {hanging.since:.3f}")
    watch.look()
    if any(host.disk.is_bad for host in world.hosts.values()):
        return  # a failed volume waits for its operator; what it holds was checked on the way
    _agree(scene)
    _compare(scene)


def _agree(scene: Scene) -> None:
    """Words of an operator until one side is protected, the other recovery, and a sync is done."""
    world, watch = scene.world, scene.watch
    east, west = world.hosts["east"], world.hosts["west"]
    for _ in range(8):
        world.scheduler.run(12)
        watch.look()
        records = {host.name: record_of(host) for host in (east, west)}
        roles = {name: record.role for name, record in records.items() if record}
        terms = {name: record.term for name, record in records.items() if record}
        if set(roles.values()) == {Role.PROTECTED, Role.RECOVERY}:
            source = east if roles["east"] is Role.PROTECTED else west
            asked = _do(scene, source, Sync(GROUP))
            watch.look()
            if asked.doc is not None and asked.doc.error is None:
                return
        elif Role.RECOVERY in roles.values():
            target = east if roles["east"] is not Role.RECOVERY else west
            _do(scene, target, Promote(GROUP, force=True))
        else:
            older = east if terms["east"] < terms["west"] else west
            watch.may_discard.add(older.name)
            _do(scene, older, Reverse(GROUP, discard=True, confirmed=True))
    raise Violation(f"the sides do not agree: {roles}, terms {terms}; {scene.asked[-1].doc if scene.asked else ''}")


def _compare(scene: Scene) -> None:
    """Both sides show the same bytes, every point shows its own, and every set-aside what was set aside."""
    watch = scene.watch
    for host in scene.world.hosts.values():
        watch.check_live(host)
        record = record_of(host)
        assert record is not None
        if record.role is Role.RECOVERY:
            here = points.of_group(host.conn, record.id)
            for point in here:
                watch.check_point(host, point)
            source = watch.other(host)
            live = watch.surfaces[source.name].image_at(scene.world.scheduler.unique_us())
            newest = watch.points[here[0].id]
            if not all(any(fits(one, newest.get(key, NOTHING)) for one in live.get(key, NOTHING)) for key in KEYS):
                raise Violation("after the last sync the newest point is not what the protected side holds")
        for kept in set_asides.of_group(host.conn, record.id):
            _check_aside(scene, host, kept.name)


def _check_aside(scene: Scene, host: SimHost, name: str) -> None:
    if (host.name, name) not in scene.watch.asides:
        return
    asked = _do(scene, host, SetAsideExport(GROUP, name))
    if asked.doc is None or asked.doc.error is not None:
        raise Violation(f"set-aside {name} at {host.name} cannot be read: {asked.doc or asked.failure}")
    views = handle_of(host).asides[name].views
    check_image(
        f"set-aside {name} at {host.name}",
        scene.watch.asides[host.name, name],
        KEYS,
        lambda key: read_block(views[key[0]], key[1]),
    )


__all__ = ["Outcome", "history", "live_io", "run", "shrunk"]
