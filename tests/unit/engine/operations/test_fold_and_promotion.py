"""A fold that a promotion overtakes: not one piece more, so that no sync trusts a hash that it has left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest
from running_site import asked, come_true, site_at

from blockstore.fold import Fold
from engine.operations import fold as fold_story
from engine.records import layers
from engine.requests import GroupSet, Promote
from rig.nbd import NbdClient
from rig.pair import Pair

MIB = 1 << 20
SIZE = 32 * MIB


class Halted:
    """Instead of the pacer: lets one piece through, then waits for `go`."""

    def __init__(self) -> None:
        self.left, self.waits, self.go = 1, asyncio.Event(), asyncio.Event()

    async def pace(self, _: int) -> None:
        if self.left:
            self.left -= 1
            return
        self.waits.set()
        await self.go.wait()


async def test_no_piece_of_a_fold_runs_after_a_promotion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Pair(tmp_path, size=str(SIZE)) as pair:
        for turn in range(2):
            _write(pair.exports()[0], Random(turn).randbytes(SIZE))
            pair.sync()
        pair.close()
        halted, pieces = Halted(), 0
        monkeypatch.setattr(fold_story, "pacer", lambda ctx, handle: halted)
        step = Fold.step

        def counted(self: Fold, most_bytes: int) -> bool:
            nonlocal pieces
            pieces += 1
            return step(self, most_bytes)

        monkeypatch.setattr(Fold, "step", counted)
        async with site_at(pair.west.data) as west:
            (volume,) = west.running(pair.group).handle.volumes
            job = await asked(west, GroupSet(pair.group, keep=1))
            assert job.state == "done", job.error
            await asyncio.wait_for(halted.waits.wait(), 20)
            assert pieces == 1, "the fold is half done"
            job = await asked(west, Promote(pair.group, force=True))
            assert job.state == "done", job.error
            halted.go.set()
            await come_true(lambda: not volume.hashing.locked(), "the piece that waited has had its turn")
            await asyncio.wait_for(asyncio.to_thread(_shows, (await west.exports())[0].uri), 20)
            assert pieces == 1, "a piece of the fold ran on a promoted side"
            chain = await west.ctx.database.read(lambda conn: layers.chain(conn, volume.record.id))
            assert len(chain) == len(volume.chain) == 1, "its layer still hides what it had begun to change"


def _write(uri: str, data: bytes) -> None:
    with NbdClient(uri) as client:
        for at in range(0, len(data), 4 * MIB):
            client.pwrite(data[at : at + 4 * MIB], at)


def _shows(uri: str) -> None:
    with NbdClient(uri) as client:
        found = b"".join(bytes(client.pread(4 * MIB, at)) for at in range(0, SIZE, 4 * MIB))
    assert found == Random(1).randbytes(SIZE)
