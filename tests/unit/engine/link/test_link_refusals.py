"""Who is not let in, and what an operator then reads: one event at the side that refused, with a remedy."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trustme
from linked_sites import QUICK, LinkedSite

from engine.link import identity
from engine.link.identity import Identity
from engine.link.tls import client_context
from engine.model import SiteId
from engine.wire import messages as m
from engine.wire.codec import Decoder, encode
from engine.wire.hello import VERSION

SYNC = b"s" * 16


class Caller:
    """A client of the port that does as it is told: it is not one of our links."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder(lambda data, length: [memoryview(bytearray(length))])
        self.decoder.greeted = True

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.writer.write(encode(message))

    async def hear(self) -> list[m.Message]:
        """The next messages; none at the end of the stream."""
        while True:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            if not data:
                return []
            if found := list(self.decoder.feed(data)):
                return found

    async def hear_end(self) -> None:
        """Read until the other end closes."""
        with suppress(ConnectionResetError):  # it closed before it had read all
            while await self.hear():
                pass


@asynccontextmanager
async def calling(site: LinkedSite, as_who: Identity | None) -> AsyncIterator[Caller]:
    """A connection to the site's port, with TLS if `as_who` has an identity."""
    tls = client_context(as_who) if as_who else None
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.links.port, ssl=tls, server_hostname="" if tls else None
    )
    try:
        yield Caller(reader, writer)
    finally:
        writer.transport.abort()


def hello_of(who: Identity, **changed: object) -> m.Hello:
    base = m.Hello(VERSION, (), ("plain",), b"\7" * 16, "rome", b"n" * 16, 1, who.fingerprint, "test")
    return msgspec.structs.replace(base, **changed)


@pytest.fixture
def rome(tmp_path: Path) -> Identity:
    """An identity without a site."""
    return identity.create(tmp_path / "identity of rome", "rome")


@pytest.fixture
async def berlin(site, rome) -> LinkedSite:  # type: ignore[no-untyped-def]
    """A site that has rome as its only peer, at an address where nobody is."""
    made = await site("berlin", 1)
    made.links.set_peers([made.as_peer(name="rome", address="127.0.0.1:1", fingerprint=rome.fingerprint)])
    return made


async def test_a_caller_with_a_peers_key_is_let_in(berlin, rome) -> None:
    async with calling(berlin, rome) as caller:
        caller.say(hello_of(rome))
        (answer,) = await caller.hear()
        assert isinstance(answer, m.Hello)
        assert answer.fingerprint == berlin.identity.fingerprint
        assert (await berlin.links.wait("rome", 5)).hello.site_id == b"\7" * 16


async def test_an_unknown_peer_is_refused_and_both_sides_say_so(site) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    two.links.set_peers([one.as_peer()])
    level, _, message, details = await one.hears("unknown_peer")
    assert level == "warning"
    assert "paris" in message
    assert f"--fingerprint {two.identity.fingerprint}" in details["remedy"]
    told = await two.hears("peer_refused")
    assert "no peer here" in told[2]
    assert one.links.get("paris") is None
    assert not one.handler.links
    assert not two.handler.links


async def test_a_wrong_fingerprint_ends_the_call_before_a_word_is_said(site, rome) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    one.links.set_peers([two.as_peer(fingerprint=rome.fingerprint)])
    level, _, message, details = await one.hears("wrong_fingerprint")
    assert level == "error"
    assert details["expected"] == rome.fingerprint
    assert details["found"] == two.identity.fingerprint
    assert two.identity.fingerprint in message
    assert not one.handler.links
    assert one.codes.count("wrong_fingerprint") == 1


async def test_a_name_in_hello_does_not_stand_for_the_key_in_tls(berlin, rome, tmp_path) -> None:
    stranger = identity.create(tmp_path / "stranger", "rome")
    async with calling(berlin, stranger) as caller:
        caller.say(hello_of(rome))
        (answer,) = await caller.hear()
        assert isinstance(answer, m.Refused)
        assert answer.code == "unknown_peer"
        await caller.hear_end()
    assert (await berlin.hears("unknown_peer"))[3]["fingerprint"] == stranger.fingerprint


async def test_a_caller_without_a_certificate_is_refused(berlin) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", berlin.links.port, ssl=tls, server_hostname="")
    with suppress(ssl.SSLError, ConnectionError):
        assert await asyncio.wait_for(reader.read(1), 10) == b""
    writer.transport.abort()
    event = await berlin.hears("handshake_failed")
    assert "CERTIFICATE" in event[2]


async def test_a_certificate_of_another_authority_is_refused(berlin) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    authority.issue_cert("rome").configure_cert(tls)
    _, writer = await asyncio.open_connection("127.0.0.1", berlin.links.port, ssl=tls, server_hostname="")
    event = await berlin.hears("handshake_failed")
    writer.transport.abort()
    assert "CERTIFICATE" in event[2].upper()
    assert event[3]["remedy"]


async def test_tls_before_version_1_3_is_refused(berlin, rome) -> None:
    tls = client_context(rome)
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", berlin.links.port, ssl=tls, server_hostname="")
    await berlin.hears("handshake_failed")


async def test_plain_is_refused_unless_both_sides_say_so(site) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    one.links.set_peers([two.as_peer(address="127.0.0.1:1")])
    two.links.set_peers([one.as_peer(plain=True)])
    assert "--plain" in (await one.hears("plain_not_agreed"))[3]["remedy"]
    await two.hears("peer_refused")
    assert not one.handler.links


async def test_plain_beyond_loopback_is_never_dialled(site) -> None:
    one, two = await site("berlin", 1), await site("paris", 2)
    one.links.set_peers([two.as_peer(plain=True, address="192.0.2.1:7450")])
    level, _, message, details = await one.hears("plain_beyond_loopback")
    assert level == "error"
    assert "192.0.2.1" in message
    assert "--plain" in details["remedy"]


async def test_another_site_with_the_same_key_is_refused(berlin, rome) -> None:
    peer = berlin.as_peer(name="rome", address="127.0.0.1:1", fingerprint=rome.fingerprint, id=SiteId(b"\6" * 16))
    berlin.links.set_peers([peer])
    async with calling(berlin, rome) as caller:
        caller.say(hello_of(rome))
        (answer,) = await caller.hear()
        assert isinstance(answer, m.Refused)
        assert answer.code == "peer_site_changed"
    assert "0707" in (await berlin.hears("peer_site_changed"))[2]


async def test_a_site_that_was_given_itself_as_a_peer_says_so(site) -> None:
    one = await site("berlin", 1)
    one.links.set_peers([one.as_peer(name="paris")])
    assert "this site itself" in (await one.hears("handshake_failed"))[2]
    assert not one.handler.links


async def test_a_peer_with_a_protocol_of_the_past_is_refused(berlin, rome, monkeypatch) -> None:
    monkeypatch.setattr("engine.wire.hello.OLDEST_VERSION", VERSION + 1)
    async with calling(berlin, rome) as caller:
        caller.say(hello_of(rome))
        (answer,) = await caller.hear()
        assert isinstance(answer, m.Refused)
        assert answer.code == "protocol_version"


@pytest.mark.parametrize(
    "rubbish",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100, b"LWP2" + bytes(60), b"\x16" + b"x" * 99],
    ids=["http", "zeros", "other magic", "no TLS"],
)
async def test_rubbish_is_one_event_and_a_closed_connection(berlin, rubbish) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", berlin.links.port)
    writer.write(rubbish)
    with suppress(ConnectionResetError):
        while await asyncio.wait_for(reader.read(4096), 10):
            pass
    writer.transport.abort()
    await berlin.news.until(lambda: {"handshake_failed", "wire_damaged"} & set(berlin.codes), "one event")
    assert len([code for code in berlin.codes if code in ("handshake_failed", "wire_damaged")]) == 1


async def test_a_known_peer_that_sends_rubbish_loses_its_link_with_one_event(berlin, rome) -> None:
    for rubbish in (b"\0" * 64, encode(m.Ping(1))[:-1] + b"\xff", os.urandom(256), b"LWP1" + b"\xff" * 60):
        berlin.events.clear()
        async with calling(berlin, rome) as caller:
            caller.say(hello_of(rome, session=os.urandom(16)))
            await caller.hear()
            caller.writer.write(rubbish)
            told = await caller.hear()
            assert isinstance(told[-1], m.Refused)
            assert told[-1].code in ("wire_damaged", "wire_limit")
            assert berlin.links.get("rome") is None
            assert [code for code in berlin.codes if code.startswith("wire_")] == [told[-1].code]


async def test_messages_in_the_same_breath_as_hello_are_not_lost(berlin, rome) -> None:
    async with calling(berlin, rome) as caller:
        caller.say(hello_of(rome), m.Flush(SYNC), m.Landed(SYNC, 0, 1))
        await berlin.news.until(lambda: len(berlin.handler.messages) == 2, "both messages")


async def test_data_before_hello_is_refused_before_memory_is_asked_for(berlin, rome) -> None:
    async with calling(berlin, rome) as caller:
        caller.writer.write(encode(m.Data(SYNC, 0, "plain", 128), 128 + 4096))
        (answer,) = await caller.hear()
        assert isinstance(answer, m.Refused)
    assert not berlin.handler.payloads


async def test_a_second_hello_ends_the_link(berlin, rome) -> None:
    async with calling(berlin, rome) as caller:
        caller.say(hello_of(rome), hello_of(rome, number=2))
        await caller.hear_end()
    await berlin.hears("wire_damaged")


async def test_a_hello_ends_the_older_link_of_its_peer_before_it_is_answered(berlin, rome) -> None:
    async with calling(berlin, rome) as older, calling(berlin, rome) as newer:
        older.say(hello_of(rome))
        await older.hear()
        newer.say(hello_of(rome, session=b"m" * 16))
        assert isinstance((await newer.hear())[0], m.Hello)
        assert berlin.handler.order == ["connected", "disconnected", "connected"]
        await older.hear_end()
        older.say(m.Flush(SYNC))
        newer.say(m.Landed(SYNC, 0, 0))
        await berlin.news.until(lambda: berlin.handler.messages, "the newer link's message")
        assert berlin.handler.messages == [m.Landed(SYNC, 0, 0)]


async def test_a_connection_that_the_link_has_overtaken_gives_way(berlin, rome) -> None:
    async with calling(berlin, rome) as first, calling(berlin, rome) as late:
        first.say(hello_of(rome, number=5))
        await first.hear()
        late.say(hello_of(rome, number=4))
        (answer,) = await late.hear()
        assert isinstance(answer, m.Refused)
        assert answer.code == "link_crossed"
        assert berlin.handler.order == ["connected"]
        assert "link_crossed" not in berlin.codes, "this is no news for an operator"


async def test_a_peer_that_falls_silent_is_given_up(berlin, rome) -> None:
    async with calling(berlin, rome) as caller:
        caller.say(hello_of(rome))
        await caller.hear()
        event = await berlin.hears("link_silent")
        assert "0.25 s" in event[2]
        assert berlin.links.get("rome") is None
        await caller.hear_end()


async def test_a_peer_that_sends_and_never_reads_loses_its_link(berlin, rome, monkeypatch) -> None:
    monkeypatch.setattr("engine.link.transport.BACKLOG_BYTES", 100_000)
    async with calling(berlin, rome) as caller:
        caller.writer.transport.pause_reading()
        caller.say(hello_of(rome))
        await berlin.links.wait("rome", 5)
        flood = encode(m.Ping(1)) * 2000
        while "link_stuck" not in berlin.codes:
            caller.writer.write(flood)
            try:
                await asyncio.wait_for(caller.writer.drain(), 10)
            except ConnectionError:
                break
        await berlin.hears("link_stuck")


async def test_strangers_beyond_the_limit_of_an_address_are_dropped(site) -> None:
    timing = dataclasses.replace(QUICK, stranger_s=60.0)
    one = await site("berlin", 1, timing=timing)
    calls = [await asyncio.open_connection("127.0.0.1", one.links.port) for _ in range(4)]
    reader, writer = await asyncio.open_connection("127.0.0.1", one.links.port)
    assert await asyncio.wait_for(reader.read(1), 10) == b""
    assert (await one.hears("too_many_strangers"))[3]["limit"] == 4
    calls[0][1].transport.abort()
    again = await asyncio.open_connection("127.0.0.1", one.links.port)
    for _, other in [*calls, again, (reader, writer)]:
        other.transport.abort()


async def test_a_stranger_that_says_nothing_is_sent_away(site) -> None:
    one = await site("berlin", 1, timing=dataclasses.replace(QUICK, stranger_s=0.1))
    reader, writer = await asyncio.open_connection("127.0.0.1", one.links.port)
    assert await asyncio.wait_for(reader.read(1), 10) == b""
    assert "0.1 s" in (await one.hears("handshake_failed"))[2]
    writer.transport.abort()


async def test_a_stranger_that_stops_after_tls_is_sent_away(site, rome) -> None:
    one = await site("berlin", 1, timing=dataclasses.replace(QUICK, stranger_s=0.3))
    async with calling(one, rome) as caller:
        await caller.hear_end()
    await one.hears("handshake_failed")


async def test_a_port_that_is_only_probed_is_no_event(berlin) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", berlin.links.port)):
            pass
    async with calling(berlin, None) as caller:
        caller.writer.write(b"?")
        await caller.hear_end()
    await berlin.hears("handshake_failed")
    assert [code for code in berlin.codes if code != "dial_failed"] == ["handshake_failed"]
