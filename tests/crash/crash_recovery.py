"""Scripts of the recovery side: staging with writers out of order, seal, fold, snapshots, promotion, the first copy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, ClassVar

from crash_explore import Script
from crash_hosts import Host, Plan, Sender, begin_of, filled
from crash_model import ZERO_BLOCK, Image, Model, Sync, Violation
from crash_protected import START, strays_of
from crash_site import SEED, Site

from blockstore.frame import hash_blocks
from blockstore.stores.kinds import make_store
from blockstore.units import BLOCK, REGION
from engine.model import PointId, Role
from engine.operations import fold, promote, receive, snapshot
from engine.records import points
from engine.requests import Promote, SnapshotCreate, SnapshotDelete

P0 = b"P" * 15 + b"0"
P1, P2, P3 = (b"P" * 15 + bytes([49 + at]) for at in range(3))
SIZE = 7 * REGION + 2 * BLOCK + 512
"""Larger than on the protected side: a region is a frame, and frames have to overtake each other."""
MORE: Plan = {1024 * region + 9: filled(700 + region) for region in range(2, 8) if region != 7} | {
    7 * 1024 + 1: filled(9)
}
DELTA_1: Plan = MORE | {
    0: filled(300),
    1: None,
    5: filled(301),
    1024: filled(302),
    1025: filled(303),
    2048: None,
    3073: filled(9),
}
DELTA_1B: Plan = {block: data for block, data in DELTA_1.items() if block != 7 * 1024 + 1} | {
    1025: filled(304),
    3: filled(305),
}
"""The source died and captured anew: one region is as it was, two are not, one went back to its old content."""
DELTA_2: Plan = {0: filled(310), 1024: None, 2049: filled(311)}
DELTA_3: Plan = {1: filled(320), 2049: filled(321)}
TOUCHED = sorted({*START, *DELTA_1, *DELTA_1B, *DELTA_2, *DELTA_3})


def with_plan(image: Image, plan: Plan) -> Image:
    """The image that a sync of these blocks makes of another."""
    return {**image, **{block: data or ZERO_BLOCK for block, data in plan.items()}}


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


async def check_points(site: Site, model: Model) -> None:
    """What must be visible is, nothing else than may be is, and each point reads as it was captured."""
    found = {point.id for point in points.of_group(site.records.conn, site.handle.id)}
    if not model.must <= found or not found <= model.may:
        raise Violation(f"{len(found)} points are visible, {len(model.must)} must be, {len(model.may)} may be")
    for point in found:
        for volume in site.handle.volumes:
            image = await snapshot.image_at(site.ctx, volume, PointId(point))
            expected = model.images[point][volume.name]
            for block in TOUCHED:
                buffer = memoryview(bytearray(BLOCK))
                image.read_blocking(block * BLOCK, buffer)
                if bytes(buffer) != _cut(expected.get(block, ZERO_BLOCK), block):
                    raise Violation(f"block {block} of point {point[-1:].decode()} does not read as it was captured")


def _cut(content: bytes, block: int) -> bytes:
    """The block as the store has room for it."""
    return content[: max(0, SIZE - block * BLOCK)].ljust(BLOCK, b"\0")


def check_base_hashes(site: Site, model: Model) -> None:
    """A known hash of a base is the hash at the point that the table names."""
    for volume in site.handle.volumes:
        table = volume.require_open().hashes
        if table.point not in model.images:
            continue
        image = model.images[table.point][volume.name]
        for block in sorted(set(image) | set(START)):
            known = int(table.lookup(block, 1, table.point)[0])
            if known and known != int(hash_blocks(memoryview(image.get(block, ZERO_BLOCK)), SEED)[0]):
                raise Violation(f"the hash of block {block} in the base is not that of its point")


async def finish(site: Site, model: Model, sync: Sync) -> None:
    """The sync goes on where the crash cut it: what the sender was told is there, and the point reads as captured."""
    begin = sync.begin
    common = site.group.common
    if common is not None and common.id == begin.point:
        return
    is_same = site.group.incoming is not None and site.group.incoming.sync == begin.sync
    sender = Sender(site, sync)
    await sender.begin()
    for index, told in enumerate(sync.told):
        if told & set(sender.left[index]):
            raise Violation(f"of regions {sorted(told)} that were said to be durable {sender.left[index]} are gone")
    if any(sync.told) and not is_same:
        raise Violation("the records do not know the sync whose frames were said to be durable")
    if begin.mode != "delta":
        check_seeded(site, sync, sender)
    await sender.rest()
    if begin.mode == "seed":
        return
    await sender.seal()
    await check_points(site, replace(model, must=model.must | {begin.point}, may=model.may | {begin.point}))


def check_seeded(site: Site, sync: Sync, sender: Sender) -> None:
    """What is said to be in the base is in it."""
    for volume, plan, left in zip(site.handle.volumes, sync.plans, sender.left, strict=True):
        for block, data in plan.items():
            if block // 1024 not in left and site.disk.peek(volume.record.store, block) != _cut(
                data or ZERO_BLOCK, block
            ):
                raise Violation(f"block {block} is said to be in the base, and is not")


async def check_snapshots(site: Site, model: Model, kind: str) -> None:
    """Snapshots that an operator has are there, read as hosts wrote them, over a point that still stands."""
    for name, (point, is_certain) in model.snapshots.items():
        handle = site.handle.snapshots.get(name)
        if handle is None:
            if is_certain:
                raise Violation(f"snapshot {name} is gone")
            continue
        if handle.record.point != point or not points.get(site.records.conn, PointId(point)).pins:
            raise Violation(f"the point of snapshot {name} is not pinned")
        for volume, view in zip(site.handle.volumes, handle.views, strict=True):
            read_surface(model, f"{volume.name}@{name}", view, kind)


def check_tops(site: Site, model: Model, kind: str) -> None:
    """A promoted volume reads as hosts wrote it, and what differs from the common point is dirty."""
    common = site.group.common
    assert common is not None
    for volume in site.handle.volumes:
        if volume.top_io is None:
            raise Violation("a promoted volume has no top layer")
        contents = read_surface(model, f"top {volume.name}", volume.top_io, kind)
        image, opened = model.images[common.id][volume.name], volume.require_open()
        for block, content in contents.items():
            is_dirty = opened.dirty_bits(block // 1024) >> block % 1024 & 1
            if not is_dirty and content != _cut(image.get(block, ZERO_BLOCK), block):
                raise Violation(f"block {block} differs from the common point and is not dirty")


def read_surface(model: Model, name: str, view: Any, kind: str) -> Image:
    """Read all blocks that anybody wrote there, each what it may be."""
    written = model.written.get(name)
    found: Image = {}
    for block in sorted(written.blocks()) if written is not None else ():
        buffer = memoryview(bytearray(BLOCK))
        view.read_blocking(block * BLOCK, buffer)
        found[block] = bytes(buffer)
        assert written is not None
        written.check(name, block, found[block], kind)
    return found


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
        await self.fold(site, P1, P2)

    async def fold(self, site: Site, *going: bytes) -> None:
        for point in going:
            site.disk.note("gone_maybe", point)
        await fold.fold_due(site.ctx, site.handle)
        for point in going:
            site.disk.note("gone", point)


class Snapshots(Recovery):
    """Two snapshots are made, written, flushed and one of them deleted, while a sync is received."""

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
        await promote.promote(site.ctx, site.handle, Promote(group="shop", force=True), peer_is_protected=False)
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
