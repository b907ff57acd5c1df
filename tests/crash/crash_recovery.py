"""Scripts of the recovery side: staging with writers out of order, seal, fold, snapshots, promotion, the first copy."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from crash_explore import Script
from crash_hosts import Host, Plan, Sender, begin_of, filled
from crash_model import Model, Sync, Violation
from crash_protected import START, strays_of
from crash_recovered import (
    DELTA_1,
    DELTA_1B,
    DELTA_2,
    DELTA_3,
    P0,
    P1,
    P2,
    P3,
    SIZE,
    check_base_hashes,
    check_points,
    check_snapshots,
    check_tops,
    finish,
    with_plan,
)
from crash_site import SEED, Site

from blockstore.frame import hash_blocks
from blockstore.stores.kinds import make_store
from blockstore.units import BLOCK
from engine.model import Role
from engine.operations import fold, promote, receive, retention, snapshot
from engine.requests import Promote, SnapshotCreate, SnapshotDelete, SnapshotReset


class Recovery(Script):
    """A group with one point, which is its bases."""

    role = Role.RECOVERY
    first_point = P0
    sizes: tuple[int, ...] = (SIZE,)

    async def set_up(self, site: Site, model: Model) -> None:
        for number, size in enumerate(self.sizes):
            make_store(site.disk, f"/stores/v{number}", size)
        await site.boot()
        if not self.first_point:
            model.roles = {"recovery"}
            return
        for volume in site.handle.volumes:
            opened = volume.require_open()
            for block, content in START.items():
                opened.store.write(content, block * BLOCK)
                opened.hashes.store(block, hash_blocks(memoryview(content), SEED))
            opened.store.flush()
            opened.hashes.bind(P0)
        model.images[P0] = {volume.name: START for volume in site.handle.volumes}
        model.must, model.may, model.roles = {P0}, {P0}, {"recovery"}

    async def received(self, site: Site, sync: bytes, point: bytes, sequence: int, on: bytes, plan: Plan) -> None:
        """One delta, the same for every volume, from beginning to seal."""
        made = self.sync(site, sync, point, sequence, on, plan)
        sender = Sender(site, made)
        await sender.begin()
        await sender.rest()
        await sender.seal()

    def sync(self, site: Site, sync: bytes, point: bytes, sequence: int, on: bytes, plan: Plan) -> Sync:
        """A delta, the same for every volume; the model is told of its image."""
        made = begin_of(site, sync, point, sequence, on, "delta", [plan for _ in self.sizes])
        site.disk.note("begun", made, on, plan)
        return made

    async def judge(self, site: Site, model: Model, kind: str) -> None:
        group = site.group
        if group.role.value not in model.roles:
            raise Violation(f"it is {group.role.value}")
        await check_points(site, model)
        check_base_hashes(site, model)
        strays = strays_of(site)
        if strays:
            raise Violation(f"no record names {strays}")
        await check_snapshots(site, model, kind)
        if group.role is Role.PROTECTED:
            check_tops(site, model, kind)
        elif model.sync is not None:
            await finish(site, model, model.sync)

    async def go_on(self, site: Site, model: Model) -> None:
        if site.group.role is Role.RECOVERY and model.sync is not None:
            await finish(site, model, model.sync)


class Staging(Recovery):
    """Frames out of order, checkpoints, a void session, its resume, a source that died, a bad block, the seal."""

    name = "staging"

    async def run(self, site: Site) -> None:
        pool = site.pool
        sender = Sender(site, self.sync(site, b"S" * 16, P1, 2, P0, DELTA_1))
        await sender.begin()
        await self.some(site, sender, [0, 1, 2])
        await self.some(site, sender, [3, 4, 5])
        pool.linger = 200  # a disk that hangs: whoever ends the session has to wait for it
        sender.frame(0, [6])
        pool.linger = 0
        await receive.end_session(site.ctx, site.handle)
        await sender.begin()
        await self.some(site, sender, list(reversed(sender.left[0])))
        await pool.turns(200)
        await receive.end_session(site.ctx, site.handle)
        again = Sender(site, self.sync(site, b"s" * 16, P1, 2, P0, DELTA_1B))
        await again.begin()
        again.frame(0, [0], spoil=True)
        for region in list(again.left[0]):
            again.frame(0, [region])
        await pool.pause(4)
        await site.handle.receiving.session.flush()  # type: ignore[union-attr]
        again.send_again()
        await again.rest()
        await again.seal()
        await self.received(site, b"T" * 16, P2, 3, P1, DELTA_2)

    async def some(self, site: Site, sender: Sender, regions: list[int]) -> None:
        """Send them, a region a frame, with checkpoints in between."""
        session = site.handle.receiving.session  # type: ignore[union-attr]
        for region in regions:
            sender.frame(0, [region])
            session._begin_checkpoints()
            await site.pool.pause(8)

    async def checkpoints(self, site: Site) -> None:
        """As the timer does: what is complete is made durable and told, while writers go on."""
        session = site.handle.receiving.session  # type: ignore[union-attr]
        for _ in range(3):
            session._begin_checkpoints()
            await site.pool.pause(12)


class StagingTwo(Staging):
    """A group of two volumes: their points become visible together or not at all."""

    name = "staging of two"
    sizes = (SIZE, SIZE)

    async def run(self, site: Site) -> None:
        sender = Sender(site, self.sync(site, b"S" * 16, P1, 2, P0, DELTA_1))
        await sender.begin()
        for region in range(8):
            for volume in (0, 1):
                sender.frame(volume, [region])
            await self.checkpoints(site)
        await site.handle.receiving.session.flush()  # type: ignore[union-attr]
        await sender.seal()


class Folded(Recovery):
    """Three points; the oldest two are folded into the bases while a snapshot holds the middle one for a time."""

    name = "fold"
    keep = 1

    async def run(self, site: Site) -> None:
        dying = Sender(site, self.sync(site, b"S" * 16, P1, 2, P0, DELTA_1))
        await dying.begin()
        await dying.rest()
        await self.received(site, b"s" * 16, P1, 2, P0, DELTA_1B)
        await self.received(site, b"T" * 16, P2, 3, P1, DELTA_2)
        disk = site.disk
        disk.note("snapshot_maybe", "kept", P1)
        await snapshot.create(site.ctx, site.handle, SnapshotCreate(group="shop", point=P1.hex(), name="kept"))
        disk.note("snapshot", "kept", P1)
        await self.fold(site, P0)
        await self.received(site, b"U" * 16, P3, 4, P2, DELTA_3)
        disk.note("snapshot_maybe", "kept", P1)
        await snapshot.delete(site.ctx, site.handle, SnapshotDelete(group="shop", name="kept"))
        disk.note("snapshot_gone", "kept")
        await snapshot.clear_away(site.ctx, site.handle)
        await self.fold(site, P1, P2)

    async def fold(self, site: Site, *going: bytes) -> None:
        for point in going:
            site.disk.note("gone_maybe", point)
        await fold.fold_due(site.ctx, site.handle)
        for point in going:
            site.disk.note("gone", point)


class Merged(Recovery):
    """Four points of two volumes; a snapshot holds the second, so that the third goes from the middle: a merge."""

    name = "merge"
    keep = 1
    sizes = (SIZE, SIZE)

    async def run(self, site: Site) -> None:
        await self.received(site, b"S" * 16, P1, 2, P0, DELTA_1)
        disk = site.disk
        disk.note("snapshot_maybe", "kept", P1)
        made = await snapshot.create(site.ctx, site.handle, SnapshotCreate(group="shop", point=P1.hex(), name="kept"))
        for volume, view in zip(site.handle.volumes, made.views, strict=True):
            disk.note("written_over", f"{volume.name}@kept", P1, volume.name)
            await Host(site, f"{volume.name}@kept", view).block(3, 420)
        disk.note("snapshot", "kept", P1)
        await self.received(site, b"T" * 16, P2, 3, P1, DELTA_2)
        await self.received(site, b"U" * 16, P3, 4, P2, DELTA_3 | {1025: filled(322)})
        for point in (P0, P2):
            disk.note("gone_maybe", point)
        await retention.retain(site.ctx, site.handle)
        for point in (P0, P2):
            disk.note("gone", point)

    async def go_on(self, site: Site, model: Model) -> None:
        await super().go_on(site, model)
        if site.group.role is Role.RECOVERY and model.sync is None:
            while await retention.merge_next(site.ctx, site.handle):
                pass


class Snapshots(Recovery):
    """Two snapshots are made, written and flushed while a sync is received; one is deleted, the other one reset."""

    name = "snapshot"

    async def run(self, site: Site) -> None:
        await self.received(site, b"S" * 16, P1, 2, P0, DELTA_1)
        disk, pool = site.disk, site.pool
        for name, point in (("one", P1), ("two", P0)):
            disk.note("snapshot_maybe", name, point)
            made = await snapshot.create(
                site.ctx, site.handle, SnapshotCreate(group="shop", point=point.hex(), name=name)
            )
            disk.note("written_over", f"v0@{name}", point, "v0")
            disk.note("snapshot", name, point)
            host = Host(site, f"v0@{name}", made.views[0])
            await asyncio.gather(host.block(0, 400), host.block(1024, 401))
            await asyncio.gather(host.write(5 * BLOCK + 512, b"\x33" * 512), host.flush(), host.block(7, 402))
            await asyncio.gather(host.zero(1025 * BLOCK, BLOCK), host.flush())
            await asyncio.gather(host.block(8, 403, durable=True), host.flush(), pool.pause())
            await host.block(0, 404)
        await self.received(site, b"T" * 16, P2, 3, P1, DELTA_2)
        disk.note("snapshot_maybe", "two", P0)
        await snapshot.delete(site.ctx, site.handle, SnapshotDelete(group="shop", name="two"))
        disk.note("snapshot_gone", "two")
        await snapshot.clear_away(site.ctx, site.handle)
        disk.note("reset_maybe", "v0@one")
        made = await snapshot.reset(site.ctx, site.handle, SnapshotReset(group="shop", name="one"))
        disk.note("was_reset", "v0@one")
        host = Host(site, "v0@one", made.views[0])
        await asyncio.gather(host.block(0, 410), host.block(1024, 411), host.flush())
        await snapshot.clear_away(site.ctx, site.handle)

    async def go_on(self, site: Site, model: Model) -> None:
        for name, handle in site.handle.snapshots.items():
            if f"v0@{name}" in model.written:
                host = Host(site, f"v0@{name}", handle.views[0])
                await host.block(9, 905)
                await host.write(1024 * BLOCK + 1024, b"\x55" * 512)
                await host.flush()


class Promoted(Recovery):
    """Promotion in the middle of a sync that is received; then hosts write to the new top."""

    name = "promote"
    sizes = (SIZE, SIZE)

    async def run(self, site: Site) -> None:
        await self.received(site, b"S" * 16, P1, 2, P0, DELTA_1)
        sender = Sender(site, self.sync(site, b"T" * 16, P2, 3, P1, DELTA_2))
        await sender.begin()
        sender.frame(0, [0])
        disk = site.disk
        for volume in site.handle.volumes:
            disk.note("written_over", f"top {volume.name}", P1, volume.name)
        disk.note("role_maybe", "protected")
        await promote.promote(site.ctx, site.handle, Promote(group="shop", force=True), against="")
        disk.note("role", "protected")
        hosts = [Host(site, f"top {v.name}", site.exports.up[v.name]) for v in site.handle.volumes]
        await asyncio.gather(hosts[0].block(0, 500), hosts[1].block(1024, 501), hosts[0].flush())
        await asyncio.gather(hosts[0].write(5 * BLOCK + 512, b"\x44" * 512), hosts[0].zero(BLOCK, BLOCK))
        step = site.handle.volumes[0].require_open().cool(60.0, all=True)
        await asyncio.gather(
            hosts[0].flush(), hosts[0].block(1025, 502), site.pool.over(step) if step else hosts[1].flush()
        )
        await asyncio.gather(hosts[0].block(2050, 503, durable=True), hosts[1].block(2, 504), hosts[1].flush())


class Seeded(Recovery):
    """The first copy: a pass into the base with a break in it, the delta behind it, the first point."""

    name = "seed"
    first_point = b""
    FIRST: ClassVar[Plan] = {
        0: filled(600),
        1: filled(601),
        1024: filled(602),
        2048: None,
        2049: filled(603),
        3072: filled(604),
    }
    DELTA: ClassVar[Plan] = {0: filled(610), 5: filled(611), 1024: filled(602), 2049: None}

    async def run(self, site: Site) -> None:
        seed, sync = b"E" * 16, b"S" * 16
        first = begin_of(site, seed, seed, 1, None, "seed", [self.FIRST])
        site.disk.note("begun", first, b"", {})
        sender = Sender(site, first)
        await sender.begin()
        sender.frame(0, [0])
        sender.frame(0, [1])
        await Staging.checkpoints(self, site)  # type: ignore[arg-type]
        sender.frame(0, [2])
        await site.pool.pause(4)
        await receive.end_session(site.ctx, site.handle)
        await sender.begin()
        await sender.rest()
        site.disk.note("imaged", P1, {"v0": with_plan(with_plan({}, self.FIRST), self.DELTA)})
        delta = begin_of(site, sync, P1, 1, seed, "seed_delta", [self.DELTA])
        site.disk.note("begun", delta, b"", {})
        sender = Sender(site, delta)
        await sender.begin()
        sender.frame(0, [0])
        await Staging.checkpoints(self, site)  # type: ignore[arg-type]
        await sender.rest()
        await sender.seal()
        await self.received(site, b"T" * 16, P2, 2, P1, DELTA_2)
