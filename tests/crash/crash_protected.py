"""Scripts of the protected side: the write path, and captures of two volumes that are sent, settled or given up."""

from __future__ import annotations

import asyncio

from crash_explore import Script
from crash_hosts import Host, filled
from crash_model import ZERO_BLOCK, Image, Model, Violation
from crash_site import SEED, Site, track

from blockstore.blockset import runs_of
from blockstore.capture import Capture
from blockstore.frame import build_head, hash_blocks, make_extents
from blockstore.stores.kinds import make_store
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION
from engine.live import shutdown
from engine.operations import capture
from engine.operations.capture import GroupCapture
from engine.operations.converge import converge
from engine.records import groups

SIZE = 3 * REGION + 2 * BLOCK + 512
SHORT = SIZE // BLOCK
"""The last block: 512 bytes of it are there."""
START: Image = {block: filled(block + 1) for block in (0, 1, 2, 1024, 2048)}


class Protected(Script):
    """Volumes whose newest common point is their start; hashes of it are known."""

    sizes: tuple[int, ...] = (SIZE,)
    may_be_lost = False

    async def set_up(self, site: Site, model: Model) -> None:
        for number, size in enumerate(self.sizes):
            make_store(site.disk, f"/stores/v{number}", size)
        await site.open_volumes()
        for volume in site.handle.volumes:
            opened = volume.require_open()
            for block, content in START.items():
                opened.store.write(content, block * BLOCK)
                opened.hashes.store(block, hash_blocks(memoryview(content), SEED))
            opened.store.flush()
            opened.hashes.bind(self.first_point)
            model.surface(volume.name, START)
        await track(site)
        await converge(site.ctx, site.handle)
        model.imaged(self.first_point, {volume.name: START for volume in site.handle.volumes})
        model.common = {self.first_point}
        site.handle.unsettled = None

    def hosts(self, site: Site) -> list[Host]:
        return [Host(site, volume.name, site.exports.up[volume.name]) for volume in site.handle.volumes]

    async def judge(self, site: Site, model: Model, kind: str) -> None:
        lost = [message for _, code, message in site.reports if code in ("tracking_lost", "store_changed")]
        if lost and not self.may_be_lost:
            raise Violation(lost[0])
        group = site.group
        assert group.common is not None
        if group.common.id not in model.common:
            raise Violation("the newest common point is one that the peer never said it has")
        check_dirty(site, model, group.common.id)
        check_hashes(site, model)
        if group.pending is not None:
            if group.pending.point not in model.may_exist and group.pending.point not in model.common:
                raise Violation("a sync counts as sent that never was")
            for volume in site.handle.volumes:
                volume.require_open().settle_pending(True)
            check_dirty(site, model, group.pending.point)
        if site.handle.unsettled is not None:
            await capture.apply_hashes(site.ctx, site.handle)
            check_hashes(site, model)
        strays = strays_of(site)
        if strays:
            raise Violation(f"no record names {strays}")

    async def go_on(self, site: Site, model: Model) -> None:
        first = self.hosts(site)[0]
        await first.block(0, 901)
        await first.block(2 * BLOCKS_PER_REGION + 7, 902)
        await first.block(2 * BLOCKS_PER_REGION + 8, 903)
        step = site.handle.volumes[0].require_open().cool(1000.0, all=True)
        if step is not None:
            await site.pool.over(step)
        await first.block(BLOCKS_PER_REGION, 904)


def check_dirty(site: Site, model: Model, point: bytes) -> None:
    """A block that differs from the point is dirty."""
    for volume in site.handle.volumes:
        opened, image = volume.require_open(), model.images[point][volume.name]
        for block in sorted(model.written[volume.name].blocks() | set(image)):
            content = site.disk.peek(volume.record.store, block)
            is_dirty = opened.dirty_bits(block // BLOCKS_PER_REGION) >> block % BLOCKS_PER_REGION & 1
            if not is_dirty and content != image.get(block, ZERO_BLOCK):
                raise Violation(f"block {block} of {volume.name} differs from the sealed point and is not dirty")


def check_hashes(site: Site, model: Model) -> None:
    """A known hash is the hash at the newest common point, if the table says that it stands for that one."""
    common = site.group.common
    for volume in site.handle.volumes:
        table = volume.require_open().hashes
        if common is None or table.point != common.id:  # nobody asks for any other
            continue
        image = model.images[table.point][volume.name]
        for block in sorted(set(image) | set(START)):
            known = int(table.lookup(block, 1, table.point)[0])
            if known and known != int(hash_blocks(memoryview(image.get(block, ZERO_BLOCK)), SEED)[0]):
                raise Violation(f"the hash of block {block} of {volume.name} is not that of the common point")


def strays_of(site: Site) -> list[str]:
    """Files of volumes that no record names."""
    named: set[str] = set()
    group, rows = site.group, site.records.conn.execute("SELECT id, volume FROM layer").fetchall()
    syncs = [point.id for point in (group.common,) if point is not None]
    syncs += [group.pending.point] if group.pending is not None else []
    for volume in site.handle.volumes:
        folder = site.ctx.paths.volume(volume.record.id)
        record = site.records.conn.execute("SELECT * FROM volume WHERE id = ?", (volume.record.id,)).fetchone()
        named.add(f"{folder}/hashes")
        for tracking in (record["tracking"], record["tracking_next"]):
            if tracking is not None:
                named |= {f"{folder}/intent.{tracking.hex()}", f"{folder}/dirty.{tracking.hex()}.pmap"}
        named |= {f"{folder}/{point.hex()}.redo" for point in syncs}
        if group.incoming is not None and group.common is None:
            named |= {name for name in site.disk.names if name.startswith(folder) and name.endswith(".seed")}
        for row in rows:
            if row["volume"] == volume.record.id:
                named |= {f"{folder}/layers/{row['id'].hex()}{ending}" for ending in (".pack", ".data", ".pmap")}
    return sorted(path for path in site.disk.names if path.startswith("/data/volumes/") and path not in named)


class WritePath(Protected):
    """Heat, write, cool, flush; zeros, discards, durable writes, writes into regions that cool."""

    name = "write path"

    async def run(self, site: Site) -> None:
        host = self.hosts(site)[0]
        volume = site.handle.volumes[0].require_open()
        await host.block(0, 100)
        await asyncio.gather(host.block(1, 101), host.block(1025, 102), host.block(2049, 103), host.flush())
        await host.write(5 * 512, b"\x11" * 512)
        await asyncio.gather(host.flush(), self.write_and_flush(site, host, 3), self.write_and_flush(site, host, 1026))
        await asyncio.gather(self.cool(site), host.block(1, 106))
        await host.block(1025, 107)
        site.pool.linger = 30
        await asyncio.gather(self.cool(site), *(self.later(site, host, block) for block in (1061, 10)))
        await host.block(3073, 109)
        await asyncio.gather(host.block(1027, 110, durable=True), host.zero(2 * BLOCK, 3 * BLOCK))
        await asyncio.gather(host.discard(1024 * BLOCK, 512), host.write(SHORT * BLOCK, b"\x22" * 512), host.flush())
        await asyncio.gather(self.cool(site), self.later(site, host, 2061), self.write_and_flush(site, host, 11))
        await asyncio.gather(host.block(3072, 111), host.flush())
        await asyncio.gather(host.write(1023 * BLOCK, filled(112) + filled(113)), host.flush())
        assert volume.dirty_blocks
        await host.flush()

    async def cool(self, site: Site) -> None:
        """One batch of regions, as the engine's timer does it."""
        step = site.handle.volumes[0].require_open().cool(60.0, all=True)
        if step is not None:
            site.pool.begin(step)
            site.pool.linger = 0
            await site.pool.over(step)

    async def later(self, site: Site, host: Host, block: int) -> None:
        await site.pool.pause()
        await host.block(block, 800 + block)

    async def write_and_flush(self, site: Site, host: Host, block: int) -> None:
        await self.later(site, host, block)
        await host.flush()


class CleanStop(Protected):
    """Writes, then the writer is revoked and every bit saved; the next start believes the pages."""

    name = "clean stop"
    may_be_lost = True
    """Between the record of the stop and its row nobody can tell what was written since: all counts as changed."""

    async def run(self, site: Site) -> None:
        host = self.hosts(site)[0]
        await host.block(0, 120)
        await asyncio.gather(host.block(1030, 121), host.block(2050, 122))
        await host.flush()
        await host.block(1031, 123)
        covers = dict(host.replied)
        await shutdown._stop(site.ctx, site.handle.volumes[0])
        site.disk.note("flushed", host.surface, covers)


class Lost(Protected):
    """The intent log is gone, as after a repair of the file system: tracking starts afresh, with every block dirty."""

    name = "tracking lost"
    may_be_lost = True

    async def run(self, site: Site) -> None:
        host = self.hosts(site)[0]
        await asyncio.gather(host.block(0, 130), host.block(1030, 131), host.block(2050, 132))
        await host.flush()
        folder = site.ctx.paths.volume(site.handle.volumes[0].record.id)
        site.disk.unlink(next(f"{folder}/{name}" for name in site.disk.list(folder) if name.startswith("intent.")))
        site.disk.sync_dir(folder)
        site.exports.up.clear()
        await site.boot()
        host = self.hosts(site)[0]
        await asyncio.gather(host.block(1, 133), host.block(1031, 134), host.flush())


class Captured(Protected):
    """Two volumes captured at one instant under writes; sent, sealed at the peer, adopted, hashes applied."""

    name = "capture"
    sizes = (SIZE, SIZE)

    async def run(self, site: Site) -> None:
        hosts = self.hosts(site)
        await asyncio.gather(hosts[0].block(0, 200), hosts[1].block(0, 201), hosts[0].block(1024, 202))
        await asyncio.gather(hosts[0].zero(1 * BLOCK, BLOCK), hosts[1].block(1030, 203))
        site.disk.is_cold = True
        loads = [self.load(site, hosts), *(self.strike(site, hosts, number) for number in range(6))]
        await asyncio.gather(self.sync(site, hosts), *loads)
        site.disk.is_cold = False
        for volume in site.handle.volumes:
            while (step := volume.require_open().cool(120.0, all=True)) is not None:
                await site.pool.over(step)
        await asyncio.gather(hosts[0].block(2, 240), hosts[1].block(2, 241))

    async def load(self, site: Site, hosts: list[Host]) -> None:
        """Hosts go on while the capture is sent."""
        for number, (host, block) in enumerate(((0, 0), (1, 1030), (0, 1024), (1, 0), (0, 1), (1, 2048)) * 2):
            await hosts[host].block(block, 210 + number, durable=number == 5)
            await site.pool.pause(12)

    async def strike(self, site: Site, hosts: list[Host], number: int) -> None:
        """Writes that take long and writes to cold regions, about when the switch comes."""
        await site.pool.pause(100)
        await hosts[number % 2].block(20 + number, 250 + number, durable=True)
        await hosts[(number + 1) % 2].block((2070, 3072, 2071, 3073, 1031, 1032)[number], 260 + number)

    async def sync(self, site: Site, hosts: list[Host]) -> None:
        captured = await self.take(site)
        await asyncio.gather(*(self.send(site, captured, index) for index in range(len(self.sizes))))
        await capture.flush_capture(site.ctx, captured)
        await capture.seal_redos(site.ctx, captured)
        site.disk.note("seal_sent", captured.point)
        await site.records.transact(lambda conn: groups.sealing(conn, site.handle.id, captured.sync))
        await hosts[0].block(6, 230)
        site.disk.note("sealed_heard", captured.point)
        await capture.adopt(site.ctx, site.handle, captured.pending)
        site.disk.note("adopted", captured.point)
        await hosts[1].block(7, 231)
        await capture.apply_hashes(site.ctx, site.handle)

    async def take(self, site: Site) -> GroupCapture:
        """Capture, and tell the model what the image is."""
        captured = await capture.take_capture(site.ctx, site.handle, site.group)
        site.disk.note("captured_now", captured.point)
        return captured

    async def send(self, site: Site, captured: GroupCapture, index: int) -> None:
        """Read what is frozen as the sender does, and have it durable at the peer, a region at a time."""
        part, redo = captured.parts[index], captured.redos[index]
        await site.pool.over(part.quiesced)
        name = site.handle.volumes[index].name
        for region, bits in list(part.regions()):
            runs = [(region * BLOCKS_PER_REGION + first, count) for first, count in runs_of(bits)]
            buffer = memoryview(bytearray(bits.bit_count() * BLOCK))
            for _ in range(2):  # the link breaks, and what was sent and had not landed is sent again
                await site.pool.over(part.read_runs(runs, buffer, lambda: None))
                site.disk.note("frozen_read", captured.point, name, tuple(runs), bytes(buffer))
                self.sent(part, region, bits)
                await site.pool.pause()
            head = build_head(make_extents([(f, c, 0) for f, c in runs]), hash_blocks(buffer, SEED), len(buffer))
            redo.append(head)
            part.done(region, bits)

    def sent(self, part: Capture, region: int, bits: int) -> None:
        """A frame left; that says nothing of where it is."""


class CaptureGivenUp(Captured):
    """A capture that comes to nothing half way, and another that is sealed after it."""

    name = "capture given up"

    async def sync(self, site: Site, hosts: list[Host]) -> None:
        captured = await self.take(site)
        await self.send(site, captured, 0)
        await capture.abandon_capture(site.ctx, site.handle)
        await super().sync(site, hosts)
