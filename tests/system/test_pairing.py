"""Two real daemons become peers by one command on each side; whoever else comes with a token, or without, does not."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.link import identity
from engine.link.tls import client_context
from engine.wire import invitation
from engine.wire import messages as m
from engine.wire.codec import Decoder, encode
from rig.daemon import LEEWARD, Daemon
from rig.tls_proxy import TlsProxy
from rig.until import until


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """east, which invites, and west: running, strangers to each other."""
    with Daemon(tmp_path / "east", "east") as east, Daemon(tmp_path / "west", "west") as west:
        yield east, west


@pytest.fixture
def north(tmp_path: Path) -> Iterator[Daemon]:
    """A third site."""
    with Daemon(tmp_path / "north", "north") as made:
        yield made


def peers_of(site: Daemon) -> dict[str, str]:
    return {peer["name"]: peer["fingerprint"] for peer in site.run("peer", "list")}


def are_connected(*sites: Daemon) -> bool:
    return all(peer["connected"] for site in sites for peer in site.run("peer", "list"))


def codes(site: Daemon) -> list[str]:
    return [event["code"] for event in site.events()]


def hears(site: Daemon, code: str) -> dict[str, object]:
    """The event with this code; it has a remedy, wherever it came from a connection."""
    until(lambda: code in codes(site), f"{site.name} reports {code}")
    return next(event for event in site.events() if event["code"] == code)


def refused(site: Daemon, token: str, cause: str, *words: str) -> dict[str, object]:
    """A join that the other side refuses with `cause`: told here, with a remedy."""
    error = site.fails("peer", "join", token, *words, status=4)
    assert (error["code"], error["details"]["cause"]) == ("peer_refused", cause), error
    assert error["details"]["cure"]
    return error


def changed(token: str, **fields: object) -> str:
    return invitation.write(replace(invitation.read(token), **fields))


def kept_by(site: Daemon) -> bytes:
    """Every byte of the records and of the log."""
    return b"".join(path.read_bytes() for path in site.data.glob("meta.db*")) + site.log().encode()


def test_one_command_on_each_side_makes_two_sites_peers(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    invited = east.run("peer", "invite", "west")
    assert invited["fingerprint"] == east.fingerprint
    assert invited["addresses"] == [east.listen]
    joined = west.run("peer", "join", invited["token"])
    assert (joined["name"], joined["address"], joined["fingerprint"]) == ("east", east.listen, east.fingerprint)
    assert peers_of(east) == {"west": west.fingerprint}
    until(lambda: are_connected(east, west), "the two are connected")
    assert [peer["address"] for peer in east.run("peer", "list")] == [west.listen]
    assert not {"unknown_peer", "peer_refused"} & {*codes(east), *codes(west)}, "neither knew the other too late"


def test_the_token_and_the_secret_are_in_no_record_and_no_log(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    west.fails("peer", "join", changed(token, addresses=("127.0.0.1:1",)), status=1)
    west.run("peer", "join", token)
    secret = invitation.read(token).secret
    for site in sites:
        kept = kept_by(site)
        assert b"peer_paired" in kept
        for part in (token.encode(), secret, secret.hex().encode()):
            assert part not in kept
    assert invitation.key_of(secret) not in kept_by(west)


def test_a_token_is_read_from_standard_input_and_names_may_be_chosen(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    words = east.text("peer", "invite", "second", "--valid", "5m", "--address", east.listen).split()
    (printed,) = (word for word in words if word.startswith("leeward1"))
    command = [LEEWARD, "peer", "join", "-", "--name", "first", "--data", str(west.data), "--json"]
    done = subprocess.run(
        command, input=f"{printed[:40]}\n{printed[40:]}\n", text=True, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["name"] == "first"
    assert (peers_of(east), peers_of(west)) == ({"second": west.fingerprint}, {"first": east.fingerprint})


def test_an_invitation_and_a_pairing_outlive_sigkill(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    east.restart()
    west.run("peer", "join", token)
    for site in sites:
        site.restart()
    until(lambda: are_connected(east, west), "the two are connected")
    assert west.run("peer", "join", token)["name"] == "east", "again is no mistake"


def test_a_used_token_lets_nobody_else_in(sites: tuple[Daemon, Daemon], north: Daemon) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    west.run("peer", "join", token)
    refused(north, token, "invitation_used")
    event = hears(east, "invitation_used")
    assert event["details"]["fingerprint"] == north.fingerprint
    assert event["details"]["user"] == west.fingerprint
    assert "peer remove west" in event["details"]["remedy"]
    assert peers_of(east) == {"west": west.fingerprint}
    assert peers_of(north) == {}


def test_a_stolen_token_that_expired_lets_nobody_in(sites: tuple[Daemon, Daemon], north: Daemon) -> None:
    east, west = sites
    invited = east.run("peer", "invite", "west", "--valid", "1s")
    until(lambda: datetime.now(UTC) > datetime.fromisoformat(invited["expires_at"]), "it is over")
    for site in (north, west):
        refused(site, invited["token"], "invitation_expired")
        assert peers_of(site) == {}
    assert hears(east, "invitation_expired")["details"]["remedy"]
    assert peers_of(east) == {}
    east.run("peer", "invite", "other")
    with closing(sqlite3.connect(copied(east) / "meta.db")) as records:
        keys = dict(records.execute("SELECT peer, length(key) FROM invitation"))
    assert keys == {"west": 0, "other": 32}, "what proves an invitation is wiped when it is over"


def copied(site: Daemon) -> Path:
    """The records as a power cut would leave them."""
    site.kill()
    copy = site.folder / "copy"
    copy.mkdir()
    for path in site.data.glob("meta.db*"):
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_after_its_life_even_the_site_that_used_a_token_is_refused(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    invited = east.run("peer", "invite", "west", "--valid", "3s")
    west.run("peer", "join", invited["token"])
    until(lambda: datetime.now(UTC) > datetime.fromisoformat(invited["expires_at"]), "it is over")
    refused(west, invited["token"], "invitation_expired")
    assert peers_of(west) == {"east": east.fingerprint}, "what is paired stays paired"


def test_a_peer_that_was_removed_does_not_come_back_by_its_old_token(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    west.run("peer", "join", token)
    east.run("peer", "remove", "west")
    refused(west, token, "invitation_used")
    assert peers_of(east) == {}


def test_a_newer_invitation_for_the_same_name_ends_the_older(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    older, newer = (east.run("peer", "invite", "west")["token"] for _ in range(2))
    refused(west, older, "invitation_unknown")
    assert hears(east, "invitation_unknown")["details"]["fingerprint"] == west.fingerprint
    west.run("peer", "join", newer)


def test_a_token_of_another_site_and_a_wrong_secret_are_not_known(sites: tuple[Daemon, Daemon], north: Daemon) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    refused(west, changed(token, secret=b"?" * 16), "invitation_unknown")
    theirs = invitation.read(north.run("peer", "invite", "west")["token"])
    refused(west, changed(token, secret=theirs.secret), "invitation_unknown")
    assert peers_of(east) == peers_of(west) == {}
    west.run("peer", "join", token)


def test_who_answers_with_another_fingerprint_is_told_nothing(sites: tuple[Daemon, Daemon], north: Daemon) -> None:
    east, west = sites
    token = changed(east.run("peer", "invite", "west")["token"], addresses=(north.listen,))
    error = west.fails("peer", "join", token, status=4)
    assert error["code"] == "inviter_wrong"
    assert (error["details"]["expected"], error["details"]["found"]) == (east.fingerprint, north.fingerprint)
    assert "inviter_wrong" in codes(west), "said at the side that refused"
    told = hears(north, "peer_refused")
    assert told["details"]["cause"] == "inviter_wrong"
    assert peers_of(west) == peers_of(north) == {}


def test_an_inviter_that_is_not_reachable_is_named_and_tried_again_with_the_same_token(
    sites: tuple[Daemon, Daemon],
) -> None:
    east, west = sites
    with TlsProxy(east.listen) as proxy:
        token = east.run("peer", "invite", "west", "--address", "127.0.0.1:1", "--address", proxy.address)["token"]
        proxy.is_down = True
        error = west.fails("peer", "join", token, status=1)
        assert error["code"] == "inviter_unreachable"
        assert error["details"]["address"] == proxy.address
        assert "inviter_unreachable" in codes(west)
        proxy.is_down = False
        assert west.run("peer", "join", token)["address"] == proxy.address, "the first address that answers"


def test_a_name_that_is_taken_is_refused_where_it_is_taken(sites: tuple[Daemon, Daemon], north: Daemon) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    add = ("--address", north.listen, "--fingerprint", north.fingerprint)
    west.run("peer", "add", "east", *add)
    assert west.fails("peer", "join", token, status=4)["code"] == "name_taken"
    east.run("peer", "add", "west", *add)
    refused(west, token, "invitation_name_taken", "--name", "real-east")
    assert hears(east, "invitation_name_taken")["details"]["remedy"]
    assert east.fails("peer", "invite", "west", status=4)["code"] == "name_taken"
    east.run("peer", "remove", "west")
    west.run("peer", "join", token, "--name", "real-east")
    assert peers_of(east) == {"west": west.fingerprint}


def test_sites_that_are_peers_already_are_told_under_which_name(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    west.run("peer", "join", east.run("peer", "invite", "west")["token"])
    again = east.run("peer", "invite", "west2")["token"]
    error = refused(west, again, "already_paired")
    assert "the peer west of site east" in str(error["message"])
    assert hears(east, "already_paired")["details"]["remedy"]
    error = west.fails("peer", "join", again, "--name", "other", status=4)
    assert (error["code"], error["details"]["peer"]) == ("already_paired", "east")
    assert (peers_of(east), peers_of(west)) == ({"west": west.fingerprint}, {"east": east.fingerprint})


def test_a_side_that_forgot_the_other_is_paired_again(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    west.run("peer", "join", east.run("peer", "invite", "west")["token"])
    east.run("peer", "remove", "west")
    west.run("peer", "join", east.run("peer", "invite", "west")["token"])
    until(lambda: are_connected(east, west) and peers_of(east), "the two are connected")


def test_what_is_no_token_is_one_line_and_says_nothing_of_it(sites: tuple[Daemon, Daemon]) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    letter = "a" if token[30] != "a" else "b"
    for wrong in ("", "token", token[:-1], token[:30] + letter + token[31:], token + "a", "leeward1", "leeward1!ü"):
        error = west.fails("peer", "join", wrong, status=2)
        assert error["code"] == "bad_value"
        assert "\n" not in error["message"]
        assert not wrong or len(wrong) < 10 or wrong not in json.dumps(error)
    assert east.fails("peer", "join", token, status=2)["code"] == "bad_value", "its own"
    for words in (("--valid", "11m"), ("--valid", "0s"), ("--address", "nowhere"), ("--address", "0.0.0.0:7450")):
        assert east.fails("peer", "invite", "x", *words, status=2)["code"] in ("bad_value", "usage")
    assert west.fails("peer", "join", token, "--address", "west.example:0", status=2)["code"] == "bad_value"
    assert east.fails("peer", "invite", "no name", status=2)["code"] == "bad_value"
    west.run("peer", "join", token)


# Somebody who speaks the protocol by himself


def said_to(site: Daemon, who: identity.Identity, pair: m.Pair) -> list[m.Message]:
    """What the site answers to this PAIR on a connection with that certificate, until it closes."""

    async def talk() -> list[m.Message]:
        host, port = site.listen.split(":")
        reader, writer = await asyncio.open_connection(host, port, ssl=client_context(who), server_hostname="")
        writer.write(encode(pair))
        data = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return list(Decoder(lambda *_: []).feed(data))

    return asyncio.run(talk())


def pair_of(token: str, joiner: str, **fields: object) -> m.Pair:
    """The PAIR that the holder of the token says for the certificate `joiner`."""
    read = invitation.read(token)
    key = invitation.key_of(read.secret)
    proof = invitation.proof(key, "joiner", inviter=read.fingerprint, joiner=joiner)
    told = {"version": 1, "invitation": invitation.id_of(read.secret), "site_id": b"s" * 16, "site_name": "rome"}
    return m.Pair(**{**told, "address": "127.0.0.1:9", "proof": proof, **fields})  # type: ignore[arg-type]


def test_a_pair_that_was_overheard_is_worth_nothing_and_attempts_are_counted(
    sites: tuple[Daemon, Daemon], tmp_path: Path
) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    thief = identity.create(tmp_path / "thief", "west")
    overheard = pair_of(token, west.fingerprint)
    for number in range(5):
        if number == 3:
            east.restart()  # the count is no matter of memory
        (answer,) = said_to(east, thief, overheard)
        assert isinstance(answer, m.Refused)
        assert answer.code == "invitation_wrong"
    (answer,) = said_to(east, thief, pair_of(token, thief.fingerprint))
    assert isinstance(answer, m.Refused)
    assert answer.code == "invitation_closed"
    for code in ("invitation_wrong", "invitation_closed"):
        event = hears(east, code)
        assert event["details"]["fingerprint"] == thief.fingerprint
        assert event["details"]["remedy"]
    refused(west, token, "invitation_closed")
    assert peers_of(east) == {}


def test_a_proof_of_the_wrong_role_is_none(sites: tuple[Daemon, Daemon], tmp_path: Path) -> None:
    east, _ = sites
    token = east.run("peer", "invite", "rome")["token"]
    rome = identity.create(tmp_path / "rome", "rome")
    key = invitation.key_of(invitation.read(token).secret)
    mirrored = invitation.proof(key, "inviter", inviter=east.fingerprint, joiner=rome.fingerprint)
    (answer,) = said_to(east, rome, pair_of(token, rome.fingerprint, proof=mirrored))
    assert isinstance(answer, m.Refused)
    assert answer.code == "invitation_wrong"
    (answer,) = said_to(east, rome, pair_of(token, rome.fingerprint))
    assert isinstance(answer, m.Paired)
    assert answer.proof == mirrored


# Cut between the steps


def asked_and_unheard(proxy: TlsProxy, east: Daemon, west: Daemon, token: str) -> subprocess.Popen[str]:
    """west has asked, east has written it down, and the answer is lost."""
    proxy.is_mute = True
    command = west.spawn("peer", "join", token)
    until(lambda: peers_of(east) == {"west": west.fingerprint} and proxy.swallowed, "the answer was swallowed")
    assert peers_of(west) == {}
    return command


def mended(proxy: TlsProxy, east: Daemon, west: Daemon, token: str) -> None:
    """The same join again does what is missing."""
    proxy.cut()
    proxy.is_mute = False
    assert west.run("peer", "join", token)["fingerprint"] == east.fingerprint
    until(lambda: are_connected(east, west), "the two are connected")
    assert (peers_of(east), peers_of(west)) == ({"west": west.fingerprint}, {"east": east.fingerprint})


def test_a_lost_answer_is_mended_by_the_same_join(sites: tuple[Daemon, Daemon], north: Daemon) -> None:
    east, west = sites
    with TlsProxy(east.listen) as proxy:
        token = east.run("peer", "invite", "west", "--address", proxy.address)["token"]
        command = asked_and_unheard(proxy, east, west, token)
        proxy.cut()
        out, _ = command.communicate(timeout=30)
        assert json.loads(out)["error"]["code"] == "inviter_unreachable"
        assert "same token" in json.loads(out)["error"]["remedy"]
        proxy.is_mute = False
        refused(north, token, "invitation_used")
        mended(proxy, east, west, token)


@pytest.mark.parametrize("killed", ["east", "west", "both"])
def test_a_sigkill_between_the_two_commits_is_mended_by_the_same_join(
    sites: tuple[Daemon, Daemon], killed: str
) -> None:
    east, west = sites
    with TlsProxy(east.listen) as proxy:
        token = east.run("peer", "invite", "west", "--address", proxy.address)["token"]
        command = asked_and_unheard(proxy, east, west, token)
        for site in sites:
            if killed in (site.name, "both"):
                site.kill()
        proxy.cut()
        command.communicate(timeout=30)
        assert command.returncode != 0
        for site in sites:
            if killed in (site.name, "both"):
                site.start()
        mended(proxy, east, west, token)


MOMENTS = {
    "it was asked": lambda east, west: any(job["kind"] == "peer_join" for job in west.run("jobs")),
    "the inviter has written it down": lambda east, west: peers_of(east),
    "the joiner has written it down": lambda east, west: peers_of(west),
}


@pytest.mark.parametrize("victim", [0, 1], ids=["east", "west"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sigkill_of_either_is_mended_whatever_was_reached(
    sites: tuple[Daemon, Daemon], moment: str, victim: int
) -> None:
    east, west = sites
    token = east.run("peer", "invite", "west")["token"]
    command = west.spawn("peer", "join", token)
    until(lambda: MOMENTS[moment](east, west), moment)
    sites[victim].restart()
    command.communicate(timeout=30)
    west.run("peer", "join", token)
    until(lambda: are_connected(east, west), "the two are connected")
    assert (peers_of(east), peers_of(west)) == ({"west": west.fingerprint}, {"east": east.fingerprint})
