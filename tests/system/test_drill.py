"""`leeward demo --drill` does what it says: its figures are those of the writes, and a wrong image makes it fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.cli import drill
from engine.cli.demo_site import perform
from rig.daemon import LEEWARD
from rig.until import until

BLOCK = 4096
SYNCED = re.compile(
    r"(\d+) blocks \([\d.]+ MiB\) sent to '\w+'(?: and (\d+) told as zeros)?, (\d+) bytes on the wire, in ([\d.]+) s"
)
WROTE = re.compile(r"Hosts write (\d+) blocks")
SET_ASIDE = re.compile(r"What 'lee' alone had, (\d+) blocks .* set-aside 'aside-1'")
COMPARED = re.compile(r"Compared at .*: (\d) images, (\d+)\.0 MiB, byte for byte what was written")
STEPS = 8


def steps_of(story: list[str]) -> list[str]:
    """The text of the preparation and of each numbered step."""
    found = [""]
    for line in story:
        if line.startswith(f"{len(found)}. "):
            found.append("")
        found[-1] += line + "\n"
    return found


def wrote(step: str) -> list[int]:
    return [int(count) for count in WROTE.findall(step)]


def sent(step: str) -> list[int]:
    """Blocks of each sync of a step, those that are zeros included."""
    return [int(blocks) + int(zeros or 0) for blocks, zeros, _, _ in SYNCED.findall(step)]


def test_the_drill_passes_and_its_figures_are_those_of_the_writes(tmp_path: Path) -> None:
    done = subprocess.run(
        [LEEWARD, "demo", "--drill", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["passed"] is True
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"
    steps = steps_of(told["story"])
    assert len(steps) == 1 + STEPS, told["story"]
    for number, step in enumerate(steps):
        assert COMPARED.search(step), f"step {number} compares no image"
    for blocks, _, wire, seconds in SYNCED.findall("".join(steps)):
        assert 0 < int(wire) < 1.1 * int(blocks) * BLOCK + 100_000
        assert 0 <= float(seconds) < 60
    _, copy, move, back, disaster, split, resolution, again, failback = steps
    assert sent(copy) == wrote(copy)
    assert [wrote(move)[0]] == sent(move)
    assert sent(back) == [wrote(move)[1]], "after the move, only what hosts wrote at the other site goes back"
    assert sent(disaster) == sent(split) == sent(resolution) == []
    at_lee, at_harbour = wrote(disaster)
    counts = re.search(r"common point: (\d+) blocks .* at 'harbour', (\d+) blocks .* at 'lee'", split)
    assert counts
    assert (int(counts[1]), int(counts[2])) == (at_harbour, at_lee)
    assert split.count("both sites were written since their newest common point. [refused_by_state]") == 2
    assert "[would_discard]" in split
    kept = SET_ASIDE.search(resolution)
    assert kept
    assert int(kept[1]) == at_lee
    assert max(at_lee, at_harbour) <= sent(again)[0] <= at_lee + at_harbour
    assert sent(failback) == wrote(failback)
    assert "still listed: aside-1" in failback
    for step in (resolution, failback):
        assert "'aside-1' is exported read-only: 2 images, byte for byte" in step
    assert "It is dropped, and its exports are gone." in failback


class Forgetful(drill.Drill):
    """Its record has one byte that nobody wrote."""

    def test_copy(self) -> None:
        with self.records["harbour"].image(drill.LOG).open("r+b") as file:
            file.seek(5 << 20)
            byte = file.read(1)
            file.seek(5 << 20)
            file.write(bytes([byte[0] ^ 1]))
        super().test_copy()


def test_one_wrong_byte_fails_the_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    story: list[str] = []
    assert perform("drill", Forgetful, story.append) == 1
    assert "The drill FAILED: volume log of 'harbour' differs" in story[-1]
    assert story[-1].endswith(f"first at byte {5 << 20}")
    assert list(tmp_path.iterdir()) == []


def test_a_drill_that_is_told_to_end_leaves_neither_daemons_nor_files(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = [LEEWARD, "demo", "--drill"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as told:
        until(lambda: serving(tmp_path), "a daemon of the drill", 30)
        told.send_signal(signal.SIGTERM)
        _, errors = told.communicate(timeout=30)
    assert told.returncode == 1
    assert "interrupted" in errors
    assert serving(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


class ToldToEnd(subprocess.Popen[bytes]):
    """A process whose starter is told to end at the moment when it runs and nobody holds it yet."""

    def __init__(self, *words: Any, **how: Any) -> None:
        super().__init__(*words, **how)
        if "serve" in self.args:  # type: ignore[operator]
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_daemon_that_starts_as_the_drill_is_told_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("engine.cli.demo_site.subprocess.Popen", ToldToEnd)
    with pytest.raises(KeyboardInterrupt):
        perform("drill", drill.Drill, lambda line: None)
    assert serving(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def serving(folder: Path) -> list[str]:
    """The command lines of daemons whose data is in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "serve" in words and any(word.startswith(str(folder)) for word in words):
            found.append(" ".join(words))
    return found
