"""Every test of links runs on the loop that the daemon runs on, and leaves no site behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from linked_sites import LinkedSite


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Makes started sites: `await site("berlin", 1)`; the number is that of its id. All are closed at the end."""
    made: list[LinkedSite] = []

    async def make(name: str, number: int, **options: Any) -> LinkedSite:
        fresh = LinkedSite(tmp_path, name, bytes([number]) * 16, **options)
        await fresh.links.start()
        made.append(fresh)
        return fresh

    yield make
    await asyncio.gather(*(one.links.close() for one in made))
