"""Every rule broken once: the checker must notice, or its silence about the product would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crash_explore import Findings, Script, explore, look_back, record
from crash_mutations import FIRST_ORDER, MUTATIONS

from blockstore.errors import LeewardError

ORDERS = 24
STATES = 200
LOOKS = 100
"""Orders of the script that are looked at without any crash, first: they are cheap."""


@pytest.mark.parametrize(("mutation", "script"), MUTATIONS, ids=[f"{mutation.__name__}" for mutation, _ in MUTATIONS])
def test_the_checker_finds_a_broken_rule(
    mutation: Callable[[pytest.MonkeyPatch], None],
    script: type[Script],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutation(monkeypatch)
    try:
        order = FIRST_ORDER.get(mutation, seed)
        look_back(record(script(), order))
        explore(record(script(), order), STATES, order, Findings())
        for order in range(seed, seed + LOOKS):
            look_back(record(script(), order))
        for order in range(seed, seed + ORDERS):
            explore(record(script(), order), STATES, order, Findings())
    except (AssertionError, LeewardError) as found:  # anything else: the patch is no good
        print(f"{mutation.__name__}: order {order}: {type(found).__name__}: {found}")
        return
    pytest.fail(f"{ORDERS} orders of the script showed nothing")
