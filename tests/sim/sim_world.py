"""The world of one run: two hosts, the network between them, and the story of what happened."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from sim_loop import Scheduler
from sim_net import Network

if TYPE_CHECKING:
    from sim_site import SimHost


class World:
    """One clock, one network, the hosts by name; `story` in words, with the virtual seconds."""

    def __init__(self, seed: int) -> None:
        self.scheduler = Scheduler(seed)
        self.network = Network(self.scheduler)
        self.hosts: dict[str, SimHost] = {}
        self.story: list[str] = []
        self.faults: list[str] = []
        """What no run may show: errors of ours that nobody expected."""
        self.committed: Callable[[SimHost], None] = lambda host: None
        """Called when the records of a host have changed."""

    def reseed(self, seed: int) -> None:
        """All that is left to chance follows `seed` from now on."""
        self.scheduler.reseed(seed)
        self.network.random = Random(seed + 1)

    def tell(self, text: str) -> None:
        self.story.append(f"{self.scheduler.now:10.4f}  {text}")

    def note_fault(self, host: str, code: str, message: str, trace: Any) -> None:
        text = "".join(traceback.format_exception(trace)) if trace is not None else ""
        self.faults.append(f"{host}: {code}: {message}\n{text}")
