"""The structured log: one line an entry on standard error, for a person or a log collector.

This module must never decide what is worth a line.
"""

from __future__ import annotations

from typing import TextIO

import structlog


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
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
