"""What must load fast loads little: errors, nouns, requests and the API's client are standard library only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rig.source import PRODUCT, ROOT

LEAN = ("blockstore.errors", "engine.errors", "engine.model", "engine.requests", "engine.api.client", "sra_frontend")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`, beyond what it starts with."""
    script = f"import sys; before = set(sys.modules); {statement}; print(*(sys.modules.keys() - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("module", LEAN)
def test_it_loads_nothing_beyond_the_standard_library(module: str) -> None:
    foreign = loaded_by(f"import {module}") - sys.stdlib_module_names - set(PRODUCT)
    assert not {name for name in foreign if not name.startswith("_")}


def test_the_command_line_loads_neither_arrays_nor_tables_nor_servers() -> None:
    heavy = {"numpy", "rich", "litestar", "uvicorn", "msgspec", "cryptography", "uvloop", "xxhash", "lz4"}
    assert not loaded_by("import engine.cli.main") & heavy
