"""The log never fails whoever writes to it: /dev/full is a disk that is full for every write."""

from __future__ import annotations

import io
from pathlib import Path

from engine.log import Unfailing


def test_a_full_disk_under_the_log_stops_nobody() -> None:
    raw = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  # closed by the wrapper
    full = io.TextIOWrapper(raw, write_through=True)
    print("a line that cannot be written", file=Unfailing(full), flush=True)
    raw.close()


def test_what_can_be_written_is_written() -> None:
    stream = io.StringIO()
    print("a line", file=Unfailing(stream), flush=True)
    assert stream.getvalue() == "a line\n"
