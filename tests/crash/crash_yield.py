"""Script of a side that gives way after a promotion: what hosts wrote there is set aside, and the point is back."""

from __future__ import annotations

from typing import Any

from crash_model import Model, Violation
from crash_recovered import read_surface
from crash_recovery import Promoted
from crash_site import Site

from blockstore.overlay_io import OverlayIO
from engine.model import Role, require
from engine.operations import snapshot, yielding
from engine.operations.yielding import give_way
from engine.records import set_asides


class GaveWay(Promoted):
    """A promotion, writes, and then a restore asked by the other side; hosts wrote until the hold."""

    name = "yield"

    async def run(self, site: Site) -> None:
        await super().run(site)
        site.disk.note("role_maybe", "recovery")
        async with site.handle.lock:
            await give_way(site.ctx, site.handle, "restore", lambda record, now: "", term=1)
        site.disk.note("role", "recovery")

    async def judge(self, site: Site, model: Model, kind: str) -> None:
        if site.group.role is Role.RECOVERY and any(written.history for written in model.written.values()):
            await _check_set_aside(site, model, kind)  # it was promoted for certain when hosts wrote
        await super().judge(site, model, kind)


async def _check_set_aside(site: Site, model: Model, kind: str) -> None:
    """All that hosts wrote is there under a name, each block as it may be."""
    kept = set_asides.of_group(site.records.conn, site.handle.id)
    if len(kept) != 1:
        raise Violation(f"{len(kept)} set-asides hold what hosts wrote")
    for volume, layer in zip(site.handle.volumes, kept[0].layers, strict=True):
        overlay = snapshot.open_overlay(site.ctx, volume, require(layer))
        view = OverlayIO(overlay, await snapshot.image_at(site.ctx, volume, require(kept[0].base)))
        read_surface(model, f"top {volume.name}", view, kind)
        overlay.close()


def nothing_is_set_aside(patch: Any) -> None:
    """Mutation: a side gives way and forgets what hosts wrote."""

    async def mutant(*_: Any) -> None:
        return None

    patch.setattr(yielding, "_named", mutant)
