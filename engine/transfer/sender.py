"""Shipper: regions of a volume -> frames on a link, in step with the receiver.

One pipeline for the first pass of a seed and for a captured delta, of any size: batches are cut as the
source yields regions, read and examined ahead in the pool, sent in order, and forgotten once the receiver
has said that they are durable. Equal blocks are dropped, runs of zeros travel as extents, regions that the
receiver holds are named as kept. A frame takes one receive buffer of the window, whatever its size.

After blocks that did not match (RETRY) the receiver throws away what follows of that volume, until FLUSH: so
FLUSH is sent, and behind FLUSHED everything that had not landed is sent again, once.
This module must never decide what a sync consists of, and never touch a block that a thread still reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial

from blockstore.blockset import RegionBits
from blockstore.errors import BlockMismatch
from blockstore.frame import BUFFER_BYTES, MAX_FRAME_BLOCKS
from blockstore.units import BLOCK, BLOCKS_PER_REGION
from engine.clock import Clock
from engine.decide.compression import PLAIN, Chooser
from engine.decide.plan import Batch, batches
from engine.errors import WireDamaged
from engine.pool import DiskPool
from engine.transfer.codecs import Piece, compact, pack
from engine.transfer.examine import MOST_REGIONS, Examined, Examiner
from engine.transfer.outgoing import Outgoing, OutgoingVolume, Prepared, ShipCounts
from engine.transfer.pipeline import Buffer, Buffers, Window, joined
from engine.transfer.source import RedoLog, SendLink, ShipSource
from engine.wire.messages import Data, Flush, Flushed, Grant, Landed, Message, Retry
from engine.wire.presence import unpack_regions

BUFFERS = 4
READ_AHEAD = 2
"""Batches under way in the pool while another is being sent; the fourth buffer is filled while one is given back."""
MOST_SEGMENTS = 64
"""Runs of blocks that are handed to the socket as they lie; more are moved together first."""

SURVEY_BLOCKS = MOST_REGIONS * BLOCKS_PER_REGION
"""Blocks that are looked over for holes at once: 4 GiB, which one frame of zeros can hold."""

Feed = Iterator[tuple[OutgoingVolume, Batch]]


class Shipper:
    """The sender's side of one sync over one link. A sync that goes on over another link gets a new one.

    Whoever receives from the link passes GRANT, LANDED, RETRY and FLUSHED of this sync to `message`, and
    tells `fail` when the link is lost. `ship` every volume, one after the other, then `finish`.
    """

    def __init__(
        self,
        link: SendLink,
        pool: DiskPool,
        clock: Clock,
        *,
        sync: bytes,
        window_bytes: int,
        chooser: Chooser | None = None,
        buffers: Buffers | None = None,
        pace: Callable[[int], Awaitable[None]] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """`window_bytes`: from RESUME. `chooser`: of this link, kept from sync to sync; None: all plain.

        `buffers`: kept from sync to sync, used by one at a time; None: own ones. `pace(bytes)` is awaited before
        a frame leaves; `progress(blocks)` is told of blocks that were dealt with.
        """
        self.counts = ShipCounts()
        self._link = link
        self._pool = pool
        self._clock = clock
        self._sync = sync
        self._window = Window(window_bytes)
        self._chooser = chooser or Chooser(())
        self._buffers = buffers or Buffers(BUFFERS)
        self._pace = pace
        self._progress = progress
        self._volumes: dict[int, OutgoingVolume] = {}
        self._again: deque[tuple[OutgoingVolume, Batch]] = deque()
        self._rest: deque[tuple[OutgoingVolume, Batch]] = deque()
        """What is to be read of stretches that were looked over for holes."""
        self._carried: Outgoing | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._failure: Exception | None = None

    async def ship(
        self,
        volume_index: int,
        source: ShipSource,
        *,
        image_bytes: int,
        hash_seed: int,
        redo: RedoLog | None = None,
        present: Mapping[int, bytes] | None = None,
        reusable: Mapping[int, bytes] | None = None,
        sent_before: Mapping[int, int] | None = None,
    ) -> None:
        """Send all that `source` has; returns when the last frame has left, which is before it is durable.

        `present`: regions that the receiver holds of this very sync: not read, told to `source.landed` at once.
        `reusable`: region -> digest of what it holds of older syncs. `sent_before`: what `unlanded` of the
        Shipper before said, so that it counts as sent again. Raises what the source and the link raise, what
        `fail` was told, WireDamaged, and BlockMismatch after a second RETRY of a region.
        """
        examiner = Examiner(
            image_bytes=image_bytes,
            hash_seed=hash_seed,
            known_hashes=source.known_hashes,
            reusable=reusable or {},
            probes=self._chooser.probes,
        )
        volume = OutgoingVolume(volume_index, source, examiner, redo, sent_before or {})
        self._volumes[volume_index] = volume
        wanted = self._wanted(volume, present or {})
        if source.knows_holes and not reusable:
            volume.batch_blocks = SURVEY_BLOCKS
        await self._run((volume, batch) for batch in batches(wanted, volume.batch_blocks))

    async def finish(self) -> None:
        """Return when everything that was sent is durable at the receiver and was told to the sources.

        Sends FLUSH, and again whatever the receiver lost. Raises as `ship`.
        """
        await self._settle()
        while self._again:
            await self._run(iter(()))
            await self._settle()

    def unlanded(self, volume_index: int) -> dict[int, int]:
        """Region -> bits that left, or wait to leave again, and are not known to be durable."""
        volume = self._volumes.get(volume_index)
        if volume is None:
            return {}
        left = volume.unlanded()
        for other, batch in self._again:
            if other is volume:
                left.update(batch.regions)
        return left

    def message(self, message: Message) -> None:
        """A message of this sync arrived. On the loop. What it violates fails the sync, as `fail` does."""
        try:
            if isinstance(message, Grant):
                self._window.give(message.bytes)
            elif isinstance(message, Landed):
                self._volume(message.volume_index).landed(message.frames)
            elif isinstance(message, Retry):
                self._volume(message.volume_index).retry(unpack_regions(message.regions))
            elif isinstance(message, Flushed) and self._flushed is not None and not self._flushed.done():
                self._flushed.set_result(None)
        except (WireDamaged, BlockMismatch) as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """The sync cannot go on: `ship` or `finish` raises `error`, the first one told. On the loop."""
        self._failure = self._failure or error
        self._window.fail(self._failure)
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_exception(self._failure)

    @property
    def has_failed(self) -> bool:
        """True once `fail` was told something: nothing more leaves."""
        return self._failure is not None

    def _volume(self, index: int) -> OutgoingVolume:
        if index not in self._volumes:
            raise WireDamaged(reason=f"it speaks of volume {index}, of which nothing was sent")
        return self._volumes[index]

    def _wanted(self, volume: OutgoingVolume, present: Mapping[int, bytes]) -> Iterator[RegionBits]:
        """What is to be read, region by region; what the receiver has is done."""
        for region, bits in volume.source.regions():
            if region not in present:
                yield region, bits
                continue
            volume.source.landed(region, bits)
            self._tell(bits.bit_count())

    def _tell(self, blocks: int) -> None:
        if self._progress is not None:
            self._progress(blocks)

    async def _run(self, feed: Feed) -> None:
        """Send everything of `feed`, and before it what must be sent again."""
        ready: deque[asyncio.Task[Prepared]] = deque()
        try:
            while await self._has_more(ready, feed):
                # Not `await ready[0]`: a cancelled caller would cancel the task, whose thread goes on regardless.
                await asyncio.wait((ready[0],))
                prepared = ready.popleft().result()
                try:
                    self._fill(ready, feed)
                    await self._dispatch(prepared)
                finally:
                    self._buffers.give(prepared.buffer)
            await self._send_carried()
        finally:
            self._chooser.paused()
            try:
                await joined(ready)
            finally:
                for task in ready:
                    if task.exception() is None:
                        self._buffers.give(task.result().buffer)

    async def _has_more(self, ready: deque[asyncio.Task[Prepared]], feed: Feed) -> bool:
        """Bring the read-ahead up to its depth, after whatever must come first. False: nothing is left to send."""
        if self._failure is not None:
            raise self._failure
        if any(volume.is_void for volume in self._volumes.values()):
            await self._settle()
        self._fill(ready, feed)
        while not ready and not self._buffers.free:
            await self._buffers.wait()
            self._fill(ready, feed)
        return bool(ready)

    def _fill(self, ready: deque[asyncio.Task[Prepared]], feed: Feed) -> None:
        while len(ready) < READ_AHEAD and self._buffers.free:
            is_again = bool(self._again)
            if is_again:
                item: tuple[OutgoingVolume, Batch] | None = self._again.popleft()
            else:
                item = self._rest.popleft() if self._rest else next(feed, None)
            if item is None:
                return
            buffer = self._buffers.take()
            assert buffer is not None, "one was free, and nothing ran in between"
            ready.append(asyncio.create_task(self._prepare(*item, buffer, is_again)))

    async def _prepare(self, volume: OutgoingVolume, batch: Batch, buffer: Buffer, is_again: bool) -> Prepared:
        """Read and examine a batch, pack its blocks if that pays. Gives the buffer back if it fails."""
        try:
            if batch.blocks > MAX_FRAME_BLOCKS:
                return await self._look_over(volume, batch, buffer, is_again)
            filled = buffer.view[: batch.blocks * BLOCK]
            examine = partial(volume.examiner.examine, batch, buffer)
            found = await volume.source.read_runs(batch.runs, filled, examine)
            frame = None
            if found.sent is not None and found.noted is not None:
                frame = Outgoing(volume, found.sent, found.noted, found.regions)
                frame.codec = self._chooser.choose(found.shrinks_to)
                if frame.codec != PLAIN or len(found.payload) > MOST_SEGMENTS:
                    # A second hop: only now is it certain that no block has to be read anew.
                    frame.segments, frame.pieces, seconds = await self._pool.call(
                        self._pack, filled, found, frame.codec
                    )
                    self._note_packed(frame, found, seconds)
                else:
                    runs = ((run.first * BLOCK, run.count * BLOCK) for run in found.payload)
                    frame.segments = [filled[begin : begin + length] for begin, length in runs]
            return Prepared(volume, buffer, found, is_again, frame)
        except BaseException:
            self._buffers.give(buffer)
            raise

    async def _look_over(self, volume: OutgoingVolume, batch: Batch, buffer: Buffer, is_again: bool) -> Prepared:
        """Settle the regions of a stretch that are holes, with a frame that says so; the rest is read as ever."""
        # A region with gaps is read as well: many of them would make the head too long.
        whole = [(region, bits) for region, bits in batch.regions if not bits & (bits + 1)]
        blank = await volume.source.blank(whole)
        found = volume.examiner.blank(blank)
        frame = None if found.sent is None else Outgoing(volume, found.sent, found.sent, found.regions)
        settled = {region for region, _ in blank}
        rest = [(region, bits) for region, bits in batch.regions if region not in settled]
        queue = self._again if is_again else self._rest
        queue.extend((volume, part) for part in batches(rest, MAX_FRAME_BLOCKS))
        return Prepared(volume, buffer, found, is_again, frame)

    def _pack(
        self, filled: memoryview, found: Examined, codec: str
    ) -> tuple[Sequence[bytes | memoryview], tuple[Piece, ...], float]:
        """In the pool: the blocks moved together, and packed unless `codec` is plain; and the seconds of packing."""
        blocks = compact(filled, found.payload)
        if codec == PLAIN:
            return (blocks,), (), 0.0
        began = self._clock.monotonic()
        segments, pieces = pack(blocks, codec)
        return segments, pieces, self._clock.monotonic() - began

    def _note_packed(self, frame: Outgoing, found: Examined, seconds: float) -> None:
        if frame.codec != PLAIN:
            stored = sum(piece[0] for piece in frame.pieces)
            self._chooser.packed(frame.codec, found.shrinks_to, found.data_blocks * BLOCK, stored, seconds)

    async def _dispatch(self, prepared: Prepared) -> None:
        """Settle what is equal, and let the rest leave, or wait for blocks to travel with."""
        found, volume, frame = prepared.found, prepared.volume, prepared.frame
        self._count(prepared)
        for region, bits in found.equal:
            volume.source.equal(region, bits)
        if frame is not None:
            if self._carried is not None and not self._carried.takes(frame):
                await self._send_carried()
            carried, self._carried = self._carried, None
            frame = frame if carried is None else carried.joined(frame)
            if frame.has_blocks:
                await self._send(frame)
            else:
                self._carried = frame
        if not prepared.is_again:
            self._tell(found.blocks)

    def _count(self, prepared: Prepared) -> None:
        found, counts = prepared.found, self.counts
        if prepared.is_again:
            counts.bytes_resent += found.data_blocks * BLOCK
            return
        counts.blocks_changed += found.blocks
        counts.blocks_equal += sum(bits.bit_count() for _, bits in found.equal)
        counts.blocks_zero += found.zero_blocks
        counts.blocks_kept += found.kept_blocks
        resent = min(found.data_blocks, prepared.volume.resent_blocks(found.regions))
        counts.blocks_sent += found.data_blocks - resent
        counts.bytes_resent += resent * BLOCK

    async def _send_carried(self) -> None:
        carried, self._carried = self._carried, None
        if carried is not None:
            await self._send(carried)

    async def _send(self, frame: Outgoing) -> None:
        """One frame: its turn in the window, its head in the redo log, its bytes in the socket."""
        head = frame.sent.to_bytes()
        stored = sum(map(len, frame.segments))
        if self._pace is not None:
            await self._pace(len(head) + stored)
        await self._window.take(BUFFER_BYTES)
        frame.volume.sent(frame.regions)
        self.counts.frames += 1
        self.counts.bytes_stored += stored
        noting: list[asyncio.Task[None]] = []
        if frame.volume.redo is not None:
            noted = head if frame.noted is frame.sent else frame.noted.to_bytes()
            noting.append(asyncio.create_task(self._pool.call(frame.volume.redo.append, noted)))
        try:
            data = Data(self._sync, frame.volume.index, frame.codec, len(head), frame.pieces)  # type: ignore[arg-type]
            began = self._clock.monotonic()
            await self._link.send(data, (head, *frame.segments))
            now = self._clock.monotonic()
            self._chooser.sent(stored, now - began, now)
        finally:
            await joined(noting)
        for task in noting:
            task.result()

    async def _settle(self) -> None:
        """FLUSH, FLUSHED: all that was sent is durable, or is queued to be sent again."""
        if self._failure is not None:
            raise self._failure
        self._flushed = asyncio.get_running_loop().create_future()
        try:
            await self._link.send(Flush(self._sync))
            await self._flushed
        finally:
            self._flushed = None
        for volume in self._volumes.values():
            if volume.is_void:
                self._again.extend((volume, batch) for batch in batches(volume.begin_again(), volume.batch_blocks))
            elif volume.unlanded():
                raise WireDamaged(reason="frames were flushed, but are not durable")
