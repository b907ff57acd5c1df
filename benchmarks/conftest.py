"""Benchmarks: contenders in groups, each doing the same task in the same run; `make bench` writes the ratios.

Results lie in build/bench: results.json (everything pytest-benchmark knows) and ratios.txt. The run fails when a
promise of benchmarks/table.py is missed. All files lie on one real disk, below build/bench/work.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import table
from benchmarks.datasets import build_mixed

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "bench"
found: list[table.Row] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("leeward benchmarks")
    group.addoption("--size", type=int, default=2048, help="MiB in the image that is copied (default 2048)")
    group.addoption("--rounds", type=int, default=3, help="how often each contender does its task (default 3)")
    group.addoption("--runtime", type=int, default=4, help="seconds of fio in each round (default 4)")


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """How often each contender does its task."""
    return int(request.config.getoption("--rounds"))


@pytest.fixture(scope="session")
def runtime_s(request: pytest.FixtureRequest) -> int:
    """Seconds of fio in each round."""
    return int(request.config.getoption("--runtime"))


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest) -> Path:
    """The image that is copied; made once and kept from run to run."""
    size_mib = int(request.config.getoption("--size"))
    path = RESULTS / f"mixed-{size_mib}.raw"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        build_mixed(unfinished, size_mib << 20)
        unfinished.rename(path)
    with path.open("rb") as file:  # every contender reads from the page cache
        while file.read(1 << 24):
            pass
    return path


@pytest.fixture
def work(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder on the disk of the benchmarks, removed afterwards."""
    folder = RESULTS / "work" / request.node.name.replace("/", "_")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """pytest-benchmark's hook: everything is measured, nothing is written yet."""
    found.extend(table.rows(output_json["benchmarks"]))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, and fail the run for a missed promise."""
    if not found:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = table.render(found)
    (RESULTS / "ratios.txt").write_text(text, encoding="utf-8")
    verdicts = table.verdicts(found)
    documents = [
        {"group": promise.group, "ratio": ratio, "at_most": promise.worst_ratio, "compares": whom}
        for promise, ratio, whom in verdicts
    ]
    (RESULTS / "ratios.json").write_text(json.dumps(documents, indent=2) + "\n", encoding="utf-8")
    if any(ratio > promise.worst_ratio for promise, ratio, _ in verdicts) and session.exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the table at the end of the run."""
    if found:
        terminalreporter.section("ratios (build/bench/ratios.txt)")
        terminalreporter.write(table.render(found))
