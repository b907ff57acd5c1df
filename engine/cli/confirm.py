"""The one question before a step that is hard to take back. Scripts have no terminal, or say --yes."""

from __future__ import annotations

import rich_click as click

from engine.errors import NotConfirmed


def confirm(operation: str, group: str, consequence: str) -> None:
    """Asks for the name of the group. Raises NotConfirmed."""
    question = f"{consequence} Type its name to go on"
    if click.prompt(question, default="", show_default=False, err=True) != group:
        raise NotConfirmed(operation=operation, group=group)
