"""Complaints: said once, said again when it is news, never more of them than memory allows."""

from __future__ import annotations

import pytest

from engine.errors import DialFailed, PeerFingerprintWrong
from engine.link.complaints import KEYS, Complaints

AWAY = DialFailed(peer="paris", address="192.0.2.1:1", reason="refused")
WRONG = PeerFingerprintWrong(peer="paris", address="192.0.2.1:1", expected="SHA256:a", found="SHA256:b")


@pytest.fixture
def said() -> list[str]:
    return []


async def test_the_same_failure_is_reported_once(said: list[str]) -> None:
    complaints = Complaints(lambda level, code, message, details: said.append(code), 60)
    for _ in range(5):
        complaints.add("paris", AWAY, "warning")
    complaints.add("paris", WRONG, "error")
    complaints.add("paris", AWAY, "warning")
    complaints.add("rome", AWAY, "warning")
    assert said == ["dial_failed", "wrong_fingerprint", "dial_failed"]


async def test_it_is_news_again_after_it_was_right_or_after_a_while(said: list[str]) -> None:
    complaints = Complaints(lambda level, code, message, details: said.append(code), 60)
    complaints.add("paris", AWAY, "warning")
    complaints.forget("paris")
    complaints.add("paris", AWAY, "warning")
    assert len(said) == 2
    impatient = Complaints(lambda level, code, message, details: said.append(code), 0)
    impatient.add("paris", AWAY, "warning")
    impatient.add("paris", AWAY, "warning")
    assert len(said) == 4


async def test_strangers_cannot_fill_memory_with_keys(said: list[str]) -> None:
    complaints = Complaints(lambda level, code, message, details: said.append(code), 60)
    for number in range(10 * KEYS):
        complaints.add(str(number), AWAY, "warning")
    assert len(complaints._said) == KEYS
    assert len(said) == 10 * KEYS
