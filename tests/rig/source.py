"""The source of the product as parsed trees, for the rules of the house in tests/tidy."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("blockstore", "engine", "sra_frontend")


@dataclass(frozen=True)
class Module:
    """One file: `path` relative to the project, as in messages; its text and its tree."""

    path: str
    text: str
    tree: ast.Module

    def calls(self) -> Iterator[tuple[str, int]]:
        """(dotted name, line) of everything that is called, imported names resolved: `from time import sleep as s`,
        `s(1)` is ("time.sleep", line). Names that are reached through a value are left out.
        """
        names = self.names()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                dotted = _dotted(node.func)
                if dotted:
                    head, _, rest = dotted.partition(".")
                    full = names.get(head, head)
                    yield (f"{full}.{rest}" if rest else full), node.lineno

    def uses(self) -> Iterator[tuple[str, int]]:
        """(dotted name, line) of every mention of an imported name, called or only handed on."""
        names = self.names()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                dotted = _dotted(node)
                head, _, rest = dotted.partition(".")
                if head in names:
                    yield f"{names[head]}.{rest}", node.lineno
            elif isinstance(node, ast.Name) and node.id in names:
                yield names[node.id], node.lineno

    def names(self) -> dict[str, str]:
        """Local name -> dotted name of what it was imported as."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def imports(self) -> Iterator[tuple[str, int]]:
        """(module, line) of every import, wherever it stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module, node.lineno

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def classes(self) -> Iterator[ast.ClassDef]:
        """Every class at the top of the module."""
        return (node for node in self.tree.body if isinstance(node, ast.ClassDef))


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of a chain of names; "" for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Every Python file below these folders of the project, in the order of their paths."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert paths, f"no Python below {folders}"
    texts = [(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths]
    return tuple(Module(path, text, ast.parse(text, path)) for path, text in texts)


def product() -> tuple[Module, ...]:
    """Every module of the product."""
    return modules(*PRODUCT)
