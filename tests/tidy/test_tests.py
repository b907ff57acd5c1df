"""The tests' own rules: names that do not clash, no sleeping, nothing left out."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from rig.source import modules


def test_no_two_test_files_have_the_same_name() -> None:
    """They are imported by their base names, for there is no `__init__.py` in the folders of tests."""
    names = Counter(PurePath(module.path).name for module in modules("tests", "benchmarks"))
    names.pop("conftest.py", None)
    names.pop("__init__.py", None)
    assert not [name for name, times in names.items() if times > 1]


def test_no_test_sleeps() -> None:
    # The rig may, between two looks at a condition.
    found = [
        f"{module.path}:{line}"
        for module in modules("tests")
        if not module.path.startswith("tests/rig/")
        for name, line in module.calls()
        if name in ("time.sleep", "asyncio.sleep") and "sleep(0)" not in module.text.splitlines()[line - 1]
    ]
    assert not found


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
