"""Every failure has a code, a meaning and a remedy, in one line each, and its facts fit into it."""

from __future__ import annotations

import importlib
import re
import string
from dataclasses import fields

import pytest

from blockstore.errors import CATALOGUE, LeewardError
from rig.source import product

for module in product():
    if module.path.endswith("errors.py"):
        importlib.import_module(module.path.removesuffix(".py").replace("/", "."))

ENTRIES = [pytest.param(entry, id=code) for code, entry in sorted(CATALOGUE.items())]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_error_has_a_code_a_meaning_and_a_remedy(entry: type[LeewardError]) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", entry.code)
    for text in (entry.meaning, entry.remedy):
        assert text.strip()
        assert "\n" not in text
        assert text.endswith((".", "}")), f"{text!r} is no sentence"
    assert entry.remedy is not LeewardError.remedy, "it only has the remedy of what nobody foresaw"
    assert entry.exit_status in (1, 2, 3, 4)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_errors_words_use_only_its_facts(entry: type[LeewardError]) -> None:
    parts = [part for text in (entry.meaning, entry.remedy) for part in string.Formatter().parse(text)]
    names = {name.partition(".")[0] for _, name, _, _ in parts if name}
    assert names <= {field.name for field in fields(entry)}  # type: ignore[arg-type]
