"""Addresses of links: HOST:PORT, and what counts as this host."""

from __future__ import annotations

import pytest

from engine.errors import BadValue, PlainBeyondLoopback
from engine.link.address import is_loopback, join_address, require_loopback, split_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("berlin:7450", "berlin", 7450), ("127.0.0.1:0", "127.0.0.1", 0), ("[fe80::1%eth0]:7450", "fe80::1%eth0", 7450)],
)
def test_an_address_is_host_and_port(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert join_address(host, port) == text


@pytest.mark.parametrize("text", ["", "berlin", ":7450", "berlin:", "berlin:x", "berlin:65536", "::1:7450", "b:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        split_address(text)


def test_this_host_is_told_from_all_others() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert is_loopback(host)
        require_loopback(host)
    for host in ("192.0.2.1", "0.0.0.0", "::", "fe80::1%lo", "localhost", "", "::ffff:192.0.2.1"):
        assert not is_loopback(host)
        with pytest.raises(PlainBeyondLoopback):
            require_loopback("127.0.0.1", host)
