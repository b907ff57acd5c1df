"""How one contender does its task in a benchmark: set up, timed, cleaned up, as often as the run asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

Task = Callable[[], Any]


def measure(
    benchmark: BenchmarkFixture,
    contender: str,
    rounds: int,
    ready: Callable[[Path], AbstractContextManager[Task]],
    work: Path,
) -> None:
    """Time what `ready(folder)` yields, `rounds` times, each in a new folder below `work`; set-up is not timed."""
    benchmark.extra_info["contender"] = contender
    number = 0
    with contextlib.ExitStack() as stack:

        def set_up() -> tuple[tuple[Task], dict[str, Any]]:
            nonlocal number
            stack.pop_all().close()
            number += 1
            folder = work / str(number)
            folder.mkdir()
            return (stack.enter_context(ready(folder)),), {}

        benchmark.pedantic(lambda task: task(), setup=set_up, rounds=rounds)
