"""Every rule broken once: the checker must notice, or its silence about the product would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crash_explore import Findings, Script, explore, record
from crash_mutations import MUTATIONS

ORDERS = 24
STATES = 200


@pytest.mark.parametrize(("mutation", "script"), MUTATIONS, ids=[f"{mutation.__name__}" for mutation, _ in MUTATIONS])
def test_the_checker_finds_a_broken_rule(
    mutation: Callable[[pytest.MonkeyPatch], None],
    script: type[Script],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutation(monkeypatch)
    for order in range(seed, seed + ORDERS):
        try:
            explore(record(script(), order), STATES, order, Findings())
        except Exception as found:
            print(f"{mutation.__name__}: order {order}: {type(found).__name__}: {found}")
            return
    pytest.fail(f"{ORDERS} orders of the script showed nothing")
