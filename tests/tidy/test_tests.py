"""The tests' own rules: names that do not clash, no sleeping, nothing left out."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import PurePath

from rig.source import modules


def test_no_two_test_files_have_the_same_name() -> None:
    """They are imported by their base names, for there is no `__init__.py` in the folders of tests."""
    names = Counter(PurePath(module.path).name for module in modules("tests", "benchmarks"))
    names.pop("conftest.py", None)
    names.pop("__init__.py", None)
    assert not [name for name, times in names.items() if times > 1]


def test_a_test_waits_for_a_condition_and_never_just_sleeps() -> None:
    """A sleep is what lies between two looks at the condition of a `while`, or it is a guess."""
    guesses = []
    for module in modules("tests"):
        loops = [node for node in ast.walk(module.tree) if isinstance(node, ast.While)]
        waits = {node.lineno for loop in loops for node in ast.walk(loop) if isinstance(node, ast.Call)}
        sleeps = {line for name, line in module.calls() if name in ("time.sleep", "asyncio.sleep")}
        yields = {line for line in sleeps if "sleep(0)" in module.text.splitlines()[line - 1]}
        guesses += [f"{module.path}:{line}" for line in sorted(sleeps - waits - yields)]
    assert not guesses


def test_no_test_is_left_out() -> None:
    found = [
        f"{module.path}:{line} {name}"
        for module in modules("tests")
        for name, line in module.uses()
        if name.startswith(("pytest.mark.skip", "pytest.skip", "pytest.importorskip", "pytest.mark.xfail"))
    ]
    assert not found


def test_no_test_stands_on_a_mock() -> None:
    found = [module.path for module in modules("tests") for name, _ in module.imports() if name.startswith("unittest")]
    assert not found


def test_daemons_images_and_clients_of_the_rig_see_only_what_an_operator_sees() -> None:
    names = ("blocks", "daemon", "images", "load", "loop", "nbd", "pair", "peers", "ports")
    found = [
        f"{module.path}:{line} {name}"
        for module in modules("tests/rig")
        if PurePath(module.path).stem in names
        for name, line in module.imports()
        if name.partition(".")[0] in ("blockstore", "engine", "sra_frontend")
    ]
    assert not found
