"""From timings to ratios: who stands where in each group, and whether what we promise holds.

A group is one task, done by several contenders in the same run on the same machine, so that the ratio means
something where the seconds do not. A promise names the group, the peers it is about, and the worst ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "leeward"


@dataclass(frozen=True, slots=True)
class Promise:
    """Our time is at most `worst_ratio` times that of the best of the peers whose name starts with `against`."""

    group: str
    worst_ratio: float
    against: str = ""


PROMISES = (
    Promise("full copy", 1.5),
    Promise("1 % increment", 0.1, "rsync"),
    Promise("4 KiB random writes, depth 1", 1 / 0.9),
    Promise("4 KiB random writes, depth 32", 1 / 0.9),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One contender: `cost` is the median of what its group compares (seconds, or seconds an operation)."""

    group: str
    name: str
    cost: float
    rounds: int
    note: str


def rows(benchmarks: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of pytest-benchmark's JSON. A test that measures by itself left its cost in `extra_info`."""
    return [
        Row(
            str(one["group"]),
            str(one["extra_info"]["contender"]),
            float(one["extra_info"].get("cost") or one["stats"]["median"]),
            int(one["stats"]["rounds"]),
            str(one["extra_info"].get("note", "")),
        )
        for one in benchmarks
    ]


def best_peer(found: Sequence[Row], against: str = "") -> Row | None:
    """The quickest contender that is not ours and whose name starts with `against`."""
    peers = [row for row in found if not row.name.startswith(OURS) and row.name.startswith(against)]
    return min(peers, key=lambda row: row.cost, default=None)


def verdicts(found: Sequence[Row]) -> list[tuple[Promise, float, str]]:
    """(promise, ratio, whom it compares) for each promise whose group was run with a contender of ours and a peer."""
    result = []
    for promise in PROMISES:
        group = [row for row in found if row.group == promise.group]
        ours = [row for row in group if row.name.startswith(OURS)]
        peer = best_peer(group, promise.against)
        if ours and peer:
            best = min(ours, key=lambda row: row.cost)
            result.append((promise, best.cost / peer.cost, f"{best.name} : {peer.name}"))
    return result


def render(found: Sequence[Row]) -> str:
    """The table as text: every group with its contenders, quickest first, then the promises."""
    lines = []
    for group in sorted({row.group for row in found}):
        members = sorted((row for row in found if row.group == group), key=lambda row: row.cost)
        peer = best_peer(members)
        lines.append(group)
        for row in members:
            ratio = f"{row.cost / peer.cost:7.2f} x" if peer else " " * 9
            lines.append(f"  {row.name:<36}{_cost(row.cost):>12} {ratio}  {row.note}".rstrip())
        lines.append("")
    lines.append("promises (cost of ours : cost of the best peer)")
    for promise, measured, whom in verdicts(found):
        word = "holds" if measured <= promise.worst_ratio else "MISSED"
        lines.append(f"  {promise.group:<36}{measured:7.3f} x, at most {promise.worst_ratio:.3f}  {word}  ({whom})")
    return "\n".join(lines) + "\n"


def _cost(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 0.001 else f"{seconds * 1e6:.1f} us"
