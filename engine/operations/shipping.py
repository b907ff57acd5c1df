"""One sync over one link: what the receiver has, the shipper made for it, and the counts that go into the outcome.

This module must never decide what is shipped: sources do, and the peer's RESUME says what is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blockstore.units import BLOCK
from blockstore.volume import Volume
from engine.decide.compression import Chooser
from engine.operations.context import Context, Progress
from engine.operations.conversation import Conversation
from engine.operations.pacing import Pacer
from engine.transfer.sender import Shipper
from engine.transfer.source import RedoLog, ShipSource
from engine.wire.messages import Resume
from engine.wire.presence import unpack_presence


@dataclass(slots=True)
class Tally:
    """What a sync has cost so far, over all links that it used."""

    blocks_changed: int = 0
    bytes_sent: int = 0
    bytes_resent: int = 0
    bytes_wire: int = 0
    unlanded: dict[int, dict[int, int]] = field(default_factory=dict)


class Ship:
    """The shipping of one sync over one link: `volume` each, then `finish`; `close` always."""

    def __init__(
        self,
        ctx: Context,
        talk: Conversation,
        tally: Tally,
        resume: Resume,
        progress: Progress,
        names: Sequence[str],
        due_s: float,
    ) -> None:
        """`names`: the exports whose hosts this sync yields to; `due_s`: monotonic, when the group's promise ends."""
        self._tally = tally
        self._talk = talk
        self._resume = resume
        self._indices: list[int] = []
        talk.sync = resume.sync

        def told(blocks: int) -> None:
            progress.done_bytes += blocks * BLOCK

        pacer = Pacer(ctx.clock, lambda: any(ctx.presenter.is_busy(name) for name in names))

        async def pace(count: int) -> None:
            await pacer.pace(count)
            await ctx.budget.take(count, due_s, lambda: self._shipper.has_failed)

        self._shipper = talk.shipper = Shipper(
            talk.link,
            ctx.pool,
            ctx.clock,
            sync=resume.sync,
            window_bytes=resume.window_bytes,
            chooser=chooser_of(ctx, talk),
            pace=pace,
            progress=told,
        )

    @property
    def frames(self) -> int:
        """Frames that left over this link."""
        return self._shipper.counts.frames

    @property
    def is_fresh(self) -> bool:
        """True if the receiver holds nothing of this sync."""
        return not any(presence.regions for presence in self._resume.volumes)

    def present(self, index: int) -> dict[int, bytes]:
        """Region -> digest of what has landed of this volume."""
        return unpack_presence(self._resume.volumes[index])

    async def volume(self, index: int, volume: Volume, source: ShipSource, redo: RedoLog) -> None:
        """Send what the source has of one volume. Raises what the shipper raises."""
        self._indices.append(index)
        await self._shipper.ship(
            index,
            source,
            image_bytes=volume.size_bytes,
            hash_seed=volume.hash_seed,
            redo=redo,
            present=self.present(index),
            reusable=unpack_presence(self._resume.reusable[index]),
            sent_before=self._tally.unlanded.pop(index, None),
        )

    async def finish(self) -> None:
        """All that was sent is durable at the receiver."""
        await self._shipper.finish()

    def close(self) -> None:
        """The shipper hears no more; its counts go into the tally."""
        self._talk.shipper = None
        counts = self._shipper.counts
        self._tally.blocks_changed += counts.blocks_changed - counts.blocks_equal
        self._tally.bytes_sent += counts.blocks_sent * BLOCK
        self._tally.bytes_resent += counts.bytes_resent
        for index in self._indices:
            self._tally.unlanded[index] = self._shipper.unlanded(index)


def chooser_of(ctx: Context, talk: Conversation) -> Chooser:
    """The codec chooser of this link, which learns from sync to sync."""
    link = talk.link
    chooser = ctx.choosers.get(link)
    if chooser is None:
        chooser = ctx.choosers[link] = Chooser(tuple(name for name in link.codecs if name != "plain"))
    return chooser
