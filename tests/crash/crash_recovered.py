"""The oracle of the recovery side: points, snapshots, tops, the first copy, and a sync that goes on after a crash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from crash_hosts import Plan, Sender, filled
from crash_model import ZERO_BLOCK, Image, Model, Sync, Violation
from crash_protected import START
from crash_site import SEED, Site

from blockstore.frame import hash_blocks
from blockstore.units import BLOCK, REGION
from engine.model import PointId
from engine.operations import snapshot
from engine.records import points

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
    """A known hash of a base is the hash at the point that the table names, if that is a point."""
    for volume in site.handle.volumes:
        table = volume.require_open().hashes
        if points.find(site.records.conn, PointId(table.point)) is None:  # nobody asks for any other
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
        if handle.failure:
            raise Violation(f"snapshot {name} is down: {handle.failure}")
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
