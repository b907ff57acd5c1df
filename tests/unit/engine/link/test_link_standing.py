"""Links that stand: one for two sites whoever dialled, messages both ways, made again when they break."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from linked_sites import QUICK, LinkedSite

from blockstore.errors import LayerSpace
from engine.clock import SystemClock
from engine.errors import PeerUnreachable, PortTaken, UnknownName
from engine.link.peer import Links
from engine.wire import messages as m
from engine.wire.presence import pack_regions

SYNC, GROUP = b"s" * 16, b"g" * 16


async def pair(site, **options) -> tuple[LinkedSite, LinkedSite]:
    """Two sites that know each other and have a link."""
    one, two = await site("berlin", 1, **options), await site("paris", 2, **options)
    acquaint(one, two)
    await asyncio.gather(one.links.wait("paris", 5), two.links.wait("berlin", 5))
    return one, two


def acquaint(one: LinkedSite, two: LinkedSite, *, plain: bool = False) -> None:
    one.links.set_peers([two.as_peer(plain=plain)])
    two.links.set_peers([one.as_peer(plain=plain)])


@pytest.mark.parametrize("plain", [False, True])
async def test_two_sites_that_dial_each_other_have_one_link(site, plain) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    acquaint(one, two, plain=plain)
    here, there = await asyncio.gather(one.links.wait("paris", 5), two.links.wait("berlin", 5))
    assert (here.hello.site_name, there.hello.site_name) == ("paris", "berlin")
    assert here.is_plain is there.is_plain is plain
    assert here.agreed == there.agreed
    assert set(here.codecs) == {"plain", "lz4", "zstd"}
    await here.send(m.Flush(SYNC))
    await there.send(m.Flushed(SYNC))
    await two.news.until(lambda: two.handler.messages == [m.Flush(SYNC)], "FLUSH at paris")
    await one.news.until(lambda: one.handler.messages == [m.Flushed(SYNC)], "FLUSHED at berlin")
    assert not one.handler.over
    assert not two.handler.over


async def test_crossing_dials_leave_one_link_every_time(site) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    for _ in range(25):
        acquaint(one, two)
        here, there = await asyncio.gather(one.links.wait("paris", 5), two.links.wait("berlin", 5))
        await here.send(m.Flush(SYNC))
        await two.news.until(lambda: two.handler.messages, "the message")
        assert one.links.get("paris") is here, "it did not flap"
        assert two.links.get("berlin") is there
        one.links.set_peers([])
        two.links.set_peers([])
        await asyncio.gather(here.gone(), there.gone())
        two.handler.messages.clear()
    assert len(one.handler.links) == len(two.handler.links) == 25


async def test_one_side_that_cannot_dial_is_dialled(site) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    one.links.set_peers([two.as_peer(address="127.0.0.1:1")])
    two.links.set_peers([one.as_peer()])
    link = await one.links.wait("paris", 5)
    assert link.hello.site_name == "paris"


async def test_data_arrives_in_placed_memory_and_in_order(site) -> None:
    one, two = await pair(site)
    link = one.links.get("paris")
    for number in range(20):
        payload = [bytes([number]) * 200, bytes([number]) * 8192, memoryview(bytes([255 - number]) * 4096)]
        await link.send(m.Data(SYNC, number, "plain", 200), payload)
        await link.send(m.Landed(SYNC, 0, number))
    await two.news.until(lambda: len(two.handler.messages) == 20, "all messages")
    assert [message.frames for message in two.handler.messages] == list(range(20))
    assert [data.volume_index for data, _ in two.handler.complete] == list(range(20))
    for number, (_, payload) in enumerate(two.handler.complete):
        assert bytes(payload) == bytes([number]) * 8392 + bytes([255 - number]) * 4096


async def test_a_resume_of_any_length_arrives_whole(site) -> None:
    one, two = await pair(site)
    presence = m.VolumePresence(b"v" * 16, pack_regions(range(200_000)), b"")
    resume = m.Resume(GROUP, SYNC, 1, (presence,), ())
    await one.links.get("paris").send(resume)
    await two.news.until(lambda: two.handler.messages == [resume], "the whole RESUME")


async def test_what_was_sent_before_a_close_is_delivered(site) -> None:
    one, two = await pair(site)
    link = one.links.get("paris")
    for number in range(100):
        link.post(m.Landed(SYNC, 0, number))
    link.close("enough")
    await two.news.until(lambda: len(two.handler.messages) == 100, "all that was posted")
    assert link.closed.is_set()
    with pytest.raises(PeerUnreachable):
        await link.send(m.Flush(SYNC))
    link.post(m.Flush(SYNC))


async def test_a_link_that_broke_is_made_again(site) -> None:
    one, two = await pair(site)
    for number in range(2, 5):
        one.links.get("paris").close("the test pulls the plug")
        await one.news.until(lambda n=number: len(one.handler.links) == n, "another link at berlin")
        await two.news.until(lambda n=number: len(two.handler.links) == n, "another link at paris")
    assert one.handler.order == ["connected", "disconnected"] * 3 + ["connected"]


async def test_redial_drops_the_link_and_makes_another(site) -> None:
    one, _ = await pair(site)
    before = one.links.get("paris")
    one.links.redial("paris")
    after = await one.links.wait("paris", 5)
    assert before.closed.is_set()
    assert after is not before


async def test_a_site_that_comes_back_is_linked_again(site, tmp_path) -> None:
    one, two = await pair(site)
    port = two.links.port
    await two.links.close()
    await one.news.until(lambda: one.links.get("paris") is None, "the link is over")
    await one.hears("dial_failed")
    back = LinkedSite(tmp_path, "paris", b"\2" * 16, port=port)
    await back.links.start()
    back.links.set_peers([one.as_peer()])
    link = await one.links.wait("paris", 5)
    assert link.hello.session != two.links.hello().session
    await back.links.close()


async def test_a_removed_peer_loses_its_link_and_is_not_dialled_again(site) -> None:
    one, two = await pair(site)
    waiting = asyncio.ensure_future(one.links.wait("rome", 5))
    one.links.set_peers([])
    await two.news.until(lambda: two.links.get("berlin") is None, "paris sees the end")
    assert one.links.get("paris") is None
    with pytest.raises(UnknownName):
        await one.links.wait("paris", 5)
    with pytest.raises(UnknownName):
        await waiting
    await two.hears("peer_refused")
    assert (await one.hears("unknown_peer"))[3]["fingerprint"] == two.identity.fingerprint


async def test_who_waits_for_a_removed_peer_is_told_at_once(site) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    one.links.set_peers([two.as_peer(address="127.0.0.1:1")])
    waiting = asyncio.ensure_future(one.links.wait("paris", 60))
    await one.hears("dial_failed")
    one.links.set_peers([])
    with pytest.raises(PeerUnreachable):
        await waiting


async def test_waiting_for_a_peer_that_is_away_ends_with_its_name(site) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    one.links.set_peers([two.as_peer(address="127.0.0.1:1")])
    with pytest.raises(PeerUnreachable, match="paris"):
        await one.links.wait("paris", 0.1)
    event = await one.hears("dial_failed")
    assert "127.0.0.1:1" in event[2]
    assert one.codes.count("dial_failed") == 1, "said once, not at every attempt"


async def test_an_id_that_was_learnt_does_not_disturb_the_link(site) -> None:
    one, two = await pair(site)
    link = one.links.get("paris")
    one.links.set_peers([two.as_peer(id=two.site.id)])
    assert one.links.get("paris") is link
    assert link.peer.id == two.site.id
    assert not link.closed.is_set()


async def test_an_error_of_the_handler_ends_the_link_and_the_peer_is_told(site) -> None:
    one, two = await pair(site)
    two.handler.failure = LayerSpace(path="/data/x")
    here = one.links.get("paris")
    await here.send(m.Flush(SYNC))
    await one.news.until(here.closed.is_set, "the link is over")
    assert here.error.cause == "layer_space"
    assert "Free space" in here.error.advice
    assert (await two.hears("layer_space"))[0] == "warning"
    two.handler.failure = None
    await one.links.wait("paris", 5)


async def test_a_refusal_about_a_group_is_a_message_like_any_other(site) -> None:
    one, two = await pair(site)
    refused = m.Refused(GROUP, None, "refused_by_state", "No.", "Look.", {})
    await one.links.get("paris").send(refused)
    await two.news.until(lambda: two.handler.messages == [refused], "the refusal")
    assert two.links.get("berlin") is not None


async def test_pings_go_both_ways_and_are_timed(site) -> None:
    one, two = await pair(site)
    links = [one.links.get("paris"), two.links.get("berlin")]
    sent = [link.bytes_sent for link in links]
    await links[0].send(m.Landed(SYNC, 0, 0))

    def both_timed() -> bool:
        for link in links:  # a message wakes the other's wait: pings themselves are no news
            link.post(m.Landed(SYNC, 0, 0))
        return all(link.rtt_s is not None for link in links)

    await two.news.until(both_timed, "a round trip on both sides")
    assert all(link.bytes_sent > before for link, before in zip(links, sent, strict=True))


@pytest.mark.parametrize("plain", [False, True])
async def test_both_ends_count_the_same_bytes(site, plain) -> None:
    one, two = await site("berlin", 1, timing=PATIENT), await site("paris", 2, timing=PATIENT)
    acquaint(one, two, plain=plain)
    here, there = await asyncio.gather(one.links.wait("paris", 5), two.links.wait("berlin", 5))
    before = here.bytes_total
    await here.send(m.Data(SYNC, 0, "plain", 128), [bytes(128), bytes(4 << 20)])
    await two.news.until(lambda: two.handler.complete, "the payload")
    moved = here.bytes_total - before
    assert here.bytes_total == there.bytes_total
    assert here.bytes_sent == there.bytes_received
    assert 4 << 20 < moved < (4 << 20) * (1.001 if plain else 1.003)


PATIENT = dataclasses.replace(QUICK, ping_s=60.0)


async def test_a_taken_port_is_one_clear_error(site, tmp_path) -> None:
    one = await site("berlin", 1)
    with pytest.raises(PortTaken) as caught:
        await site("paris", 2, port=one.links.port)
    assert str(one.links.port) in caught.value.message


async def test_closing_leaves_no_task_and_no_socket(tmp_path) -> None:
    before = asyncio.all_tasks()
    one, two = LinkedSite(tmp_path, "berlin", b"\1" * 16), LinkedSite(tmp_path, "paris", b"\2" * 16)
    await one.links.start()
    await two.links.start()
    acquaint(one, two)
    link = await one.links.wait("paris", 5)
    await asyncio.gather(one.links.close(), two.links.close())
    await link.gone()
    assert asyncio.all_tasks() == before
    again = Links(
        site=one.site,
        identity=one.identity,
        listen=("127.0.0.1", 0),
        handler=one.handler,
        report=lambda *event: None,
        clock=SystemClock(),
    )
    await again.start()
    await again.close()
