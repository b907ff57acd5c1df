"""Every module says what it is for, every class that does something says what; a record's fields speak for it."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import PurePath

from rig.source import ROOT, modules, product

LISTS = ("engine/errors/__init__.py", "engine/requests/__init__.py")
"""The maps that import what they name: nobody has to know in which part an error or a request stands."""


def is_record(node: ast.ClassDef) -> bool:
    """True for an error of the catalogue, a dataclass, a struct or an enum: fields, each with a name that says it."""
    marks = [ast.unparse(mark) for mark in (*node.bases, *node.decorator_list)]
    words = ("dataclass", "Struct", "Enum", "NamedTuple", "Message", "Error")
    return any(word in mark for mark in marks for word in words)


def test_every_module_says_what_it_is_for() -> None:
    everything = (*product(), *modules("tests", "benchmarks"))
    assert not [module.path for module in everything if not ast.get_docstring(module.tree)]


def test_every_module_of_the_product_says_what_it_must_never_do() -> None:
    # The map of a folder holds no behaviour, and what commands must never do stands in theirs.
    words = re.compile(r"\b(never|nothing|pure|no I/O)\b", re.IGNORECASE)
    silent = [
        module.path
        for module in product()
        if not module.path.endswith("__init__.py") and not module.path.startswith("engine/cli/")
        if not words.search(ast.get_docstring(module.tree) or "")
    ]
    assert not silent


def test_every_public_class_that_does_something_says_what() -> None:
    silent = [
        f"{module.path}:{node.lineno} {node.name}"
        for module in product()
        for node in module.classes()
        if not node.name.startswith("_") and not is_record(node) and not ast.get_docstring(node)
    ]
    assert not silent


def test_a_folder_of_the_product_holds_its_map_and_no_imports() -> None:
    """Importing `engine.decide.plan` must load nothing but it, so an `__init__.py` is one docstring."""
    wrong = [
        module.path
        for module in product()
        if module.path.endswith("__init__.py") and module.path not in LISTS
        if len(module.tree.body) != 1 or not ast.get_docstring(module.tree)
    ]
    assert not wrong


def test_a_folders_map_names_every_file_in_it() -> None:
    maps = {
        PurePath(module.path).parent: re.findall(r"[\w*]+\.py", ast.get_docstring(module.tree) or "")
        for module in product()
        if module.path.endswith("__init__.py")
    }
    files = [PurePath(module.path) for module in product() if not module.path.endswith("__init__.py")]
    assert not [str(file) for file in files if not any(fnmatch(file.name, name) for name in maps[file.parent])]


def test_a_folders_map_names_only_what_is_there() -> None:
    wrong = [
        f"{module.path}: {name}"
        for module in product()
        if module.path.endswith("__init__.py")
        for name in re.findall(r"[\w*]+\.py", ast.get_docstring(module.tree) or "")
        if not list((ROOT / module.path).parent.glob(name))
    ]
    assert not wrong
