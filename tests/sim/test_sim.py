"""Histories of two sites under a seeded scheduler: every promise is kept, and a planted bug is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim_planted import PLANTED

MAIN = Path(__file__).parent / "sim_main.py"
CHUNKS = 20
MOST_TO_FIND_ONE = 300


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it keeps whatever was killed in it until it ends."""
    return subprocess.run(
        [sys.executable, str(MAIN), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=False,
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_promise_is_kept_in_every_history(chunk: int, histories: int, seed: int) -> None:
    share = -(-histories // CHUNKS)
    first = seed * 1_000_000 + chunk * share
    done = run("--first", str(first), "--count", str(share))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("bug", sorted(PLANTED))
def test_a_planted_bug_is_found(bug: str) -> None:
    done = run("--plant", bug, "--count", str(MOST_TO_FIND_ONE))
    assert done.stdout.startswith("seed "), f"{bug} was not found:\n{done.stdout}{done.stderr}"
    assert done.returncode == 1


def test_a_history_is_the_same_each_time() -> None:
    stories = {run("--first", "7", "--count", "1", "--story").stdout.rsplit(",", 1)[0] for _ in range(2)}
    assert len(stories) == 1
    assert "operator at" in stories.pop()
