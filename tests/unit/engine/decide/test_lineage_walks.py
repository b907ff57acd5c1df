"""Long histories at random, on paper: no order of writes, cuts, kills, role changes and syncs loses what a host wrote.

At any moment an operator can bring both sites into step again: each walk ends with that, whichever side is chosen to
give way. A seed that fails prints its history, in the words of `test_lineage_histories`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from paper_sites import BLOCKS, Paper, World

from engine.decide.lineage import VerdictKind
from engine.decide.yielding import BOTH_WRITABLE
from engine.model import Role

SEEDS = 400
STEPS = 80
Step = tuple[str, Callable[[], object]]


def steps(world: World, dice: random.Random) -> list[Step]:
    """What may be done now, with the words for it."""
    found: list[Step] = [("cut", world.cut)] if world.link else [("heal", world.heal)]
    for site in (world.a, world.b):
        found += steps_at(world, site, dice)
    if world.link:
        found.append(("?", world.contact))
        for until in ("part", "sent", "sealed", "adopted"):
            found.append((f"sync:{until}", lambda until=until: synced(world, until)))
        found += [("rev", world.reverse), ("rst", world.restore)]
        if world.late_seal is not None:
            waiting = world.late_seal
            found.append(("late", lambda: world.handle_late_seal(waiting)))
    return found


def steps_at(world: World, site: Paper, dice: random.Random) -> list[Step]:
    name, role = site.name, site.group.role
    found: list[Step] = [(f"x{name}", lambda: world.kill(site))]
    if role is Role.PROTECTED:
        block = dice.choice(BLOCKS)
        found += [(f"w{name}{block}", lambda: world.write(site, block))] * 3
        found.append((f"dem{name}", lambda: world.demote(site)))
        found.append((f"con{name}", lambda: world.demote(site, consent=True)))
    else:
        found.append((f"pro{name}", lambda: world.promote(site)))
        if role is Role.RECOVERY and not site.group.own_image and len(site.points) > 1:
            found.append((f"pro{name}@old", lambda: world.promote(site, older=True)))
    if world.link and site.standing.is_writable:
        found.append((f"dis{name}", lambda: world.discard(site) if site.group.pending is None else None))
    return found


def synced(world: World, until: str) -> None:
    """A sync is begun by a source that has no other under way."""
    world.contact()
    if world.a.group.pending is None and world.b.group.pending is None:
        world.sync(until=until)


def into_step(world: World, loser: Paper) -> None:
    """Whatever came before: one side gives way, and after one sync both are the same."""
    world.heal()
    found = world.contact()
    if found in BOTH_WRITABLE:
        assert not isinstance(world.discard(loser), str)
    elif found is VerdictKind.NO_SOURCE:
        world.promote(world.peer(loser))
    found = world.contact()
    for site in (world.a, world.b):
        if site.group.pending is not None:
            world.kill(site)  # the capture ends, and is abandoned at the next contact
    world.contact()
    assert not isinstance(world.sync(), VerdictKind), found
    assert world.contact() is VerdictKind.IN_SYNC
    assert world.a.image == world.b.image


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_history_loses_a_write_and_each_has_a_way_back_into_step(seed: int) -> None:
    dice = random.Random(seed)
    world = World()
    told: list[str] = []
    try:
        for _ in range(STEPS):
            word, act = dice.choice(steps(world, dice))
            told.append(word)
            act()
            world.check()
        told.append("into step")
        into_step(world, dice.choice((world.a, world.b)))
        world.check()
    except AssertionError as failure:
        raise AssertionError(f"{' '.join(told)}: {failure}") from failure
