"""The image of a point is made of all its layers or not at all: with one missing it would be another image."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_site import asked, site_at

from blockstore.errors import VolumeFailed
from engine.errors import UnknownName
from engine.model import PointId
from engine.operations.snapshot import image_at
from engine.requests import SnapshotCreate
from rig.nbd import NbdClient
from rig.pair import Pair

BLOCK = 4096


async def test_a_point_one_of_whose_layers_is_not_open_has_no_image(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        for number in (1, 2, 3):
            with NbdClient(pair.exports()[0]) as client:
                client.pwrite(bytes([number]) * BLOCK, number * BLOCK)
            pair.sync()
        third, second, first = [PointId(bytes.fromhex(point["id"])) for point in pair.points()]
        pair.close()
        async with site_at(pair.west.data) as site:
            (volume,) = site.running(pair.group).handle.volumes
            whole = volume.chain
            assert len(whole) == 2
            volume.chain = whole[:1]
            for point, shows in ((first, b"\1\0\0"), (second, b"\1\2\0")):
                image = await image_at(site.ctx, volume, point)
                block = memoryview(bytearray(BLOCK))
                read = []
                for number in (1, 2, 3):
                    image.read_blocking(number * BLOCK, block)
                    read.append(block[0])
                assert bytes(read) == shows
            with pytest.raises(VolumeFailed) as refused:
                await image_at(site.ctx, volume, third)
            assert (refused.value.code, "layer" in refused.value.message) == ("volume_failed", True)
            assert volume.name in refused.value.message
            assert refused.value.advice
            with pytest.raises(UnknownName):
                await image_at(site.ctx, volume, PointId(bytes(16)))
            volume.chain = whole


async def test_nothing_is_left_of_a_snapshot_whose_image_cannot_be_made(tmp_path: Path) -> None:
    with Pair(tmp_path, size="16M") as pair:
        pair.sync()
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(b"x" * BLOCK, 0)
        pair.sync()
        pair.close()
        async with site_at(pair.west.data) as site:
            (volume,) = site.running(pair.group).handle.volumes
            whole, volume.chain = volume.chain, ()
            job = await asked(site, SnapshotCreate(pair.group, name="look"))
            assert job.error is not None
            assert job.error.code == "volume_failed"
            assert await site.snapshots(None) == ()
            volume.chain = whole
            job = await asked(site, SnapshotCreate(pair.group, name="look"))
            assert job.error is None, "the name is free, and the point is as it was"
