"""What the sender asks of whoever holds the blocks, and of the link that carries them.

One shape for the first pass of a seed and for a captured delta of any size: the sender pulls regions
lazily and never holds the plan. This module must never do I/O; the adapters are where sources are made
(`operations`), the algorithm is in `sender`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from blockstore.blockset import RegionBits
from blockstore.units import Extent

T = TypeVar("T")

U64 = NDArray[np.uint64]


class ShipSource(Protocol):
    """The blocks of one volume that are to be shipped. Everything on the loop, but what is said to be blocking."""

    knows_holes: bool
    """True if it is worth asking `blank`, which goes before the read of many regions at once."""

    def regions(self) -> Iterator[RegionBits]:
        """(region, bits) of what is to be shipped, ascending; pulled a few at a time while the sync runs.

        A region is shipped once, with all the bits that it has when it is pulled. Regions whose bits were
        told to `equal` or `landed` meanwhile may be left out or not: each is asked for once.
        """

    async def read_runs(self, runs: Sequence[Extent], buffer: memoryview, examine: Callable[[], T]) -> T:
        """Fill `buffer` with the blocks of `runs`, ascending and end to end, then return `examine()`.

        `examine` hashes what stands in the buffer: call it in the *same* thread of the pool right after the
        reads, so that a frame of any number of runs costs one hop. Blocks that turn out, back on the loop, to
        have been preserved meanwhile are read again from where they were kept, and `examine` is then called
        once more (it may be called any number of times; the last result counts). Neighbouring blocks are in one
        run already: one `preadv` each. The short last block of an image is padded with zeros.
        Two calls may be under way at once, each with its own buffer. When it is cancelled it must not return
        before no thread touches `buffer` any more. Raises OSError, CaptureFailed.
        """

    async def blank(self, regions: Sequence[RegionBits]) -> list[RegionBits]:
        """Those of `regions` that hold nothing but zeros at this moment, known without reading them.

        What is said of a read holds for this look. They are shipped as zeros, whatever the parent point holds there:
        only for sources that know no hashes of it. Raises OSError.
        """

    def known_hashes(self, runs: Sequence[Extent]) -> U64 | None:
        """The hash of each block of `runs` as of the parent point, 0 where unknown; None: all unknown.

        Blocking, called in the pool within `examine`, from two threads at once. A block with an equal hash is not sent.
        """

    def equal(self, region: int, bits: int) -> None:
        """These blocks are what the parent point holds already: they are done, and were not sent."""

    def landed(self, region: int, bits: int) -> None:
        """These blocks are durable at the receiver: nothing needs to preserve them any more."""


class RedoLog(Protocol):
    """Where the heads of sent frames go: `blockstore` RedoPack."""

    def append(self, head: bytes | bytearray) -> None:
        """Take in the head of one frame. Blocking, in the order of sending, one call at a time."""


class SendLink(Protocol):
    """The part of a PeerLink that a sender needs."""

    async def send(self, message: Any, payload: Sequence[memoryview | bytes | bytearray] = ()) -> None:
        """Send; returns when the buffers may be reused. Raises when the link is lost."""
