"""What an operator reads once, and what is only counted."""

from __future__ import annotations

from typing import Any

from blockstore.errors import VolumeFailed, WriteRefused
from engine.exports.reports import QUIET_S, RateLimited

Line = tuple[str, str, str, dict[str, Any]]


class Desk:
    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[Line] = []
        self.report = RateLimited(lambda *line: self.lines.append(line), lambda: self.now)


def test_the_first_report_is_given_at_once_with_meaning_and_remedy() -> None:
    desk = Desk()
    error = WriteRefused(volume="vol", reason="demoted")
    desk.report("error", error, "vol")
    assert desk.lines == [
        ("error", "write_refused", f"{error.message} {error.remedy}", {"volume": "vol", "reason": "demoted"})
    ]


def test_the_same_again_is_counted_and_told_with_the_next() -> None:
    desk = Desk()
    error = WriteRefused(volume="vol", reason="demoted")
    for _ in range(1000):
        desk.report("error", error, "vol")
        desk.now += QUIET_S / 1001
    assert len(desk.lines) == 1
    desk.now += QUIET_S
    desk.report("error", error, "vol")
    assert [line[3].get("again") for line in desk.lines] == [None, 999]


def test_another_thing_or_another_code_is_another_report() -> None:
    desk = Desk()
    desk.report("error", WriteRefused(volume="vol", reason="demoted"), "vol")
    desk.report("error", WriteRefused(volume="other", reason="demoted"), "other")
    desk.report("error", VolumeFailed(volume="vol", reason="flush"), "vol")
    assert len(desk.lines) == 3


def test_what_is_remembered_is_bounded() -> None:
    desk = Desk()
    for number in range(5000):
        desk.report("warning", WriteRefused(volume=str(number), reason="x"), str(number))
    assert len(desk.lines) == 5000
    desk.report("warning", WriteRefused(volume="4999", reason="x"), "4999")
    assert len(desk.lines) == 5000
    desk.report("warning", WriteRefused(volume="0", reason="x"), "0")
    assert len(desk.lines) == 5001
