"""Complaints: a failure that comes again and again is reported once, until it changes or a while has passed.

This module must never keep more than a bounded number of them: strangers choose the keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from engine.errors import LeewardError

KEYS = 256


class Complaints:
    """What was reported lately, by key (a peer's name, a stranger's host) and error code."""

    def __init__(self, report: Callable[[str, str, str, dict[str, Any]], None], again_s: float) -> None:
        self._report = report
        self._again_s = again_s
        self._said: dict[str, dict[str, float]] = {}

    def add(self, key: str, error: LeewardError, level: str) -> None:
        """Report `error`, unless it was reported under this key less than `again_s` ago."""
        now = asyncio.get_running_loop().time()
        if key not in self._said and len(self._said) >= KEYS:
            self._said.pop(next(iter(self._said)))
        said = self._said.setdefault(key, {})
        if error.code in said and now - said[error.code] < self._again_s:
            return
        said[error.code] = now
        self._report(level, error.code, error.message, {**error.details(), "remedy": error.advice})

    def forget(self, key: str) -> None:
        """What was wrong here is right again: the next failure is news."""
        self._said.pop(key, None)
