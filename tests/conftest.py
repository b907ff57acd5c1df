"""What every suite shares: a seed that is printed, the number of crash states, and no silent skips.

A test that cannot run here fails: a green run means that everything ran. `SEED=7 make system` repeats a run.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("leeward")
    group.addoption("--seed", type=int, default=1, help="seed of everything random in the tests")
    group.addoption("--kills", type=int, default=12, help="how many daemons tests/system kills under load")
    group.addoption("--histories", type=int, default=1000, help="how many histories tests/sim runs")
    group.addoption("--rpo-seconds", type=int, default=600, help="how long the loads of the RPO suite last")
    group.addoption("--crash-states", type=int, default=2000, help="how many disk states tests/crash rebuilds")


def pytest_configure() -> None:
    """A shell that starts us in the background has SIGINT ignored, and every daemon and command would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    return f"leeward: --seed {config.getoption('--seed')} --crash-states {config.getoption('--crash-states')}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} would be left out ({reason}); nothing is skipped here: install what it needs"
    return report


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of the run: `random.Random(seed)`, never the global generator."""
    return int(request.config.getoption("--seed"))


@pytest.fixture(scope="session")
def histories(request: pytest.FixtureRequest) -> int:
    """How many histories of two sites the simulator runs."""
    return int(request.config.getoption("--histories"))


@pytest.fixture(scope="session")
def rpo_seconds(request: pytest.FixtureRequest) -> int:
    """How long a load of the RPO suite lasts."""
    return int(request.config.getoption("--rpo-seconds"))


@pytest.fixture(scope="session")
def crash_states(request: pytest.FixtureRequest) -> int:
    """How many distinct disk states the crash checker rebuilds in this run."""
    return int(request.config.getoption("--crash-states"))
