"""What breaks a sync on its way, and what must be left behind: no buffer taken, no thread at work, no false claim."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transfer_ends import SEED, SYNC, Ends, ImageSource, connected, mixed_image, over, turns, until

from blockstore.disk import Disk, DiskFile
from blockstore.errors import FrameDamaged, LayerSpace
from blockstore.layer import Slot
from blockstore.pack import OpenPack
from blockstore.units import BLOCK, REGION
from engine.errors import WireDamaged
from engine.pool import DiskPool
from engine.transfer.pipeline import Buffers
from engine.transfer.receiver import ReceiveSession
from engine.wire.messages import Data, Grant, Landed


class Gate:
    """Holds the writers of a pack until it is opened."""

    def __init__(self, pack: OpenPack) -> None:
        self.open = threading.Event()
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()
        store = pack.store

        def gated(slot: Slot) -> None:
            with self._lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self.open.wait()
            store(slot)
            with self._lock:
                self.inside -= 1

        pack.store = gated  # type: ignore[method-assign]


def ship(ends: Ends, image: bytes | bytearray, source: ImageSource | None = None) -> asyncio.Task[None]:
    source = source or ImageSource(ends.pool, image)
    return asyncio.create_task(ends.shipper.ship(0, source, image_bytes=len(image), hash_seed=SEED))


async def test_the_sender_never_sends_more_than_the_window_and_two_writers_work(tmp_path: Path) -> None:
    image = bytes(range(1, 256)) * (16 * REGION // 255)
    async with connected(tmp_path) as ends:
        pack = ends.pack(len(image))
        gate = Gate(pack)
        ends.begin([pack])
        task = ship(ends, image)
        await until(lambda: gate.inside == 2 and len(ends.receiver_sink.frames) == 8)
        await turns(ends.pool)
        assert not task.done()
        assert ends.shipper.counts.frames == len(ends.receiver_sink.frames) == 8
        gate.open.set()
        await task
        await ends.shipper.finish()
        assert gate.most == 2


async def test_a_lost_link_ends_the_sender_that_waits_for_the_window(tmp_path: Path) -> None:
    image = bytes(range(1, 256)) * (16 * REGION // 255)
    async with connected(tmp_path) as ends:
        pack, own = ends.pack(len(image)), Buffers(4)
        gate = Gate(pack)
        ends.begin([pack], buffers=8)
        ends.shipper._buffers = own
        task = ship(ends, image)
        await until(lambda: len(ends.receiver_sink.frames) == 8)
        ends.sender.abort()
        with pytest.raises(ConnectionError):
            await task
        assert own.free == 4
        gate.open.set()


async def test_joining_waits_for_the_writers_that_run_and_starts_no_other(tmp_path: Path) -> None:
    image = bytes(range(1, 256)) * (16 * REGION // 255)
    async with connected(tmp_path) as ends:
        pack = ends.pack(len(image))
        gate = Gate(pack)
        ends.begin([pack])
        task = ship(ends, image)
        await until(lambda: gate.inside == 2 and len(ends.receiver_sink.frames) == 8)
        joining = asyncio.create_task(ends.session.join())
        await turns(ends.pool)
        assert not joining.done()
        gate.open.set()
        await joining
        assert gate.inside == 0
        assert pack.complete_frames == 0
        pack.begin_session(bytes(16))
        assert pack.presence() == {}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancelled_sender_gives_its_buffers_back_once_no_thread_reads(tmp_path: Path) -> None:
    image = mixed_image(40 * REGION, 30)
    async with connected(tmp_path) as ends:
        own = Buffers(4)
        ends.begin([ends.pack(len(image))])
        ends.shipper._buffers = own
        source = ImageSource(ends.pool, image)
        inside, go_on = threading.Event(), threading.Event()
        known = source.known_hashes

        def slow(runs: Sequence[Any]) -> Any:
            inside.set()
            go_on.wait()
            return known(runs)

        source.known_hashes = slow  # type: ignore[method-assign]
        task = ship(ends, image, source)
        await until(inside.is_set)
        task.cancel()
        await turns(ends.pool)
        assert not task.done()
        assert own.free < 4
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert own.free == 4


async def test_a_failed_read_fails_the_sync_and_gives_the_buffers_back(tmp_path: Path) -> None:
    image = mixed_image(20 * REGION, 31)
    async with connected(tmp_path) as ends:
        own = Buffers(4)
        ends.begin([ends.pack(len(image))])
        ends.shipper._buffers = own
        source = ImageSource(ends.pool, image)

        def bad_disk(buffer: memoryview) -> bool:
            if len(source.reads) > 5:
                raise OSError(errno.EIO, "no such luck")
            return False

        source.after_read = bad_disk
        with pytest.raises(OSError, match="no such luck"):
            await ship(ends, image, source)
        assert own.free == 4


class FullDisk(Disk):
    """Refuses what is written behind a number of bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def open(self, path: str, **how: bool) -> DiskFile:  # type: ignore[override]
        disk, file = self, super().open(path, **how)
        write = file.write

        def limited(data: Any, offset: int, *, durable: bool = False) -> None:
            if offset + len(data) > disk.room:
                raise OSError(errno.ENOSPC, "full")
            write(data, offset, durable=durable)

        file.write = limited  # type: ignore[method-assign]
        return file


async def test_a_full_disk_closes_the_window_and_the_sync_goes_on_from_what_landed(tmp_path: Path) -> None:
    image = bytes(range(1, 256)) * (24 * REGION // 255)
    async with connected(tmp_path) as ends:
        disk = FullDisk(10 * REGION)
        ends.disk = disk
        pack = ends.pack(len(image))
        told: list[Exception] = []
        ends.begin([pack], failed=told.append)
        task = ship(ends, image)
        await until(lambda: told)
        assert isinstance(told[0], LayerSpace)
        await turns(ends.pool)
        granted = sum(isinstance(message, Grant) for message in ends.sender_sink.heard)
        assert granted <= 10
        with pytest.raises(LayerSpace):
            await ends.session.flush()
        ends.shipper.fail(told[0])
        with pytest.raises(LayerSpace):
            await task
        await until(lambda: ends.session._buffers.free == 8)
        await ends.session.join()
        disk.room = 1 << 40
        ends.begin([pack])
        assert len(pack.presence()) > 5
        await ends.shipper.ship(
            0, ImageSource(ends.pool, image), image_bytes=len(image), hash_seed=SEED, present=pack.presence()
        )
        await ends.shipper.finish()
        (receipt,) = await ends.session.seal()
        assert over(ends.sealed(receipt, len(image)), bytes(len(image)))[: len(image)] == image


async def test_frames_that_were_never_sent_cannot_land(tmp_path: Path) -> None:
    async with connected(tmp_path) as ends:
        ends.begin([ends.pack(REGION)])
        source = ImageSource(ends.pool, b"\1" * REGION)
        await ship(ends, source.image, source)
        ends.shipper.message(Landed(SYNC, 0, 2))
        with pytest.raises(WireDamaged):
            await ends.shipper.finish()
        assert source.has_landed == {}


class Nowhere:
    """A link of a receiver whose messages nobody reads."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    async def send(self, message: Any) -> None:
        self.said.append(message)


async def test_a_peer_that_ignores_the_window_is_refused(tmp_path: Path) -> None:
    ends = Ends(tmp_path, DiskPool())
    pack = ends.pack(16 * REGION)
    pack.begin_session(bytes(16))
    session = ReceiveSession(sync=bytes(16), layers=[pack], pool=ends.pool, send=Nowhere().send, buffers=2)
    session._buffers.take()
    session._buffers.take()
    with pytest.raises(WireDamaged, match="window"):
        session.place(Data(bytes(16), 0, "plain", 128), 128)
    await session.join()
    await ends.pool.close()


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (Data(bytes(16), 1, "plain", 128), 128),
        (Data(bytes(16), 0, "plain", 4096), 128),
        (Data(bytes(16), 0, "plain", 128), 128 + (5 << 20)),
        (Data(bytes(16), 0, "lz4", 128, ((4096, 2048),)), 128 + 4096),
    ],
    ids=["no such volume", "shorter than its head", "longer than a buffer", "longer packed than plain"],
)
async def test_a_payload_that_cannot_be_is_refused_before_memory_is_named(
    tmp_path: Path, data: Data, length: int
) -> None:
    ends = Ends(tmp_path, DiskPool())
    pack = ends.pack(16 * REGION)
    pack.begin_session(bytes(16))
    session = ReceiveSession(sync=bytes(16), layers=[pack], pool=ends.pool, send=Nowhere().send)
    with pytest.raises(WireDamaged):
        session.place(data, length)
    assert session._buffers.free == 8
    await session.join()
    await ends.pool.close()


async def test_a_head_that_is_no_head_voids_the_session(tmp_path: Path) -> None:
    ends = Ends(tmp_path, DiskPool())
    pack = ends.pack(16 * REGION)
    pack.begin_session(bytes(16))
    link, told = Nowhere(), list[Exception]()
    session = ReceiveSession(sync=bytes(16), layers=[pack], pool=ends.pool, send=link.send, failed=told.append)
    data = Data(bytes(16), 0, "plain", 128)
    session.place(data, 128 + BLOCK)
    with pytest.raises(FrameDamaged):
        session.data(data)
    assert [type(error) for error in told] == [FrameDamaged]
    with pytest.raises(FrameDamaged):
        await session.flush()
    assert session._buffers.free == 8
    await session.join()
    assert link.said == []
    await ends.pool.close()


async def test_a_frame_whose_memory_another_session_named_is_dropped(tmp_path: Path) -> None:
    ends = Ends(tmp_path, DiskPool())
    pack = ends.pack(16 * REGION)
    pack.begin_session(SYNC)
    link = Nowhere()
    session = ReceiveSession(sync=SYNC, layers=[pack], pool=ends.pool, send=link.send)
    session.data(Data(SYNC, 0, "plain", 128))
    await session.flush()
    assert pack.received_frames == 0
    assert link.said == []
    assert session.failure is None
    await session.join()
    await ends.pool.close()
