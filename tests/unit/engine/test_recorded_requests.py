"""What is kept of a request: all of it, but of a secret only what tells two of them apart."""

from __future__ import annotations

import json

from engine.requests import PeerAdd, PeerInvite, PeerJoin, recorded

TOKEN, OTHER = "leeward1aaaa", "leeward1bbbb"


def test_a_request_without_secrets_is_kept_whole() -> None:
    request = PeerAdd("west", "west.example:7450", "SHA256:00")
    assert PeerAdd(**recorded(request)) == request


def test_a_secret_is_neither_kept_nor_shown() -> None:
    for request, secret in ((PeerJoin(TOKEN, "east"), TOKEN), (PeerInvite("west", "ab" * 16), "ab" * 16)):
        assert secret not in json.dumps(recorded(request))
        assert secret not in repr(request)


def test_two_joins_with_different_tokens_are_two_and_with_the_same_are_one() -> None:
    assert recorded(PeerJoin(TOKEN)) == recorded(PeerJoin(TOKEN))
    assert recorded(PeerJoin(TOKEN)) != recorded(PeerJoin(OTHER))
