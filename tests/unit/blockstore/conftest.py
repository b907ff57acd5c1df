"""Fixtures of the block store's tests: a folder on a real tmpfs, limits so small that schedules meet them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockstore import writer
from blockstore.stores import surface
from blockstore.tracking import hot, tracker


@pytest.fixture
def live() -> Iterator[Path]:
    """A folder on tmpfs for live maps."""
    folder = Path(tempfile.mkdtemp(prefix="leeward-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def quick_root() -> Iterator[Path]:
    """A folder on tmpfs for disks whose syncs are modelled."""
    folder = Path(tempfile.mkdtemp(prefix="leeward-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that nine regions and a few blocks meet all of them."""
    for module in (surface, writer):
        monkeypatch.setattr(module, "INLINE_BYTES", 8192)
    monkeypatch.setattr(tracker, "MAX_LOGGED_REGIONS", 2)
    monkeypatch.setattr(hot, "MAX_REGIONS", 5)
