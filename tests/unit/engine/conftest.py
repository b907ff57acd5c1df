"""A served site in memory, for the tests of the API and of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_site import ApiThread


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiThread]:
    """A site in memory behind a real socket in `tmp_path`."""
    running = ApiThread(tmp_path)
    yield running
    running.close()
