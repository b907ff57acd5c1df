"""Who a message of a link is for: the group that asked, the group that is asked, or the session that receives.

Everything here comes on the loop, in order, and returns at once. This module must never answer anything itself
but the offer of a group, which is for no group yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.link.peer_link import PeerLink
from engine.live.group import RunningGroup
from engine.live.site import Site
from engine.operations.handles import Receiving
from engine.operations.refusals import as_leeward, refused
from engine.wire.messages import (
    Abort,
    AskChanged,
    AskHashes,
    AskYield,
    Begin,
    Data,
    Equal,
    Flush,
    GroupAccepted,
    GroupOffer,
    Lineage,
    Message,
    Refused,
    Seal,
)

ASKED = (Begin, Equal, Flush, Seal, Abort, AskChanged, AskHashes, AskYield)
"""What a site is asked. A LINEAGE is either question or answer, and says which."""


class Router:
    """The site's LinkHandler."""

    def __init__(self) -> None:
        self._site: Site | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, site: Site) -> None:
        """From now on messages are for this site. Before the links start."""
        self._site = site

    def _groups(self) -> list[RunningGroup]:
        return list(self._site.groups_by_name.values()) if self._site is not None else []

    def connected(self, link: PeerLink) -> None:
        if self._site is not None:
            self._site.linked(link)

    def disconnected(self, link: PeerLink) -> None:
        for group in self._groups():
            if group.handle.talk is not None and group.handle.talk.link is link:
                group.handle.talk.end()
            if group.handle.peer == link.peer.name:
                group.hear(link, None)

    def message(self, link: PeerLink, message: Message) -> None:
        if isinstance(message, GroupOffer):
            task = asyncio.create_task(self._offer(link, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        group = self._group_of(link, message)
        if group is None:
            if isinstance(message, (*ASKED, Lineage)):
                link.post(_unknown(message))
            return  # an answer to a question that nobody asks any more
        if isinstance(message, ASKED) or (isinstance(message, Lineage) and not message.reply):
            group.hear(link, message)
        elif group.handle.talk is not None:
            group.handle.talk.hear(message)

    def place(self, link: PeerLink, data: Data, payload_length: int) -> Sequence[memoryview]:
        receiving = self._receiving(link, data)
        if receiving is None:
            return (memoryview(bytearray(payload_length)),)  # of a session that was ended here: dropped
        return receiving.session.place(data, payload_length)

    def data(self, link: PeerLink, data: Data) -> None:
        receiving = self._receiving(link, data)
        if receiving is not None:
            receiving.session.data(data)

    def _receiving(self, link: PeerLink, data: Data) -> Receiving | None:
        for group in self._groups():
            receiving = group.handle.receiving
            if receiving is not None and receiving.sync == data.sync and group.handle.peer == link.peer.name:
                return receiving
        return None

    def _group_of(self, link: PeerLink, message: Message) -> RunningGroup | None:
        wanted, sync = getattr(message, "group", None), getattr(message, "sync", None)
        for group in self._groups():
            handle = group.handle
            if handle.peer != link.peer.name:
                continue
            if wanted == handle.id:
                return group
            if wanted is None and sync is not None and sync in _syncs(group):
                return group
        return None

    async def _offer(self, link: PeerLink, offer: GroupOffer) -> None:
        assert self._site is not None, "links start after the site"
        try:
            await self._site.offered(link, offer)
        except Exception as error:
            # The peer is told why its group cannot be made here; the operator of this site sees it too.
            told = as_leeward(error)
            self._site.ctx.report(
                "error", told.code, f"Group {offer.name} of the peer: {told.message}", group=offer.name
            )
            link.post(refused(told, group=offer.group, sync=None))
        else:
            ids = tuple(volume.id for volume in offer.volumes)
            link.post(GroupAccepted(group=offer.group, volumes=ids))


def _syncs(group: RunningGroup) -> set[bytes]:
    """Syncs that the group sends or receives now."""
    handle = group.handle
    found: set[bytes] = set()
    if handle.receiving is not None:
        found.add(handle.receiving.sync)
    if handle.talk is not None and handle.talk.sync is not None:
        found.add(handle.talk.sync)
    return found


def _unknown(message: Message) -> Refused:
    return Refused(
        group=getattr(message, "group", None),
        sync=getattr(message, "sync", None),
        code="unknown_group",
        message="This group is not known at the peer.",
        remedy="Remove the group and create it again, or look at the peer's `leeward events`.",
        details={},
    )
