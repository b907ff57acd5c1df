"""The only place that prints: exactly one JSON document, or tables and lines for people; errors; progress.

Results go to standard output, progress and errors to standard error. Tables are plain columns that are never
cut, so that an NBD URI can be copied from them. This module must never ask a daemon anything.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.cli import words
from engine.requests import ErrorDoc, JobDoc, ProgressDoc

STEPS_PER_PHASE = 10
"""Plain progress prints a line a tenth of a phase."""


def line(text: str = "") -> None:
    """A line for people."""
    print(text, flush=True)


def document(value: Any) -> None:
    """One JSON document on one line; `value` is a document, or a sequence of documents."""
    print(json.dumps(plain(value)), flush=True)


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def failure(error: ErrorDoc, *, as_json: bool) -> None:
    """A failure: the document of DESIGN section 8 on standard output, or one line on standard error."""
    if as_json:
        fields = dataclasses.asdict(error)
        del fields["exit_status"]
        document({"error": fields})
    else:
        text = " ".join(f"{error.message} {error.remedy}".split())
        print(f"error: {text} [{error.code}]", file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Plain columns under capitals, or the line `empty` where there are no rows."""
    if not rows:
        line(empty)
        return
    cells = [[column.upper() for column in columns], *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        line(f"{name:<{width}}  {value}".rstrip())


def clear() -> None:
    """Empties the terminal before the next picture; elsewhere pictures follow each other."""
    if sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")


def give_up_output() -> None:
    """The reader went away (`| head`): what Python would still flush at its exit goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[JobDoc], None]]:
    """How a job goes, on standard error: a bar on a terminal, lines elsewhere, nothing when `quiet`."""
    if quiet:
        yield lambda job: None
    elif sys.stderr.isatty():
        with _bar() as news:
            yield news
    else:
        yield _Lines()


class _Lines:
    """A line when a phase begins, and at each tenth of it."""

    def __init__(self) -> None:
        self._said: tuple[str, int] = ("", -1)

    def __call__(self, job: JobDoc) -> None:
        now = job.progress
        if now is None:
            return
        step = now.done_bytes * STEPS_PER_PHASE // now.total_bytes if now.total_bytes else 0
        if (now.phase, step) != self._said:
            self._said = (now.phase, step)
            print(f"{job.kind} {job.group or ''}: {amount(now)}".replace(" :", ":"), file=sys.stderr, flush=True)


def amount(now: ProgressDoc) -> str:
    """How far a phase is, in words."""
    if not now.total_bytes:
        return now.phase
    speed = f", {words.size(int(now.bytes_per_s))}/s" if now.bytes_per_s else ""
    part = 100 * now.done_bytes // now.total_bytes
    return f"{now.phase}, {words.size(now.done_bytes)} of {words.size(now.total_bytes)} ({part} %{speed})"


@contextmanager
def _bar() -> Iterator[Callable[[JobDoc], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False, amount="")

        def news(job: JobDoc) -> None:
            if job.progress is not None:
                bar.update(
                    task,
                    visible=True,
                    description=f"{job.kind} {job.group or ''}".strip(),
                    completed=job.progress.done_bytes,
                    total=job.progress.total_bytes or None,
                    amount=amount(job.progress),
                )

        yield news
