"""The rules of merging and dropping, each broken by a patch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from blockstore import merge
from blockstore.frame import DATA
from blockstore.pack import OpenPack
from blockstore.pack_format import build_directory
from engine.model import LayerState
from engine.operations import retention, staging
from engine.records import merges, points
from engine.records import retention as retention_records

Patch = pytest.MonkeyPatch


def merge_old_wins(patch: Patch) -> None:
    right = merge.merged_region

    def mutant(packs: Any, region: int) -> Any:
        found = right(packs[::-1], region)
        return replace(found, packs=len(packs) - 1 - found.packs)

    patch.setattr(merge, "merged_region", mutant)


def merge_zeros_lost(patch: Patch) -> None:
    right = merge._extents

    def mutant(kinds: Any, base: int) -> Any:
        found = right(kinds, base)
        data = found[found["kind"] == DATA]
        return data if len(data) else found

    patch.setattr(merge, "_extents", mutant)


def merge_region_wise(patch: Patch) -> None:
    right = merge.merged_region

    def mutant(packs: Any, region: int) -> Any:
        newest = max(index for index, pack in enumerate(packs) if pack.has_region(region))
        found = right(packs[newest : newest + 1], region)
        return replace(found, packs=found.packs + newest)

    patch.setattr(merge, "merged_region", mutant)


def merge_before_its_sync(patch: Patch) -> None:
    right = OpenPack._write_directory

    def mutant(self: Any) -> Any:
        frames = self.frames
        if self.sync_id != frames.owner:
            return right(self)
        end, table = self.complete, self.table
        raw, check = build_directory(
            table.directory(self.sync_id),
            end,
            owner=frames.owner,
            sync_id=self.sync_id,
            durable=self.durable_offset,
            hash_seed=frames.hash_seed,
        )
        frames.file.write(raw, end.offset)
        length = end.offset + len(raw)
        return table.receipt(self.sync_id, length=length, directory_offset=end.offset, directory_check=check)

    patch.setattr(OpenPack, "_write_directory", mutant)


def merge_across_a_point(patch: Patch) -> None:
    def mutant(conn: Any, volume: Any) -> Any:
        found = [layer for layer in merges.layers.chain(conn, volume) if layer.state is LayerState.SEALED]
        return {found[-1].point: tuple(found)} if len(found) > 1 else {}

    patch.setattr(merges, "_runs", mutant)


def merge_inputs_unlinked_first(patch: Patch) -> None:
    finish = merges.finish

    async def mutant(ctx: Any, handle: Any) -> bool:
        fresh = {volume.record.id: ctx.clock.token(16) for volume in handle.volumes}
        due = await ctx.database.transact(lambda conn: merges.start(conn, handle.id, fresh))
        for volume, one in zip(handle.volumes, due, strict=False):
            receipt = await retention._build(ctx, volume, one, retention.fold.pacer(ctx, handle))
            staging._unlink(ctx, one.inputs)
            await ctx.database.transact(
                lambda conn, one=one, receipt=receipt: finish(conn, handle.id, [one], [receipt])
            )
        return False

    patch.setattr(retention, "merge_next", mutant)


def pinned_point_dropped(patch: Patch) -> None:
    def drop(conn: Any, group: Any, keep: int) -> Any:
        for point in points.of_group(conn, group)[max(1, keep) :]:
            conn.execute("DELETE FROM pin WHERE point = ?", (point.id,))
            conn.execute("DELETE FROM snapshot WHERE point = ?", (point.id,))
            conn.execute("DELETE FROM point WHERE id = ?", (point.id,))
        return ()

    assert retention_records.due
    patch.setattr(merges, "drop", drop)
