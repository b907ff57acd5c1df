"""The sender and the receiver together, over a real connection, into real packs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from transfer_ends import (
    SEED,
    SYNC,
    Ends,
    ImageSource,
    SenderSink,
    bits_of,
    connected,
    everything,
    mixed_image,
    over,
    padded,
    until,
)

from blockstore.blockset import BlockSet
from blockstore.errors import BlockMismatch
from blockstore.frame import BUFFER_BYTES
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION
from engine.decide.compression import Chooser
from engine.wire.messages import Data, Grant, Landed, Retry

RANDOM_REGIONS = 6


async def ship_all(ends: Ends, source: ImageSource, **how: object) -> bytes:
    """Ship one volume into one pack, seal both sides, return what the pack makes of an empty image."""
    size = len(source.image)
    redo = ends.redo(size)
    shipper = ends.begin([ends.pack(size)], **how)
    await shipper.ship(0, source, image_bytes=size, hash_seed=SEED, redo=redo)
    await shipper.finish()
    receipts = await ends.session.seal()
    noted = redo.seal()
    assert (noted.blocks, noted.digest) == (receipts[0].blocks, receipts[0].digest)
    return over(ends.sealed(receipts[0], size), bytes(size))


@pytest.mark.parametrize("size", [BLOCK, REGION - 100, 5 * REGION, 37 * 1000 * 1000 + 512])
async def test_an_image_of_any_size_arrives_byte_for_byte(tmp_path: Path, size: int) -> None:
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, mixed_image(size, size))
        assert await ship_all(ends, source) == padded(source.image)
        assert bits_of(source.has_landed) == source.blocks
        assert ends.shipper.counts.blocks_changed == len(source.blocks)


@pytest.mark.parametrize("codecs", [("lz4",), ("zstd",), ("lz4", "zstd")])
async def test_a_packed_image_arrives_byte_for_byte_and_shorter(tmp_path: Path, codecs: tuple[str, ...]) -> None:
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, mixed_image(30 * REGION + 4000, 5))
        assert await ship_all(ends, source, chooser=Chooser(codecs)) == padded(source.image)
        assert {frame.codec for frame in ends.receiver_sink.frames} >= {codecs[-1]}
        assert ends.shipper.counts.bytes_stored < ends.shipper.counts.bytes_sent


async def test_scattered_blocks_of_many_regions_share_frames(tmp_path: Path) -> None:
    image = bytearray(75 * REGION)
    blocks = [region * BLOCKS_PER_REGION + 7 * at + region % 7 for region in range(75) for at in range(40)]
    for number in blocks:
        image[number * BLOCK : number * BLOCK + 8] = (number + 1).to_bytes(8, "little")
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, image, BlockSet.of_extents(*((number, 1) for number in blocks)))
        assert await ship_all(ends, source) == image
        assert ends.shipper.counts.frames == 3
        assert source.reads == [1000, 1000, 1000]


async def test_blocks_with_the_hash_of_the_parent_point_are_told_and_not_sent(tmp_path: Path) -> None:
    parent = mixed_image(4 * REGION, 1)
    image = bytearray(parent)
    changed = BlockSet.of_extents((3, 2), (BLOCKS_PER_REGION + 8, 1), (3 * BLOCKS_PER_REGION, 40))
    for run in changed.runs():
        image[run.first * BLOCK : (run.first + run.count) * BLOCK] = b"\x5a" * (run.count * BLOCK)
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, image, parent=parent)
        size = len(image)
        redo, shipper = ends.redo(size), ends.begin([ends.pack(size)])
        await shipper.ship(0, source, image_bytes=size, hash_seed=SEED, redo=redo)
        await shipper.finish()
        (receipt,) = await ends.session.seal()
        assert over(ends.sealed(receipt, size), parent) == bytes(image)
        assert receipt.digest == redo.seal().digest
        assert bits_of(source.has_landed) == changed
        assert bits_of(source.was_equal) == source.blocks - changed
        assert shipper.counts.blocks_sent == receipt.blocks == len(changed)


async def test_a_long_run_of_zeros_travels_as_one_frame_without_blocks(tmp_path: Path) -> None:
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, bytearray(60 * REGION))
        assert await ship_all(ends, source) == bytes(60 * REGION)
        assert ends.shipper.counts.frames == 1
        assert ends.shipper.counts.bytes_stored == 0
        assert ends.shipper.counts.blocks_zero == 60 * BLOCKS_PER_REGION
        assert bits_of(source.has_landed) == source.blocks


async def test_a_block_that_had_to_be_read_anew_is_sent_as_it_was_read_last(tmp_path: Path) -> None:
    old = mixed_image(3 * REGION, 8)
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, bytes(old))

        def put_back(buffer: memoryview) -> bool:
            buffer[5 * BLOCK : 6 * BLOCK] = b"\x11" * BLOCK
            return True

        source.after_read = put_back
        arrived = await ship_all(ends, source)
        assert all(arrived[at * REGION + 5 * BLOCK :][:BLOCK] == b"\x11" * BLOCK for at in range(3))
        assert arrived[:BLOCK] == old[:BLOCK]


async def test_regions_that_the_receiver_holds_are_confirmed_and_not_sent(tmp_path: Path) -> None:
    image = mixed_image(12 * REGION, 3)
    other = bytes([9]) * 16
    async with connected(tmp_path) as ends:
        pack = ends.pack(len(image))
        shipper = ends.begin([pack], other)
        first = everything(len(image)) - BlockSet.of_extents((11 * BLOCKS_PER_REGION, BLOCKS_PER_REGION))
        await shipper.ship(0, ImageSource(ends.pool, image, first), image_bytes=len(image), hash_seed=SEED)
        await shipper.finish()
        await ends.session.join()
        image[2 * REGION : 2 * REGION + BLOCK] = b"\x77" * BLOCK
        redo = ends.redo(len(image))
        shipper = ends.begin([pack], SYNC)
        source = ImageSource(ends.pool, image)
        await shipper.ship(0, source, image_bytes=len(image), hash_seed=SEED, redo=redo, reusable=pack.reusable())
        await shipper.finish()
        (receipt,) = await ends.session.seal()
        assert receipt.digest == redo.seal().digest
        assert over(ends.sealed(receipt, len(image)), bytes(len(image))) == image
        assert shipper.counts.blocks_kept == 10 * BLOCKS_PER_REGION
        assert shipper.counts.blocks_sent <= 2 * BLOCKS_PER_REGION
        assert bits_of(source.has_landed) == source.blocks


async def test_after_a_break_nothing_that_landed_is_sent_again(tmp_path: Path) -> None:
    image = mixed_image(60 * REGION, 4)
    redo_name = "redo"
    async with connected(tmp_path) as ends:
        pack, redo, source = ends.pack(len(image)), ends.redo(len(image), redo_name), ImageSource(ends.pool, image)
        first = ends.begin([pack])
        volumes = {"image_bytes": len(image), "hash_seed": SEED, "redo": redo}
        task = asyncio.create_task(first.ship(0, source, **volumes))  # type: ignore[arg-type]
        await until(lambda: len(ends.receiver_sink.frames) > 12)
        ends.sender.abort()
        with pytest.raises(ConnectionError):
            await task
        await ends.receiver.gone.wait()
        await ends.session.join()
        ends.server.close()
        left = first.unlanded(0)
        await ends.connect()
        second = ends.begin([pack])
        present = pack.presence()
        assert 0 < len(present) < 60
        read_before = sum(source.reads)
        await second.ship(0, source, present=present, sent_before=left, **volumes)  # type: ignore[arg-type]
        await second.finish()
        (receipt,) = await ends.session.seal()
        assert over(ends.sealed(receipt, len(image)), bytes(len(image))) == image
        assert receipt.digest == redo.seal().digest
        assert sum(source.reads) - read_before == (60 - len(present)) * BLOCKS_PER_REGION
        assert second.counts.bytes_resent <= 8 * REGION
        assert bits_of(source.has_landed) == source.blocks


def damage(ends: Ends, times: int, at_frame: int = 2) -> None:
    """Flip a byte of the first block of a frame as it arrives; from then on of every such frame, `times` in all."""
    seen = 0

    def placed(data: Data, views: list[memoryview]) -> None:
        nonlocal seen, times
        seen += 1
        if seen > at_frame and times and len(views[1]):
            times -= 1
            views[1][100] ^= 0x40

    ends.receiver_sink.placed = placed  # type: ignore[assignment]


async def test_blocks_that_were_damaged_on_the_way_are_sent_again_once(tmp_path: Path) -> None:
    image = bytearray(mixed_image(40 * REGION, 6))
    async with connected(tmp_path) as ends:
        damage(ends, 1)
        source = ImageSource(ends.pool, image)
        assert await ship_all(ends, source) == image
        assert sum(isinstance(message, Retry) for message in ends.sender_sink.heard) == 1
        assert ends.shipper.counts.bytes_resent > 0
        assert ends.shipper.counts.bytes_sent <= len(image)
        assert bits_of(source.has_landed) == source.blocks


async def test_a_region_that_is_damaged_twice_fails_the_sync(tmp_path: Path) -> None:
    image = bytearray(b"\x01\x02" * (6 * REGION // 2))
    async with connected(tmp_path) as ends:
        reasons: list[Exception] = []
        damage(ends, 1000, at_frame=0)
        shipper = ends.begin(
            [ends.pack(len(image))], failed=lambda error: (reasons.append(error), ends.receiver.close())
        )

        async def whole() -> None:
            await shipper.ship(0, ImageSource(ends.pool, image), image_bytes=len(image), hash_seed=SEED)
            await shipper.finish()

        with pytest.raises((BlockMismatch, ConnectionError)):
            await whole()
        assert isinstance(ends.session.failure, BlockMismatch)
        assert reasons == [ends.session.failure]
        assert not ends.session._layers[0].durable_frames


async def test_two_volumes_are_shipped_one_after_the_other_and_damage_to_one_spares_the_other(tmp_path: Path) -> None:
    one, two = mixed_image(20 * REGION, 11), mixed_image(9 * REGION + 1, 12)
    async with connected(tmp_path) as ends:
        damage(ends, 1)
        packs = [ends.pack(len(one), "one"), ends.pack(len(two), "two")]
        shipper = ends.begin(packs)
        for index, image in enumerate((one, two)):
            await shipper.ship(index, ImageSource(ends.pool, image), image_bytes=len(image), hash_seed=SEED)
        await shipper.finish()
        receipts = await ends.session.seal()
        assert over(ends.sealed(receipts[0], len(one), "one"), bytes(len(one))) == one
        assert over(ends.sealed(receipts[1], len(two), "two"), bytes(len(two))) == padded(two)


async def test_blocks_are_told_as_landed_only_when_they_are_durable(tmp_path: Path) -> None:
    image = mixed_image(50 * REGION, 13)
    async with connected(tmp_path) as ends:
        pack = ends.pack(len(image))
        source = ImageSource(ends.pool, image)
        durable_before: list[bool] = []
        ship = ends.begin([pack])
        sink = ends.sender_sink
        inner = SenderSink.received

        def received(message: object) -> None:
            if isinstance(message, Landed):
                durable_before.append(message.frames <= pack.durable_frames)
            inner(sink, message)  # type: ignore[arg-type]

        sink.received = received  # type: ignore[assignment, method-assign]
        await ship.ship(0, source, image_bytes=len(image), hash_seed=SEED)
        assert bits_of(source.has_landed) != source.blocks
        await until(lambda: bits_of(source.has_landed) == source.blocks)  # no FLUSH: the checkpoint's timer
        assert all(durable_before)
        assert not any(isinstance(message, Retry) for message in sink.heard)


async def test_the_whole_window_is_granted_back_when_all_has_landed(tmp_path: Path) -> None:
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, mixed_image(40 * REGION, 21))
        await ship_all(ends, source, buffers=8)
        assert ends.shipper._buffers.free == 4
        await until(lambda: ends.shipper._window.open == 8 * BUFFER_BYTES)
        granted = sum(message.bytes for message in ends.sender_sink.heard if isinstance(message, Grant))
        assert granted == len(ends.receiver_sink.frames) * BUFFER_BYTES
        assert ends.session._buffers.free == 8


async def test_stretches_of_holes_travel_as_one_frame_and_are_not_read(tmp_path: Path) -> None:
    image = bytearray(120 * REGION + 700)
    size = len(image)
    for region in (0, 40, 41, 100):
        image[region * REGION + 5000 : region * REGION + 9000] = b"d" * 4000
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, image)
        source.knows_holes = True
        assert await ship_all(ends, source) == padded(image)
        assert bits_of(source.has_landed) == source.blocks
        assert ends.shipper.counts.blocks_changed == len(source.blocks)
        assert ends.shipper.counts.blocks_zero == len(source.blocks) - 8
        assert source.looks == [-(-size // REGION)]
        assert sum(source.reads) <= 4 * BLOCKS_PER_REGION
        assert ends.shipper.counts.frames <= 5


async def test_a_region_with_gaps_is_read_and_never_looked_at(tmp_path: Path) -> None:
    image = bytearray(4 * REGION)
    blocks = everything(len(image))
    gaps = BlockSet({**dict(blocks.regions()), 2: int("10" * (BLOCKS_PER_REGION // 2), 2)})
    async with connected(tmp_path) as ends:
        source = ImageSource(ends.pool, image, gaps)
        source.knows_holes = True
        assert await ship_all(ends, source) == image
        assert (source.looks, source.reads) == ([3], [BLOCKS_PER_REGION // 2])
