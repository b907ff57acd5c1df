"""docs/protocol.md names every message, its number and its fields in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from engine.wire import messages as m

PAGE = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\d+ \w+)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))


def fields_of(kind: type[msgspec.Struct], before: str = "") -> list[str]:
    """The fields in order, those of a list's items behind the list; said once where two lists hold the same."""
    found, seen = [], set()
    for name, hint in get_type_hints(kind).items():
        found.append(before + name)
        for item in get_args(hint):
            if isinstance(item, type) and issubclass(item, msgspec.Struct) and item not in seen:
                seen.add(item)
                found += fields_of(item, f"{name}.")
    return found


def test_the_page_has_one_section_for_every_message() -> None:
    assert list(SECTIONS) == [f"{number} {kind.__name__}" for number, kind in m.TYPES.items()]


@pytest.mark.parametrize("number", m.TYPES, ids=lambda number: m.TYPES[number].__name__)
def test_the_page_names_the_fields_of_a_message(number: int) -> None:
    kind = m.TYPES[number]
    rows = re.findall(r"^\| ([\w.]+) \|", SECTIONS[f"{number} {kind.__name__}"], re.MULTILINE)
    assert [row for row in rows if row != "field"] == fields_of(kind)
