"""Two ends of a sync in one process: real packs on disk, a real connection on loopback, images in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from blockstore.blockset import BlockSet, RegionBits
from blockstore.disk import Disk
from blockstore.frame import hash_blocks
from blockstore.layer import SLOT_ABSENT, SLOT_ZERO, IncomingLayer, SealReceipt
from blockstore.pack import OpenPack
from blockstore.pack_read import SealedPack
from blockstore.redo import RedoPack
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION, Extent, blocks_in, regions_in, run_bits
from engine.clock import SystemClock
from engine.link.transport import Transport
from engine.pool import DiskPool
from engine.transfer.receiver import ReceiveSession
from engine.transfer.sender import Shipper
from engine.transfer.source import U64
from engine.wire.messages import Data, Flush, Flushed, Message

T = TypeVar("T")

SEED = 0x1EE3A2D
VOLUME = bytes([1]) * 16
LAYER = bytes([2]) * 16
SYNC = bytes([3]) * 16
NO_POINT = bytes(16)


def mixed_image(size: int, seed: int) -> bytearray:
    """Random, log-like and zero stretches of a few blocks to a few regions each."""
    rng = np.random.default_rng(seed)
    image = bytearray(size)
    at = 0
    while at < size:
        length = min(size - at, int(rng.integers(1, 1500)) * BLOCK)
        kind = int(rng.integers(3))
        if kind == 0:
            image[at : at + length] = rng.bytes(length)
        elif kind == 1:
            line = f"{seed} {at} the quick brown fox logs a line of no great surprise\n".encode()
            image[at : at + length] = (line * (length // len(line) + 1))[:length]
        at += length
    return image


class ImageSource:
    """A ShipSource over bytes. `before_examine` runs in the thread, `after_read` on the loop: blocks to read anew."""

    def __init__(
        self,
        pool: DiskPool,
        image: bytes | bytearray,
        blocks: BlockSet | None = None,
        parent: bytes | bytearray | None = None,
    ) -> None:
        self._pool = pool
        self.knows_holes = False
        self.looks: list[int] = []
        self.image = image
        self.blocks = blocks if blocks is not None else everything(len(image))
        self.parent = parent
        self.was_equal: dict[int, int] = {}
        self.has_landed: dict[int, int] = {}
        self.reads: list[int] = []
        self.after_read: Callable[[memoryview], bool] = lambda _: False

    def regions(self) -> Iterator[RegionBits]:
        return self.blocks.regions()

    async def read_runs(self, runs: Sequence[Extent], buffer: memoryview, examine: Callable[[], T]) -> T:
        def work() -> T:
            at = 0
            for first, count in runs:
                part = padded(self.image[first * BLOCK : (first + count) * BLOCK])
                buffer[at : at + count * BLOCK] = part
                at += count * BLOCK
            assert at == len(buffer)
            return examine()

        self.reads.append(sum(run.count for run in runs))
        found = await self._pool.call(work)
        if self.after_read(buffer):
            found = await self._pool.call(examine)
        return found

    async def blank(self, regions: Sequence[RegionBits]) -> list[RegionBits]:
        """Every region that is zeros when it is looked at."""

        def work() -> list[RegionBits]:
            return [
                (region, bits)
                for region, bits in regions
                if not any(self.image[region * REGION : (region + 1) * REGION])
            ]

        self.looks.append(len(regions))
        return await self._pool.call(work)

    def known_hashes(self, runs: Sequence[Extent]) -> U64 | None:
        if self.parent is None:
            return None
        parts = (padded(self.parent[first * BLOCK : (first + count) * BLOCK]) for first, count in runs)
        return np.concatenate([hash_blocks(memoryview(part), SEED) for part in parts])

    def equal(self, region: int, bits: int) -> None:
        self.was_equal[region] = self.was_equal.get(region, 0) | bits

    def landed(self, region: int, bits: int) -> None:
        self.has_landed[region] = self.has_landed.get(region, 0) | bits


def padded(part: bytes | bytearray) -> bytes:
    return bytes(part) + bytes(-len(part) % BLOCK)


def everything(size: int) -> BlockSet:
    blocks = blocks_in(size)
    return BlockSet(
        {
            region: run_bits(0, min(BLOCKS_PER_REGION, blocks - region * BLOCKS_PER_REGION))
            for region in range(regions_in(size))
        }
    )


class SenderSink:
    """What the sender's connection hands on."""

    def __init__(self) -> None:
        self.shipper: Shipper | None = None
        self.heard: list[Message] = []

    def place(self, data: Data, length: int) -> Sequence[memoryview]:
        raise AssertionError("a sender receives no blocks")

    def received(self, message: Message) -> None:
        self.heard.append(message)
        if self.shipper is not None:
            self.shipper.message(message)

    def ended(self, error: Exception | None) -> None:
        if self.shipper is not None:
            self.shipper.fail(error or ConnectionError("the link ended"))


class ReceiverSink:
    """What the receiver's connection hands on: as `operations` does, FLUSHED behind the session's flush."""

    def __init__(self) -> None:
        self.session: ReceiveSession | None = None
        self.transport: Transport | None = None
        self.frames: list[Data] = []
        self.placed: Callable[[Data, Sequence[memoryview]], None] = lambda data, views: None
        self.errors: list[BaseException] = []
        self._views: Sequence[memoryview] = ()
        self._tasks: set[asyncio.Task[None]] = set()

    def place(self, data: Data, length: int) -> Sequence[memoryview]:
        assert self.session is not None
        self._views = self.session.place(data, length)
        return self._views

    def received(self, message: Message) -> None:
        assert self.session is not None
        if isinstance(message, Data):
            self.frames.append(message)
            self.placed(message, self._views)
            self.session.data(message)
        elif isinstance(message, Flush):
            task = asyncio.get_running_loop().create_task(self._flush(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _flush(self, message: Flush) -> None:
        assert self.session is not None
        assert self.transport is not None
        try:
            await self.session.flush()
            await self.transport.send(Flushed(message.sync))
        except Exception as error:
            self.errors.append(error)

    def ended(self, error: Exception | None) -> None:
        """The test joins the session."""


class Ends:
    """A connection with a shipper at one end and a session at the other."""

    def __init__(self, folder: Path, pool: DiskPool) -> None:
        self.folder = folder
        self.pool = pool
        self.disk: Disk = Disk()
        self.sender_sink, self.receiver_sink = SenderSink(), ReceiverSink()
        self.sender: Transport
        self.receiver: Transport
        self.layers: list[IncomingLayer] = []
        self.session: ReceiveSession
        self.shipper: Shipper
        self.server: asyncio.Server

    async def connect(self) -> None:
        accepted: asyncio.Future[Transport] = asyncio.get_running_loop().create_future()

        def accept() -> Transport:
            transport = Transport(self.receiver_sink)
            accepted.set_result(transport)
            return transport

        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(accept, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        _, self.sender = await loop.create_connection(lambda: Transport(self.sender_sink), "127.0.0.1", port)
        self.receiver = await accepted
        self.receiver_sink.transport = self.receiver
        self.sender.greeted()
        self.receiver.greeted()

    def pack(self, image_bytes: int, name: str = "layer") -> OpenPack:
        return OpenPack.create(
            self.disk,
            str(self.folder / name),
            volume_id=VOLUME,
            layer_id=LAYER,
            builds_on=NO_POINT,
            image_bytes=image_bytes,
            hash_seed=SEED,
        )

    def redo(self, image_bytes: int, name: str = "redo") -> RedoPack:
        return RedoPack.create(
            self.disk,
            str(self.folder / name),
            volume_id=VOLUME,
            sync_id=SYNC,
            builds_on=NO_POINT,
            image_bytes=image_bytes,
            hash_seed=SEED,
        )

    def begin(self, layers: Sequence[IncomingLayer], sync: bytes = SYNC, **how: Any) -> Shipper:
        """Sessions of the layers, a receive session and a shipper for `sync`."""
        self.layers = list(layers)
        for layer in layers:
            layer.begin_session(sync)
        failed = how.pop("failed", None)
        buffers = how.pop("buffers", 8)
        self.session = ReceiveSession(
            sync=sync, layers=layers, pool=self.pool, send=self.receiver.send, buffers=buffers, failed=failed
        )
        self.receiver_sink.session = self.session
        link = how.pop("link", self.sender)
        self.shipper = Shipper(link, self.pool, SystemClock(), sync=sync, window_bytes=self.session.window_bytes, **how)
        self.sender_sink.shipper = self.shipper
        return self.shipper

    async def close(self) -> None:
        self.sender.abort()
        self.receiver.abort()
        await self.sender.gone.wait()
        await self.receiver.gone.wait()
        if hasattr(self, "session"):
            await self.session.join()
        self.server.close()

    def sealed(self, receipt: SealReceipt | None, image_bytes: int, name: str = "layer") -> SealedPack:
        return SealedPack.open(
            self.disk,
            str(self.folder / name),
            volume_id=VOLUME,
            layer_id=LAYER,
            hash_seed=SEED,
            image_bytes=image_bytes,
            receipt=receipt,
        )


def over(pack: SealedPack, below: bytes | bytearray) -> bytes:
    """The image that the pack makes of `below`, padded to whole blocks."""
    image = bytearray(padded(below))
    for region in range(regions_in(len(below))):
        if not pack.has_region(region):
            continue
        for at, slot in enumerate(pack.slots(region).tolist()):
            block = region * BLOCKS_PER_REGION + at
            if slot != SLOT_ABSENT:
                content = bytes(BLOCK) if slot == SLOT_ZERO else pack.file.read(BLOCK, slot * BLOCK)
                image[block * BLOCK : (block + 1) * BLOCK] = content
    return bytes(image)


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[Ends]:
    pool = DiskPool()
    ends = Ends(folder, pool)
    await ends.connect()
    try:
        yield ends
    finally:
        await ends.close()
        await pool.close()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition` holds; the test's own timeout ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.001)


async def turns(pool: DiskPool) -> None:
    """Let everything that can happen by itself happen: the loop and the pool go round a few times."""
    for _ in range(30):
        await pool.call(int)


def bits_of(blocks: Mapping[int, int]) -> BlockSet:
    return BlockSet(dict(blocks))
