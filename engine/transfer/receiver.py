"""ReceiveSession: frames from a link -> incoming layers, verified, written and durable.

One session is one attempt at one sync over one link. Payloads land in page-aligned buffers; a window of as many
bytes keeps the sender in step, and each buffer is granted again once its frame is written. Two writers
at a time hash, compare and write in the pool; what is complete is made durable every 64 MiB or every second
and then told. Blocks that do not match void their volume until FLUSH: what follows of it is dropped, and
sent again behind FLUSHED. Any other failure voids the session; nothing is granted any more.

Order of calls: the layers' `begin_session`, then a ReceiveSession, then `place` and `data` by turns, `flush` and
`seal` while no DATA is under way, and always `join` at the end. All on the loop.
This module must never let a buffer go while a thread may still write from it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from blockstore.errors import BlockMismatch
from blockstore.frame import BUFFER_BYTES
from blockstore.layer import IncomingLayer, SealReceipt, Slot
from blockstore.steps import Step
from blockstore.units import BLOCKS_PER_REGION, align_up
from engine.decide.compression import PLAIN
from engine.errors import WireDamaged
from engine.pool import DiskPool
from engine.transfer.codecs import unpack
from engine.transfer.pipeline import Buffer, Buffers
from engine.transfer.saying import Saying
from engine.wire.messages import Data, Message
from engine.wire.presence import pack_regions

BUFFERS = 8
WRITERS = 2
CHECKPOINT_BYTES = 64 << 20
CHECKPOINT_S = 1.0


@dataclass(slots=True)
class _Arrival:
    """A frame from the moment its memory was named until its buffer is free again."""

    data: Data
    buffer: Buffer
    packed: memoryview | None
    plain_bytes: int
    slot: Slot | None = None


class ReceiveSession:
    """The receiver's side of one sync over one link, for all volumes of the group."""

    def __init__(
        self,
        *,
        sync: bytes,
        layers: Sequence[IncomingLayer],
        pool: DiskPool,
        send: Callable[[Message], Awaitable[None]],
        buffers: int = BUFFERS,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """`layers` in the order of BEGIN. `send`: of the link. `failed` is told once, on the loop, when the session
        cannot go on: LayerSpace, LayerFailed, BlockMismatch (for the second time), OSError, StoreFlushFailed.
        """
        self.failure: Exception | None = None
        """Why the session is void, if it is."""
        self._sync = sync
        self._layers = list(layers)
        self._pool = pool
        self._buffers = Buffers(buffers)
        self._failed = failed
        self._saying = Saying(sync, send)
        self._expected: _Arrival | None = None
        self._waiting: deque[_Arrival] = deque()
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._void: set[int] = set()
        self._retried: set[tuple[int, int]] = set()
        self._is_over = False
        self._unsynced = 0
        self._timer: asyncio.TimerHandle | None = None
        self._checkpoints: asyncio.Task[None] | None = None

    @property
    def window_bytes(self) -> int:
        """What RESUME grants: one `BUFFER_BYTES` a buffer."""
        return self._buffers.count * BUFFER_BYTES

    # --- what the link calls

    def place(self, data: Data, length: int) -> Sequence[memoryview]:
        """Memory for the payload of `data`, `length` bytes. Raises WireDamaged: beyond the window, no such volume."""
        assert self._expected is None, "one payload at a time"
        if data.volume_index >= len(self._layers):
            raise WireDamaged(reason=f"there is no volume {data.volume_index} in this sync")
        stored = length - data.head_bytes
        plain = stored if data.codec == PLAIN else sum(plain for _, plain in data.pieces)
        blocks_at = align_up(data.head_bytes)
        if stored < 0 or blocks_at + plain > BUFFER_BYTES or stored > plain:
            raise WireDamaged(reason="a frame does not fit a buffer")
        buffer = self._buffers.take()
        if buffer is None:
            raise WireDamaged(reason="more arrived than the window allows")
        packed = None if data.codec == PLAIN else memoryview(bytearray(stored))
        self._expected = _Arrival(data, buffer, packed, plain)
        blocks = buffer.view[blocks_at : blocks_at + stored] if packed is None else packed
        return buffer.view[: data.head_bytes], blocks

    def data(self, data: Data) -> None:
        """The payload of `data` is where `place` said. Raises FrameDamaged, WireDamaged: the link must end."""
        arrival, self._expected = self._expected, None
        if arrival is None:
            return  # its memory was named by a session before this one
        assert arrival.data is data, "payloads come in the order in which their memory was named"
        if self._is_over or self.failure is not None or data.volume_index in self._void:
            self._free(arrival)
            return
        try:
            arrival.slot = self._layers[data.volume_index].admit(arrival.buffer.view, data.head_bytes)
            if arrival.slot.head.payload_bytes != arrival.plain_bytes:
                raise WireDamaged(reason="a frame has other blocks than its header says")
        except Exception as error:
            self._free(arrival)
            self._fail(error)
            raise
        self._waiting.append(arrival)
        self._start_writers()

    # --- what the operation calls

    async def flush(self) -> None:
        """Return when everything that was sent is durable and the sender was told, or told to send it again.

        Call it on FLUSH and answer FLUSHED when it returns. Raises what voided the session, ConnectionError.
        """
        await self._idle.wait()
        await self._end_checkpoints()
        self._raise_failure()
        await self._checkpoint()  # first, so that what is complete is told before its volume counts anew
        for index in sorted(self._void):
            await self._pool.call(self._layers[index].begin_session, self._sync)
            self._saying.restart(index)
        self._void.clear()
        await self._saying.said()

    async def seal(self) -> list[SealReceipt]:
        """Make all layers whole and durable, in order. Raises what voided the session, OSError, StoreFlushFailed."""
        await self._idle.wait()
        await self._end_checkpoints()
        self._raise_failure()
        assert not self._void, "FLUSH came before SEAL"
        receipts: list[SealReceipt] = []
        for layer in self._layers:
            step = layer.seal()
            await self._pool.over(step)
            assert step.result is not None
            receipts.append(step.result)
        return receipts

    async def join(self) -> None:
        """Void the session and return when no thread writes for it any more. May be called at any time, and again.

        A payload under way keeps its buffer: the link may still write there, and call `data`, which drops it.
        """
        self._is_over = True
        while self._waiting:
            self._free(self._waiting.popleft())
        self._note_idle()
        self._saying.end()
        cancelled: asyncio.CancelledError | None = None
        while self._running or self._checkpoints is not None:
            try:
                await self._idle.wait()
                await self._end_checkpoints()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    # --- writers

    def _start_writers(self) -> None:
        while self._running < WRITERS and self._waiting and self.failure is None:
            arrival = self._waiting.popleft()
            if arrival.data.volume_index in self._void:
                self._free(arrival)
                continue
            self._running += 1
            self._idle.clear()
            step = Step(partial(self._write, arrival), final=True)
            step.then(partial(self._written, arrival, step))
            try:
                self._pool.begin(step)
            except RuntimeError as error:  # the pool is being closed: the daemon stops
                step.fail(error)
        self._note_idle()

    def _write(self, arrival: _Arrival) -> None:
        """In the pool: unpack, hash, compare, write."""
        data, view = arrival.data, arrival.buffer.view
        assert arrival.slot is not None
        if arrival.packed is not None:
            begin = align_up(data.head_bytes)
            unpack(arrival.packed, data.pieces, data.codec, view[begin : begin + arrival.plain_bytes])
        self._layers[data.volume_index].store(arrival.slot)

    def _written(self, arrival: _Arrival, step: Step[None]) -> None:
        """On the loop: a writer came back. Its buffer is free whatever happened."""
        self._running -= 1
        index = arrival.data.volume_index
        if isinstance(step.error, BlockMismatch):
            self._mismatch(index, step.error)
        elif step.error is not None:
            self._fail(step.error)
        elif not self._is_over and self.failure is None and index not in self._void and arrival.slot is not None:
            self._land(self._layers[index], arrival.slot)
        self._free(arrival)
        if not self._is_over:
            self._start_writers()
        self._note_idle()

    def _land(self, layer: IncomingLayer, slot: Slot) -> None:
        layer.landed(slot)
        self._unsynced += slot.frame_bytes
        loop = asyncio.get_running_loop()
        if self._checkpoints is None:
            if self._unsynced >= CHECKPOINT_BYTES:
                self._begin_checkpoints()
            elif self._timer is None:
                self._timer = loop.call_later(CHECKPOINT_S, self._begin_checkpoints)

    def _mismatch(self, index: int, error: BlockMismatch) -> None:
        """What follows of this volume is dropped until FLUSH; a region that fails twice fails the sync."""
        region = error.first // BLOCKS_PER_REGION
        if (index, region) in self._retried:
            self._fail(error)
            return
        self._retried.add((index, region))
        self._void.add(index)
        self._saying.retry(index, pack_regions([region]))

    def _free(self, arrival: _Arrival) -> None:
        """The buffer goes round again, and the sender may fill it."""
        self._buffers.give(arrival.buffer)
        if self.failure is None and not self._is_over:
            self._saying.grant(BUFFER_BYTES)

    def _note_idle(self) -> None:
        if not self._running and (not self._waiting or self.failure is not None):
            self._idle.set()

    def _fail(self, error: Exception) -> None:
        """Void the session, for the first reason told: the window stays closed, frames that wait are dropped."""
        if self.failure is not None or self._is_over:
            return
        self.failure = error
        while self._waiting:
            self._free(self._waiting.popleft())
        self._note_idle()
        if self._failed is not None:
            self._failed(error)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._is_over:
            raise ConnectionError("the session that received is over")

    # --- checkpoints

    def _begin_checkpoints(self) -> None:
        if self._checkpoints is None and not self._is_over and self.failure is None:
            self._checkpoints = asyncio.get_running_loop().create_task(self._run_checkpoints())

    async def _run_checkpoints(self) -> None:
        """One after the other, for as long as 64 MiB come in meanwhile."""
        try:
            await self._checkpoint()
            while self._unsynced >= CHECKPOINT_BYTES and self.failure is None and not self._is_over:
                await self._checkpoint()
        except Exception as error:
            self._fail(error)
        finally:
            self._checkpoints = None
            if self._unsynced and not self._is_over:
                self._timer = asyncio.get_running_loop().call_later(CHECKPOINT_S, self._begin_checkpoints)

    async def _checkpoint(self) -> None:
        """Make durable what is complete now, in every layer, and tell the sender."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unsynced = 0
        for index, layer in enumerate(self._layers):
            step = layer.checkpoint()
            if step is not None:
                await self._pool.over(step)
            if not self._is_over:
                self._saying.landed(index, layer.durable_frames)

    async def _end_checkpoints(self) -> None:
        """Return when no checkpoint runs and none is due by itself."""
        while self._checkpoints is not None:
            await asyncio.wait((self._checkpoints,))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
