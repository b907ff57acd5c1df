"""What the sender remembers: what left and is not durable yet, and frames without blocks that wait for company.

On the loop only. This module must never do I/O.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blockstore.blockset import RegionBits
from blockstore.errors import BlockMismatch
from blockstore.frame import MAX_FRAME_BLOCKS
from blockstore.units import BLOCK, BLOCKS_PER_REGION
from engine.decide.compression import PLAIN
from engine.errors import WireDamaged
from engine.transfer.codecs import Piece
from engine.transfer.examine import MOST_REGIONS, Examined, Examiner, Head
from engine.transfer.pipeline import Buffer
from engine.transfer.source import RedoLog, ShipSource


@dataclass(slots=True)
class ShipCounts:
    """What was shipped. Blocks are 4096 bytes; a block that was sent twice counts once in all but `bytes_resent`."""

    blocks_changed: int = 0
    """Blocks that were looked at."""
    blocks_equal: int = 0
    blocks_zero: int = 0
    blocks_kept: int = 0
    blocks_sent: int = 0
    frames: int = 0
    bytes_stored: int = 0
    """Bytes of blocks on the wire, packed; all of them, however often they were sent."""
    bytes_resent: int = 0

    @property
    def bytes_changed(self) -> int:
        return self.blocks_changed * BLOCK

    @property
    def bytes_sent(self) -> int:
        """Bytes of the blocks that travelled, before they were packed."""
        return self.blocks_sent * BLOCK


class OutgoingVolume:
    """One volume on its way. A frame is remembered by what it settles, until the receiver says it is durable."""

    def __init__(
        self,
        index: int,
        source: ShipSource,
        examiner: Examiner,
        redo: RedoLog | None,
        sent_before: Mapping[int, int],
    ) -> None:
        self.index = index
        self.source = source
        self.examiner = examiner
        self.redo = redo
        self.batch_blocks = MAX_FRAME_BLOCKS
        """Blocks that are cut off at once; more than a frame holds are looked over for holes first."""
        self.is_void = False
        """True after a RETRY: the receiver drops what comes of this volume until FLUSH."""
        self._sent_before = sent_before
        self._sent: deque[Sequence[RegionBits]] = deque()
        self._landed_frames = 0
        self._retried: set[int] = set()

    def sent(self, regions: Sequence[RegionBits]) -> None:
        """A frame that settles `regions` is about to leave."""
        self._sent.append(regions)

    def landed(self, frames: int) -> None:
        """The first `frames` of the session are durable. Tells the source. Raises WireDamaged if that cannot be."""
        if not self._landed_frames <= frames <= self._landed_frames + len(self._sent):
            raise WireDamaged(reason=f"{frames} frames are said to have landed")
        while self._landed_frames < frames:
            for region, bits in self._sent.popleft():
                self.source.landed(region, bits)
            self._landed_frames += 1

    def retry(self, regions: Iterable[int]) -> None:
        """Blocks of `regions` did not match. Raises BlockMismatch when it is the second time for one of them."""
        for region in regions:
            if region in self._retried:
                raise BlockMismatch(first=region * BLOCKS_PER_REGION, blocks=BLOCKS_PER_REGION)
            self._retried.add(region)
        self.is_void = True

    def unlanded(self) -> dict[int, int]:
        """Region -> bits of what left and is not known to be durable."""
        return union(self._sent)

    def begin_again(self) -> list[RegionBits]:
        """The receiver counts frames from 0 again; returns what it lost, ascending."""
        lost = sorted(self.unlanded().items())
        self._sent.clear()
        self._landed_frames = 0
        self.is_void = False
        return lost

    def resent_blocks(self, regions: Iterable[RegionBits]) -> int:
        """How many of these blocks had left over an earlier link."""
        if not self._sent_before:
            return 0
        return sum((bits & self._sent_before.get(region, 0)).bit_count() for region, bits in regions)


@dataclass(slots=True)
class Outgoing:
    """A frame about to leave: the head that travels, the one that is noted, what it settles, and its blocks."""

    volume: OutgoingVolume
    sent: Head
    noted: Head
    regions: list[RegionBits]
    segments: Sequence[bytes | memoryview] = ()
    codec: str = PLAIN
    pieces: tuple[Piece, ...] = ()

    @property
    def has_blocks(self) -> bool:
        return bool(self.segments)

    def takes(self, more: Outgoing) -> bool:
        """True if this frame, which has no blocks, can travel in front of `more`."""
        return (
            more.volume is self.volume
            and len(self.regions) + len(more.regions) <= MOST_REGIONS
            and self.sent.fits(more.sent)
            and self.noted.fits(more.noted)
        )

    def joined(self, more: Outgoing) -> Outgoing:
        """Both as one frame; `takes` said that they can be."""
        sent = self.sent.joined(more.sent)
        alike = self.sent is self.noted and more.sent is more.noted
        noted = sent if alike else self.noted.joined(more.noted)
        regions = self.regions + more.regions
        return Outgoing(self.volume, sent, noted, regions, more.segments, more.codec, more.pieces)


@dataclass(slots=True)
class Prepared:
    """A batch that was read and examined, in the buffer that it holds until it has left. No `frame`: all is equal."""

    volume: OutgoingVolume
    buffer: Buffer
    found: Examined
    is_again: bool
    frame: Outgoing | None


def union(frames: Iterable[Iterable[RegionBits]]) -> dict[int, int]:
    """Region -> bits over all `frames`."""
    merged: dict[int, int] = {}
    for regions in frames:
        for region, bits in regions:
            merged[region] = merged.get(region, 0) | bits
    return merged
