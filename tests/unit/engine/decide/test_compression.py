"""The choice of a codec: a table of links and processors, and a model that ships through each of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.decide.compression import LZ4, PLAIN, ZSTD, Chooser

FRAME = 4 << 20
SOCKET = 4 << 20
THREADS = 2
TEXT_PROBE = 0.64
RATIO = {PLAIN: 1.0, LZ4: 0.565, ZSTD: 0.356}


@dataclass
class Line:
    """A link of `rate` bytes/s behind a socket of 4 MiB, fed by two packing threads and one reader."""

    rate: float
    speed: dict[str, float]
    reader: float = 2.5e9

    def ship(self, chooser: Chooser | None, codec: str, frames: int, text: float = 1.0) -> tuple[float, list[str]]:
        """Seconds to ship `frames` frames, `text` of them compressible; the codec of each compressible one."""
        now, read_at = 0.0, 0.0
        threads = [0.0] * THREADS
        backlog_until = 0.0
        picked: list[str] = []
        packing: list[tuple[float, str, float, float]] = []

        def prepare(number: int) -> None:
            nonlocal read_at
            is_text = (number * text) % 1.0 < text
            read_at = max(read_at, now) + FRAME / self.reader
            which = PLAIN if not is_text else codec if chooser is None else chooser.choose(TEXT_PROBE)
            if chooser is not None and not is_text:
                chooser.choose(1.0)
            at = min(range(THREADS), key=threads.__getitem__)
            ready = max(threads[at], read_at)
            cost = 0.0 if which == PLAIN else FRAME / self.speed[which]
            threads[at] = ready + cost
            if is_text:
                picked.append(which)
            packing.append((ready + cost, which, RATIO[which] * FRAME, cost))

        for number in range(frames):
            while len(packing) < 2:
                prepare(number)
            ready, which, stored, cost = packing.pop(0)
            if chooser is not None and which != PLAIN:
                chooser.packed(which, TEXT_PROBE, FRAME, int(stored), cost)
            now = max(now, ready)
            backlog_until = max(backlog_until, now) + stored / self.rate
            taken = max(now, backlog_until - SOCKET / self.rate)
            if chooser is not None:
                chooser.sent(int(stored), taken - now, taken)
            now = taken
        return backlog_until, picked


SLOW, USUAL, QUICK = (
    {LZ4: 0.2e9, ZSTD: 0.13e9},
    {LZ4: 0.65e9, ZSTD: 0.46e9},
    {LZ4: 1.2e9, ZSTD: 0.9e9},
)

TABLE = [
    # bytes/s of the link, processor, what must be chosen in the end
    (12.5e6, USUAL, {ZSTD}),
    (12.5e6, SLOW, {ZSTD}),
    (125e6, USUAL, {ZSTD}),
    (125e6, QUICK, {ZSTD}),
    (125e6, SLOW, {LZ4, ZSTD}),
    (300e6, USUAL, {ZSTD}),
    (500e6, USUAL, {LZ4, ZSTD}),
    (500e6, SLOW, {PLAIN}),
    (1250e6, SLOW, {PLAIN}),
    (2000e6, USUAL, {PLAIN}),
    (4000e6, USUAL, {PLAIN}),
    (4000e6, QUICK, {PLAIN}),
]


@pytest.mark.parametrize(("rate", "speed", "wanted"), TABLE)
def test_each_link_and_processor_comes_to_its_codec(rate: float, speed: dict[str, float], wanted: set[str]) -> None:
    _, picked = Line(rate, speed).ship(Chooser((LZ4, ZSTD)), PLAIN, 800)
    tail = picked[-400:]
    assert sum(which in wanted for which in tail) >= 0.9 * len(tail), {which: tail.count(which) for which in tail}


@pytest.mark.parametrize("text", [1.0, 0.3])
@pytest.mark.parametrize(("rate", "speed"), [(rate, speed) for rate, speed, _ in TABLE])
def test_adaptive_is_at_most_a_tenth_slower_than_the_best_fixed_codec(
    rate: float, speed: dict[str, float], text: float
) -> None:
    line = Line(rate, speed)
    best = min(line.ship(None, codec, 1024, text)[0] for codec in (PLAIN, LZ4, ZSTD))
    adaptive, _ = line.ship(Chooser((LZ4, ZSTD)), PLAIN, 1024, text)
    assert adaptive <= 1.10 * best


def test_blocks_that_do_not_shrink_are_plain_on_the_slowest_link() -> None:
    chooser = Chooser((LZ4, ZSTD))
    chooser.rate = 1e6
    assert chooser.choose(0.95) == PLAIN
    assert chooser.choose(0.6) == ZSTD


def test_a_codec_that_was_not_agreed_is_never_chosen() -> None:
    only_lz4, nothing = Chooser((PLAIN, LZ4)), Chooser((PLAIN,))
    only_lz4.rate = nothing.rate = 10e6
    assert only_lz4.choose(0.5) == LZ4
    assert nothing.choose(0.5) == PLAIN
    assert only_lz4.probes
    assert not nothing.probes


def test_a_link_that_slows_down_is_noticed() -> None:
    chooser = Chooser((LZ4, ZSTD))
    _, fast = Line(4e9, USUAL).ship(chooser, PLAIN, 400)
    chooser.paused()
    _, slow = Line(60e6, USUAL).ship(chooser, PLAIN, 400)
    assert fast[-1] == PLAIN
    assert slow[-1] == ZSTD


def test_a_receiver_that_is_the_limit_is_no_reason_to_pack() -> None:
    chooser = Chooser((LZ4, ZSTD))
    now = 0.0
    for _ in range(200):  # sends return at once; the window holds us back for 40 ms a frame
        now += 0.040
        chooser.sent(FRAME, 0.001, now)
    assert chooser.choose(0.5) == PLAIN
