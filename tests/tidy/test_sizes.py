"""One idea a file, one screen a function."""

from __future__ import annotations

from rig.source import modules, product

FILE_LINES = 400
FUNCTION_LINES = 50


def test_no_file_of_the_product_is_longer_than_400_lines() -> None:
    assert not {module.path: lines for module in product() if (lines := module.text.count("\n")) > FILE_LINES}


def test_no_file_of_the_rig_is_longer_than_400_lines() -> None:
    found = modules("tests/rig", "benchmarks")
    assert not {module.path: lines for module in found if (lines := module.text.count("\n")) > FILE_LINES}


def test_no_function_is_longer_than_50_lines() -> None:
    long = [
        f"{module.path}:{function.lineno} {function.name}: {lines} lines"
        for module in product()
        for function in module.functions()
        if function.end_lineno and (lines := function.end_lineno - function.lineno + 1) > FUNCTION_LINES
    ]
    assert not long
