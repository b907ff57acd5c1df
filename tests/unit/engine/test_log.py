"""The log never fails whoever writes to it: /dev/full is a disk that is full for every write."""

from __future__ import annotations

import io

from engine.log import Unfailing


def test_a_full_disk_under_the_log_stops_nobody() -> None:
    with open("/dev/full", "w", encoding="utf-8", buffering=1) as full:
        log = Unfailing(full)
        print("a line that cannot be written", file=log, flush=True)
        full.detach()  # what waits in its buffer cannot be written either


def test_what_can_be_written_is_written() -> None:
    stream = io.StringIO()
    print("a line", file=Unfailing(stream), flush=True)
    assert stream.getvalue() == "a line\n"
