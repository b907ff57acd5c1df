"""What the recovery side changed since the common point, asked and told in pieces before a capture.

A side that yielded with writes of its own still holds them until the first sync is sealed: those blocks are part of
that sync's plan. This module must never change a bit.
"""

from __future__ import annotations

from array import array
from itertools import islice

from blockstore.blockset import BlockSet
from blockstore.units import REGION_BITS_BYTES, regions_in
from engine.errors import WireDamaged
from engine.link.peer_link import PeerLink
from engine.operations.conversation import Conversation
from engine.operations.handles import GroupHandle
from engine.wire import limits
from engine.wire.messages import AskChanged, Changed
from engine.wire.presence import pack_regions, unpack_regions


async def fetch(handle: GroupHandle, talk: Conversation) -> list[BlockSet]:
    """The peer's changed blocks, in the group's order of volumes. Raises PeerUnreachable, PeerRefused, WireDamaged."""
    found = []
    for index, volume in enumerate(handle.volumes):
        regions: dict[int, int] = {}
        most = regions_in(volume.record.size_bytes)
        at: int | None = 0
        while at is not None and at < most:
            told = await talk.ask(AskChanged(handle.id, index, at), Changed)
            names = unpack_regions(told.regions)
            _check(told, names, at, most)
            for number, region in enumerate(names):
                raw = told.bits[number * REGION_BITS_BYTES : (number + 1) * REGION_BITS_BYTES]
                regions[region] = int.from_bytes(raw, "little")
            at = told.next_region
        found.append(BlockSet(regions))
    return found


def _check(told: Changed, names: array[int], at: int, most: int) -> None:
    if len(told.bits) != len(names) * REGION_BITS_BYTES or (names and not at <= names[0] <= names[-1] < most):
        raise WireDamaged(reason="changed regions do not fit the question")
    if told.next_region is not None and told.next_region <= at:
        raise WireDamaged(reason="changed regions do not go on")


async def answer(handle: GroupHandle, link: PeerLink, message: AskChanged) -> None:
    """The next piece. A volume without tracking was not written here since its newest point: nothing changed."""
    volume = handle.volumes[message.volume_index].require_open()
    ahead = (found for found in volume.dirty_regions() if found[0] >= message.region)
    piece = list(islice(ahead, limits.CHANGED_REGIONS))
    more = next(ahead, None)
    await link.send(
        Changed(
            group=handle.id,
            volume_index=message.volume_index,
            regions=pack_regions(region for region, _ in piece),
            bits=b"".join(bits.to_bytes(REGION_BITS_BYTES, "little") for _, bits in piece),
            next_region=more[0] if more is not None else None,
        )
    )
