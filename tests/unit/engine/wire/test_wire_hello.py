"""HELLO: both ends compute the same agreement, and agree which of two crossing connections stays."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import HandshakeFailed, PeerRefused, PeerUnknown, ProtocolVersion, WireDamaged
from engine.wire.codec import Decoder, encode
from engine.wire.hello import VERSION, agree, expect_hello, gives_way, refused_by
from engine.wire.messages import Hello, Ping

LOW, HIGH = b"\x01" * 16, b"\x02" * 16


def hello(site: bytes = LOW, **changed: object) -> Hello:
    base = Hello(VERSION, (), ("plain", "lz4", "zstd"), site, "site", b"s" * 16, 1, "SHA256:00", "")
    return msgspec.structs.replace(base, **changed)


words = st.lists(st.sampled_from(["plain", "lz4", "zstd", "brotli", "x"]), max_size=5).map(tuple)


@given(words, words, words, words, st.integers(1, 9), st.integers(1, 9))
def test_both_ends_agree_on_the_same(codecs_a, codecs_b, features_a, features_b, version_a, version_b) -> None:  # type: ignore[no-untyped-def]
    a = hello(LOW, codecs=codecs_a, features=features_a, version=version_a)
    b = hello(HIGH, codecs=codecs_b, features=features_b, version=version_b)
    assert agree(a, b) == agree(b, a)
    assert agree(a, b).codecs[0] == "plain"


def test_codecs_that_only_one_side_has_are_not_used() -> None:
    assert agree(hello(), hello(HIGH, codecs=("lz4", "brotli"))).codecs == ("plain", "lz4")


def test_a_newer_peer_is_spoken_to_in_the_older_version() -> None:
    assert agree(hello(), hello(HIGH, version=VERSION + 5)).version == VERSION


def test_a_version_that_is_spoken_no_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.wire.hello.OLDEST_VERSION", VERSION + 1)
    with pytest.raises(ProtocolVersion):
        agree(hello(), hello(HIGH))


def test_a_site_that_dials_itself_is_refused() -> None:
    with pytest.raises(HandshakeFailed, match="this site itself"):
        agree(hello(), hello())


def test_the_first_message_is_hello_or_a_refusal() -> None:
    assert expect_hello(hello(), "paris") == hello()
    with pytest.raises(WireDamaged):
        expect_hello(Ping(1), "paris")
    told = PeerUnknown(address="1.2.3.4:5", site="paris", fingerprint="SHA256:00")
    with pytest.raises(PeerRefused) as caught:
        expect_hello(refused_by(told), "berlin")
    assert caught.value.cause == "unknown_peer"
    assert told.advice in caught.value.advice


def test_crossing_connections_leave_that_of_the_lower_site_at_both_ends() -> None:
    low, high = hello(LOW), hello(HIGH)
    assert gives_way(low, high, None, is_dialling=True), "at the lower site, the one that came in"
    assert not gives_way(high, low, None, is_dialling=True), "at the higher site, the own one"


def test_a_hello_older_than_the_link_gives_way_to_it() -> None:
    standing = hello(LOW, number=5)
    assert gives_way(hello(HIGH), hello(LOW, number=4), standing, is_dialling=False)
    assert not gives_way(hello(HIGH), hello(LOW, number=6), standing, is_dialling=False)
    restarted = hello(LOW, number=1, session=b"t" * 16)
    assert not gives_way(hello(HIGH), restarted, standing, is_dialling=False), "a restarted peer counts from 1"


def test_a_refusal_fits_the_header_of_a_hello_whatever_the_error_says() -> None:
    refused = refused_by(PeerUnknown(address="ä" * 5000, site="€" * 5000, fingerprint="\U0001f600" * 5000))
    decoder = Decoder(lambda data, length: [])
    assert list(decoder.feed(encode(refused))) == [refused]
