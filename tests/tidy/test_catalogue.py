"""Every failure has a code, a meaning and a remedy, in one line each, and its facts fit into it."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import fields

import pytest
import rich_click as click

import engine.errors
from blockstore.errors import CATALOGUE, LeewardError
from engine.cli.main import program
from rig.source import product

LIST = "engine/errors/__init__.py"
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


def test_the_catalogue_lists_every_error_once_and_nothing_else() -> None:
    written = [
        node.name
        for module in product()
        if module.path.startswith("engine/")
        for node in module.classes()
        if any(isinstance(part, ast.AnnAssign) and ast.unparse(part.target) == "code" for part in node.body)
        if any(ast.unparse(base) == "LeewardError" for base in node.bases)
    ]
    exits = [name for name in vars(engine.errors) if name.startswith("EXIT_")]
    assert sorted(engine.errors.__all__) == sorted([*written, *exits, "LeewardError"])
    assert {entry.__name__ for entry in CATALOGUE.values() if entry.__module__.startswith("engine.")} == set(written)


def test_the_catalogue_does_nothing_but_list() -> None:
    (tree,) = (module.tree for module in product() if module.path == LIST)
    allowed = re.compile(r"from (blockstore\.errors|engine\.errors\.\w+) import |__all__ = ")
    assert not [line for node in tree.body[1:] if not allowed.match(line := ast.unparse(node))]


def test_every_command_that_a_text_of_the_product_names_exists() -> None:
    """Remedies above all: an operator who is told to run what is not there has no remedy. Options are looked up too."""
    unknown = [
        f"{place}: {words}"
        for place, text in (*remedies(), *texts())
        for words in re.findall(r"`leeward ([^`]*)", text)
        if not is_command(words.split())
    ]
    assert not unknown


def test_every_option_that_a_remedy_names_exists() -> None:
    options = {"--help", *(option for command in commands(program) for option in options_of(command))}
    assert not [
        f"{code}: {option}"
        for code, remedy in remedies()
        for option in re.findall(r"--[a-z][a-z-]*", remedy)
        if option not in options
    ]


@pytest.mark.parametrize("words", ["support-bundle", "scrub --repair", "volume repair data", "sync {group} --now"])
def test_a_command_that_does_not_exist_is_found_out(words: str) -> None:
    assert not is_command(words.split())


def remedies() -> Iterator[tuple[str, str]]:
    yield LeewardError.code, LeewardError.remedy
    yield from ((code, entry.remedy) for code, entry in CATALOGUE.items())


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the product that is no remedy of the catalogue; of one with values in it, the parts between."""
    for module in product():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{module.path}:{node.lineno}", node.value


def is_command(words: list[str]) -> bool:
    """True if the words name a command (or a group of commands) and only options that it has."""
    command: click.Command | None = program
    while isinstance(command, click.Group):
        if not words:
            return command is not program
        command = command.get_command(click.Context(command), words.pop(0))
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    return command is not None and named <= {"--help", *options_of(command)}


def commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command) if isinstance(command, click.Group) else (command,)


def options_of(command: click.Command) -> set[str]:
    return {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
