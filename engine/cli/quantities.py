"""Sizes and durations as they are typed: one whole number and one unit, nothing else.

K, M, G and T are powers of 1024; s, m, h and d are seconds to days; a number alone is bytes or seconds.
This module must never guess: what is not exactly of this form is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import rich_click as click

SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
LARGEST = (1 << 63) - 1
"""The largest number that files, SQLite and the wire hold."""


def size(text: str) -> int:
    """Bytes from 4096, 512K, 10G. Raises ValueError with the reason."""
    return _quantity(text, SIZE_UNITS, "a whole number of bytes, or one with K, M, G or T, such as 10G")


def duration(text: str) -> int:
    """Seconds from 90, 30s, 5m, 2h, 1d. Raises ValueError with the reason."""
    return _quantity(text, DURATION_UNITS, "a whole number of seconds, or one with s, m, h or d, such as 5m")


def duration_or_none(text: str) -> int:
    """As `duration`; 0 from "none"."""
    return 0 if text == "none" else duration(text)


def _quantity(text: str, units: dict[str, int], form: str) -> int:
    parts = re.fullmatch(r"([0-9]+)([A-Za-z]?)", text, re.ASCII)
    if parts is None or parts[2] not in units:
        raise ValueError(f"{text!r} is not {form}")
    value = int(parts[1]) * units[parts[2]] if len(parts[1]) < 20 else LARGEST + 1
    if not 0 < value <= LARGEST:
        raise ValueError(f"{text!r} is {'too large' if value else 'nothing'}; give {form}")
    return value


def typed(
    parse: Callable[[str], int],
) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """The callback of an option that is parsed by `size` or `duration`."""

    def convert(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", ctx, param) from None

    return convert
