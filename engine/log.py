"""The structured log: one line an entry on standard error, for a person or a log collector.

This module must never decide what is worth a line.
"""

from __future__ import annotations

import contextlib
from typing import TextIO, cast

import structlog


class Unfailing:
    """A stream whose owner goes on when it cannot be written: a full log disk must not stop replication."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop the line: the event is in the records as well."""
        with contextlib.suppress(OSError, ValueError):  # full, gone or closed: nobody to tell, and no reason to stop
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        with contextlib.suppress(OSError, ValueError):  # likewise
            self._stream.flush()


def configure(stream: TextIO) -> None:
    """Log to `stream`: key=value lines, colours on a terminal only."""
    is_terminal = stream.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if is_terminal
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Unfailing(stream))),
        cache_logger_on_first_use=True,
    )
