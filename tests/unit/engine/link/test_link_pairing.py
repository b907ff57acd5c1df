"""One PAIR and one answer: what else a stranger says with it ends the connection, and nobody becomes a link by it."""

from __future__ import annotations

import asyncio

import pytest
from linked_sites import LinkedSite
from test_link_refusals import Caller, calling, hello_of

from engine.errors import InviterUnreachable, InviterWrong, NameTaken, PeerRefused
from engine.link import identity
from engine.link.identity import Identity
from engine.wire import messages as m

PAIR = m.Pair(1, b"i" * 16, b"s" * 16, "rome", "127.0.0.1:9", b"p" * 32)
PAIRED = m.Paired(b"i" * 16, b"t" * 16, "berlin", b"q" * 32)


class Desk:
    """Answers PAIRs as it is told, when it is told."""

    def __init__(self, site: LinkedSite) -> None:
        self.site = site
        self.asked: list[tuple[m.Pair, str, str]] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None
        site.links.pairing.welcome(self.welcome)

    async def welcome(self, pair: m.Pair, fingerprint: str, address: str) -> m.Paired:
        self.asked.append((pair, fingerprint, address))
        self.site.news.heard()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return PAIRED


@pytest.fixture
def rome(tmp_path) -> Identity:  # type: ignore[no-untyped-def]
    return identity.create(tmp_path / "identity of rome", "rome")


async def said(caller: Caller) -> list[m.Message]:
    heard = await caller.hear()
    await caller.hear_end()
    return heard


async def test_a_pair_is_handed_on_with_the_certificate_that_tls_showed(site, rome) -> None:
    berlin = await site("berlin", 1)
    desk = Desk(berlin)
    desk.go.set()
    async with calling(berlin, rome) as caller:
        caller.say(PAIR)
        assert await said(caller) == [PAIRED]
    ((pair, fingerprint, _),) = desk.asked
    assert (pair, fingerprint) == (PAIR, rome.fingerprint)
    assert not berlin.handler.links
    assert not berlin.events


async def test_a_refusal_is_told_at_both_sides(site, rome) -> None:
    berlin = await site("berlin", 1)
    desk = Desk(berlin)
    desk.error = NameTaken(what="peer", name="rome")
    desk.go.set()
    async with calling(berlin, rome) as caller:
        caller.say(PAIR)
        (answer,) = await said(caller)
    assert isinstance(answer, m.Refused)
    assert answer.code == "name_taken"
    assert (await berlin.hears("name_taken"))[3]["remedy"]


async def test_a_fault_of_ours_is_answered_and_kept_to_ourselves(site, rome) -> None:
    berlin = await site("berlin", 1)
    loop = asyncio.get_running_loop()
    faults: list[object] = []
    loop.set_exception_handler(lambda _, context: faults.append(context.get("exception")))
    desk = Desk(berlin)
    desk.error = ZeroDivisionError("secret words")
    desk.go.set()
    async with calling(berlin, rome) as caller:
        caller.say(PAIR)
        (answer,) = await said(caller)
    assert isinstance(answer, m.Refused)
    assert answer.code == "internal"
    assert "secret words" not in answer.message


@pytest.mark.parametrize("second", [PAIR, "hello", m.Paired(b"i" * 16, b"s" * 16, "rome", b"p" * 32)])
async def test_a_second_message_before_the_answer_ends_it(site, rome, second) -> None:
    berlin = await site("berlin", 1)
    desk = Desk(berlin)
    async with calling(berlin, rome) as caller:
        caller.say(PAIR)
        await berlin.news.until(lambda: desk.asked, "it is asked")
        caller.say(hello_of(rome) if second == "hello" else second)
        (answer,) = await said(caller)
    assert isinstance(answer, m.Refused)
    assert answer.code == "wire_damaged"
    desk.go.set()
    assert len(desk.asked) == 1
    assert not berlin.handler.links


@pytest.mark.parametrize("message", [PAIRED, m.Ping(1), m.GroupWithdrawn(b"g" * 16)])
async def test_a_stranger_says_nothing_but_hello_and_pair(site, rome, message) -> None:
    berlin = await site("berlin", 1)
    Desk(berlin).go.set()
    async with calling(berlin, rome) as caller:
        caller.say(message)
        (answer,) = await said(caller)
    assert isinstance(answer, m.Refused)
    assert answer.code == "wire_damaged"


async def test_a_pair_without_tls_is_refused(site) -> None:
    berlin = await site("berlin", 1)
    desk = Desk(berlin)
    async with calling(berlin, None) as caller:
        caller.say(PAIR)
        (answer,) = await said(caller)
    assert isinstance(answer, m.Refused)
    assert "TLS" in answer.message
    assert not desk.asked


async def test_a_site_that_invites_nobody_knows_no_invitation(site, rome) -> None:
    berlin = await site("berlin", 1)
    async with calling(berlin, rome) as caller:
        caller.say(PAIR)
        (answer,) = await said(caller)
    assert isinstance(answer, m.Refused)
    assert answer.code == "invitation_unknown"
    assert (await berlin.hears("invitation_unknown"))[3]["fingerprint"] == rome.fingerprint


async def test_a_joiner_asks_and_is_answered(site) -> None:
    berlin, paris = await site("berlin", 1), await site("paris", 2)
    desk = Desk(berlin)
    desk.go.set()
    hosts: list[str] = []

    def make(host: str) -> m.Pair:
        hosts.append(host)
        return PAIR

    where = ("127.0.0.1:1", berlin.address)
    answer, address = await paris.links.pairing.ask(where, berlin.identity.fingerprint, "berlin", make)
    assert (answer, address, hosts) == (PAIRED, berlin.address, ["127.0.0.1"])
    assert desk.asked[0][1] == paris.identity.fingerprint


async def test_a_joiner_says_nothing_to_another_fingerprint(site, rome) -> None:
    berlin, paris = await site("berlin", 1), await site("paris", 2)
    desk = Desk(berlin)
    with pytest.raises(InviterWrong):
        await paris.links.pairing.ask((berlin.address, "127.0.0.1:1"), rome.fingerprint, "rome", lambda _: PAIR)
    told = await berlin.hears("peer_refused")
    assert told[3]["cause"] == "inviter_wrong"
    assert not desk.asked


async def test_a_joiner_is_told_why_it_is_refused_or_that_nobody_answers(site) -> None:
    berlin, paris = await site("berlin", 1), await site("paris", 2)
    desk = Desk(berlin)
    desk.error = NameTaken(what="peer", name="paris")
    desk.go.set()
    with pytest.raises(PeerRefused, match="named paris already"):
        await paris.links.pairing.ask((berlin.address,), berlin.identity.fingerprint, "berlin", lambda _: PAIR)
    with pytest.raises(InviterUnreachable):
        await paris.links.pairing.ask(("127.0.0.1:1",), berlin.identity.fingerprint, "berlin", lambda _: PAIR)


async def test_an_inviter_that_dials_before_we_wrote_it_down_is_put_off_without_an_event(site, rome) -> None:
    paris = await site("paris", 2)
    with paris.links.pairing.joining(rome.fingerprint):
        async with calling(paris, rome) as caller:
            caller.say(hello_of(rome))
            (answer,) = await said(caller)
        assert isinstance(answer, m.Refused)
        assert answer.code == "link_crossed"
        assert not paris.events
    async with calling(paris, rome) as caller:
        caller.say(hello_of(rome))
        (answer,) = await said(caller)
    assert isinstance(answer, m.Refused)
    assert answer.code == "unknown_peer"
