"""Where frames of a sync go that does not run here any more: into memory that nobody reads.

After a session was voided the sender may still have a window of frames under way, until it reads why. The link
goes on, so their bytes must be taken. This module must never grant anything for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.wire.limits import PAYLOAD_BYTES
from engine.wire.messages import Data


class Drain:
    """One piece of memory for all links of a daemon: whatever is written there may be written over at any time."""

    def __init__(self) -> None:
        self._memory: memoryview | None = None

    def place(self, data: Data, length: int) -> Sequence[memoryview]:
        """Memory for the payload of `data`. There is nothing to do once it is complete."""
        if self._memory is None:
            self._memory = memoryview(bytearray(PAYLOAD_BYTES))
        return (self._memory[:length],)
