"""Who uses a site in a script: hosts that write and flush, and a peer that sends a sync. They note what they did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from crash_model import Sync, Violation
from crash_site import GROUP, SEED, Site

from blockstore.frame import (
    DATA,
    KEPT,
    ZERO,
    LayerDigest,
    build_head,
    hash_blocks,
    make_extents,
    region_rows,
)
from blockstore.steps import Wait
from blockstore.units import BLOCK, BLOCKS_PER_REGION, blocks_in
from engine.operations import receive
from engine.wire.messages import Begin, Data, Landed, Resume, Seal, Sealed, VolumePlan, VolumeSeal
from engine.wire.presence import unpack_presence

Plan = dict[int, bytes | None]
"""Block -> its bytes, None for zeros."""


def filled(number: int) -> bytes:
    """A block that no other number gives."""
    return number.to_bytes(4, "little") * (BLOCK // 4)


class Host:
    """Writes to one surface. One write at a time to a block."""

    def __init__(self, site: Site, surface: str, io: Any) -> None:
        self.site, self.surface, self.io = site, surface, io
        self.replied: dict[int, int] = {}
        self._counts: dict[int, int] = {}

    async def write(self, offset: int, data: bytes, *, durable: bool = False) -> None:
        view = memoryview(data)
        await self._change(offset, data, lambda: self.io.write(offset, view, durable), durable)

    async def block(self, block: int, number: int, *, durable: bool = False) -> None:
        await self.write(block * BLOCK, filled(number), durable=durable)

    async def zero(self, offset: int, length: int, *, durable: bool = False) -> None:
        await self._change(offset, bytes(length), lambda: self.io.zero(offset, length, durable, True), durable)

    async def discard(self, offset: int, length: int) -> None:
        await self._change(offset, bytes(length), lambda: self.io.discard(offset, length, False), False)

    async def _change(self, offset: int, data: bytes, call: Callable[[], Wait | None], durable: bool) -> None:
        disk, number = self.site.disk, self.site.ctx.clock.token(8)
        key = int.from_bytes(number, "little")
        disk.note("wrote", self.surface, key, offset, data)
        is_out = False
        while True:
            wait = call()
            if not is_out and (wait is None or wait.final):
                disk.note("dispatched", self.surface, key)
                is_out = True
                sectors = range(offset // 512, -(-(offset + len(data)) // 512))
                marks = {sector: self._counts.get(sector, 0) + 1 for sector in sectors}
                self._counts.update(marks)
            if wait is None:
                break
            await self.site.pool.over(wait)
            if wait.final:
                break
        disk.note("replied", self.surface, key)
        self.replied.update(marks)
        if durable:
            disk.note("flushed", self.surface, marks)

    async def flush(self) -> None:
        covers = dict(self.replied)
        await self.site.pool.finish(self.io.flush)
        self.site.disk.note("flushed", self.surface, covers)


class Link:
    """What the site says to the peer. `told` is called with LANDED."""

    def __init__(self, site: Site, landed: Callable[[int, int], None]) -> None:
        self.sent: list[Any] = []
        self._site = site
        self._landed = landed

    async def send(self, message: Any, payload: Any = ()) -> None:
        self.sent.append(message)
        if isinstance(message, Landed):
            self._landed(message.volume_index, message.frames)
        if isinstance(message, Sealed):
            self._site.disk.note("visible", message.point)

    def post(self, message: Any) -> None:
        self.sent.append(message)

    def last(self, kind: type) -> Any:
        return next(message for message in reversed(self.sent) if isinstance(message, kind))


def extents_of(plan: Plan, regions: list[int], kept: set[int], image_blocks: int) -> tuple[Any, bytes]:
    """Extents and payload of a frame that names these regions."""
    rows: list[tuple[int, int, int]] = []
    payload = []
    for region in sorted(regions):
        low = region * BLOCKS_PER_REGION
        if region in kept:
            rows.append((low, min(BLOCKS_PER_REGION, image_blocks - low), KEPT))
            continue
        for block in sorted(block for block in plan if block // BLOCKS_PER_REGION == region):
            data = plan[block]
            kind = ZERO if data is None else DATA
            if data is not None:
                payload.append(data)
            if rows and rows[-1][2] == kind and rows[-1][0] + rows[-1][1] == block and block != low:
                rows[-1] = (rows[-1][0], rows[-1][1] + 1, kind)
            else:
                rows.append((block, 1, kind))
    return make_extents(rows), b"".join(payload)


def digests_of(plan: Plan, image_blocks: int) -> dict[int, tuple[int, bytes]]:
    """Region -> blocks, digest of 8 bytes, as both sides reckon them."""
    if not plan:
        return {}
    extents, payload = extents_of(plan, sorted({block // BLOCKS_PER_REGION for block in plan}), set(), image_blocks)
    rows = region_rows(extents, hash_blocks(memoryview(payload), SEED) if payload else np.zeros(0, np.uint64), SEED)
    return {int(row["region"]): (int(row["blocks"]), int(row["digest"]).to_bytes(8, "little")) for row in rows}


class Sender:
    """The peer's side of one sync over one link: `begin`, `frame` by frame, `seal`."""

    def __init__(self, site: Site, sync: Sync) -> None:
        self.site, self.sync = site, sync
        self.link = Link(site, self._landed)
        self._frames: list[list[list[int]]] = [[] for _ in sync.plans]
        self.left: list[list[int]] = []
        self.kept: list[set[int]] = []
        self._sizes = [volume.record.size_bytes for volume in site.handle.volumes]

    def _landed(self, volume: int, frames: int) -> None:
        regions = {region for frame in self._frames[volume][:frames] for region in frame}
        self.site.disk.note("told", self.sync.begin.sync, volume, regions)

    async def begin(self) -> Resume:
        """The site says what it has; the rest is `left`."""
        await receive.begin(self.site.ctx, self.site.handle, self.link, self.sync.begin)  # type: ignore[arg-type]
        resume: Resume = self.link.last(Resume)
        self.left, self.kept = [], []
        self._frames = [[] for _ in self.sync.plans]
        for index, plan in enumerate(self.sync.plans):
            mine = digests_of(plan, blocks_in(self._sizes[index]))
            present, reusable = unpack_presence(resume.volumes[index]), unpack_presence(resume.reusable[index])
            for region, digest in present.items():
                if region not in mine or mine[region][1] != digest:
                    raise Violation(f"region {region} is said to be there, and is not what this sync has of it")
            self.site.disk.note("told", self.sync.begin.sync, index, set(present))
            self.left.append([region for region in mine if region not in present])
            self.kept.append({region for region in self.left[-1] if reusable.get(region) == mine[region][1]})
        return resume

    def frame(self, volume: int, regions: list[int], *, spoil: bool = False) -> None:
        """One frame with these regions goes to the site."""
        extents, payload = extents_of(
            self.sync.plans[volume], regions, self.kept[volume], blocks_in(self._sizes[volume])
        )
        hashes = hash_blocks(memoryview(payload), SEED) if payload else np.zeros(0, np.uint64)
        head = build_head(extents, hashes, len(payload))
        if spoil:
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        session = self.site.handle.receiving.session  # type: ignore[union-attr]
        data = Data(self.sync.begin.sync, volume, "plain", len(head))
        segments = session.place(data, len(head) + len(payload))
        whole = bytes(head) + payload
        for segment in segments:
            segment[:] = whole[: len(segment)]
            whole = whole[len(segment) :]
        self._frames[volume].append(list(regions))
        for region in regions:
            self.left[volume].remove(region)
        session.data(data)

    def send_again(self) -> None:
        """A block did not match: all of the sync is sent once more in this session, and counted anew."""
        self.left = [sorted({block // BLOCKS_PER_REGION for block in plan}) for plan in self.sync.plans]
        self.kept = [set() for _ in self.sync.plans]
        self._frames = [[] for _ in self.sync.plans]

    async def rest(self) -> None:
        """Send all that is left, a region a frame, and have it durable."""
        session = self.site.handle.receiving.session  # type: ignore[union-attr]
        for volume, left in enumerate(self.left):
            for number, region in enumerate(list(left)):
                if number % 4 == 0:
                    await session._idle.wait()  # the window is open again
                self.frame(volume, [region])
        await session.flush()

    async def seal(self) -> None:
        """Everything was sent: seal, with our own counts."""
        told = []
        for volume, plan in zip(self.site.handle.volumes, self.sync.plans, strict=True):
            digest, blocks = LayerDigest(), 0
            for region, (count, of_region) in sorted(digests_of(plan, blocks_in(volume.record.size_bytes)).items()):
                digest.add(region, count, of_region)
                blocks += count
            told.append(VolumeSeal(volume.record.id, blocks, digest.digest()))
        begin = self.sync.begin
        message = Seal(sync=begin.sync, captured_us=begin.captured_us, volumes=tuple(told))
        self.site.disk.note("visible_maybe", begin.point)
        await receive.seal(self.site.ctx, self.site.handle, self.link, message)  # type: ignore[arg-type]


def begin_of(
    site: Site, sync: bytes, point: bytes, sequence: int, builds_on: bytes | None, mode: Any, plans: list[Plan]
) -> Sync:
    """A sync of these blocks."""
    volumes = tuple(
        VolumePlan(volume.record.id, volume.record.size_bytes, len(plan), bytes(16))
        for volume, plan in zip(site.handle.volumes, plans, strict=True)
    )
    begin = Begin(GROUP, sync, point, sequence, builds_on, mode, 1_800_000_000_000_000, None, volumes)
    return Sync(begin, plans, [set() for _ in plans])
