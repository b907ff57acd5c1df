"""Record a script once, then judge the states that a crash can leave at every moment of it.

Two passes over the record: the first tells all distinct states by digest, the second builds those that were
chosen and lets the script judge them. Some of the judged ones go on: what recovery and the life after it did is a
record too, and a second crash in it is judged likewise.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

from crash_model import Model, Violation
from crash_site import EagerPool, SeededPool, Site, first_records

from blockstore.errors import LeewardError
from engine.model import Role
from rig.disk_states import KILL, POWER, Recipe, Replay, choices, kill_choices, kill_digest
from rig.memory_disk import Entry, MemoryDisk

ORDERS = 60
"""Seeds under which a script is recorded, at most."""


class Script:
    """What happens at one site, and what must be true after a crash in it."""

    name: str
    role = Role.PROTECTED
    sizes: tuple[int, ...] = ()
    keep = 8
    first_point = b"P" * 15 + b"0"

    async def set_up(self, site: Site, model: Model) -> None:
        """Before the record begins: all of it is durable."""

    async def run(self, site: Site) -> None:
        """What is recorded."""

    async def judge(self, site: Site, model: Model, kind: str) -> None:
        """A site that has booted after a crash. Raises Violation, or whatever the product raises."""

    async def go_on(self, site: Site, model: Model) -> None:
        """The life after a crash that a second one ends."""


@dataclass
class Recording:
    """A record and what it stands on."""

    script: Script
    base: Replay
    log: list[Entry]
    model: Model
    life: int


@dataclass
class Findings:
    """What was looked at. `disks`: digests of distinct disk states."""

    disks: set[int] = field(default_factory=set)
    judged: int = 0


def record(script: Script, seed: int) -> Recording:
    """Set a site up, then run the script on it."""
    return asyncio.run(_record(script, seed))


async def _record(script: Script, seed: int) -> Recording:
    disk, model = MemoryDisk(), Model()
    site = Site(disk, first_records(script.role, script.sizes, script.first_point, script.keep), EagerPool(), 0)
    await script.set_up(site, model)
    base = Replay()
    for entry in disk.log:
        base.apply(entry)
    base.apply(("commit", site.records.conn.serialize()))
    for inode in list(base.durable) + [op[1] for op in base.pending if op[0] == "data"]:
        base.apply(("sync", inode))
    for path in list(disk.names):
        base.apply(("dir", path.rpartition("/")[0]))
    start = len(disk.log)
    before = model.copy()
    site.pool = site.ctx.pool = SeededPool(Random(seed))
    await script.run(site)
    site.close()
    return Recording(script, base, disk.log[start:], before, 1)


def states_of(recording: Recording, random: Random) -> list[Recipe]:
    """Every distinct state with every distinct promise, in the order of the record."""
    replay, model = recording.base.fork(), recording.model.copy()
    seen: set[tuple[Any, ...]] = set()
    found: list[Recipe] = []
    for moment in range(len(recording.log) + 1):
        for choice in choices(replay, random):
            digest = replay.digest(choice)
            key = (POWER, digest, model.version)
            if key not in seen:
                seen.add(key)
                found.append(Recipe(moment, POWER, choice, digest))
        for choice in kill_choices(replay, recording.log[moment - 1] if moment else None):
            digest = kill_digest(replay, choice)
            key = (KILL, digest, model.version, model.replies)
            if key not in seen:
                seen.add(key)
                found.append(Recipe(moment, KILL, choice, digest))
        if moment < len(recording.log):
            _step(replay, model, recording.log[moment])
    return found


def look_back(recording: Recording) -> None:
    """What was said and read while nothing crashed is true as well. Raises Violation."""
    replay, model = recording.base.fork(), recording.model.copy()
    for entry in recording.log:
        _step(replay, model, entry)


def _step(replay: Replay, model: Model, entry: Entry) -> None:
    if entry[0] == "note":
        model.tell(entry[1], entry[2])
    else:
        replay.apply(entry)


def run(script: Script, most: int, seed: int) -> Findings:
    """Judge at least `most` distinct states of a script, under as many orders of its steps as that takes."""
    findings = Findings()
    for order in range(seed, seed + ORDERS):
        left = most - len(findings.disks)
        if left <= 0:
            break
        explore(record(script, order), left + left // 10 + 5, order, findings)
    return findings


def explore(
    recording: Recording, most: int, seed: int, findings: Findings, *, depth: int = 1, share: float = 0.3
) -> None:
    """Judge at most `most` states of the record that `findings` has not yet; with `depth`, second crashes as well."""
    random = Random(seed)
    recipes = [recipe for recipe in states_of(recording, random) if recipe.digest not in findings.disks]
    first = most - int(most * share) if depth else most
    if len(recipes) > first:
        recipes = sorted(random.sample(recipes, first), key=lambda recipe: recipe.moment)
    parents = _parents(recording, recipes, most // 60, random) if depth else set()
    second = (most - first) // max(1, len(parents)) if depth else 0
    replay, model = recording.base.fork(), recording.model.copy()
    moment = 0
    loop = asyncio.new_event_loop()
    try:
        for index, recipe in enumerate(recipes):
            while moment < recipe.moment:
                _step(replay, model, recording.log[moment])
                moment += 1
            goes_on = index in parents
            try:
                nested = loop.run_until_complete(_judge(recording, replay, model, recipe, goes_on))
            except (AssertionError, LeewardError, OSError) as error:
                where = f"{recording.script.name}, moment {moment}, {recipe.kind}, {recipe.choice}"
                raise Violation(f"{where}: {type(error).__name__}: {error}") from error
            findings.disks.add(recipe.digest)
            findings.judged += 1
            if nested is not None:
                explore(nested, second, seed + index, findings, depth=depth - 1)
    finally:
        loop.close()


def _parents(recording: Recording, recipes: list[Recipe], count: int, random: Random) -> set[int]:
    """Which states have a second crash: above all kills just before a sync, when a start finds what no disk has."""
    log = recording.log
    early = [
        index
        for index, recipe in enumerate(recipes)
        if recipe.kind == KILL and recipe.moment < len(log) and log[recipe.moment][0] in ("sync", "dir")
    ]
    found = set(random.sample(early, min(len(early), count // 2)))
    return found | set(random.sample(range(len(recipes)), min(len(recipes), max(1, count - len(found)))))


async def _judge(recording: Recording, replay: Replay, model: Model, recipe: Recipe, goes_on: bool) -> Recording | None:
    """Build the state, look at it, boot on it, judge it; if it goes on, the record of what was done after the crash."""
    after = replay.killed(recipe.choice) if recipe.kind == KILL else replay.build(recipe.choice)
    disk = after.boot()
    start = len(disk.log)
    known = model.copy() if goes_on else model
    _check_contents(disk, known, recipe.kind)
    site = Site(disk, after.records, EagerPool(), recording.life)
    try:
        await site.boot()
        if site.handle.failure:
            raise Violation(site.handle.failure)
        if goes_on:
            if recipe.kind == POWER:
                for written in known.written.values():
                    written.lost_power()
            promised = known.copy()
            await recording.script.go_on(site, known)
            return Recording(recording.script, after, disk.log[start:], promised, recording.life + 1)
        await recording.script.judge(site, known, recipe.kind)
    finally:
        site.close()
    return None


def _check_contents(disk: MemoryDisk, model: Model, kind: str) -> None:
    """Plain volumes, before anything runs on them: each sector is what it may be."""
    for name, written in model.written.items():
        path = f"/stores/{name}"
        if path in disk.names:
            for block in written.blocks():
                written.check(name, block, disk.peek(path, block), kind)
