"""What is copied in the benchmarks: images of known make, and scattered changes to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 4096
SEGMENT = 4 << 20
TEXTS = 16
"""Distinct segments of text: no codec that the contenders use looks back further than one segment."""


def build_mixed(path: Path, size_bytes: int, seed: int = 1) -> None:
    """An image of 4 MiB segments in shuffled order: half noise, 30 % text, 20 % zeros (holes).

    The same seed and size give the same bytes, on every machine.
    """
    chance = np.random.default_rng(seed)
    texts = [_text(chance) for _ in range(TEXTS)]
    count = size_bytes // SEGMENT
    kinds = chance.permutation(_kinds(count))
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for number, kind in enumerate(kinds):
            if kind == "zeros":
                continue
            file.seek(number * SEGMENT)
            file.write(chance.bytes(SEGMENT) if kind == "noise" else texts[number % TEXTS])
        file.flush()
        os.fsync(file.fileno())


def _kinds(count: int) -> list[str]:
    noise, text = count // 2, count * 3 // 10
    return ["noise"] * noise + ["text"] * text + ["zeros"] * (count - noise - text)


def _text(chance: np.random.Generator) -> bytes:
    """A segment of lines of words, which lz4 brings to a bit more than half."""
    words = [bytes(chance.integers(97, 123, int(length), dtype=np.uint8)) for length in chance.integers(2, 11, 4000)]
    picked = chance.zipf(1.3, SEGMENT // 4) % len(words)
    text = bytearray()
    for number, word in enumerate(picked.tolist()):
        text += words[word] + (b"\n" if number % 12 == 11 else b" ")
        if len(text) >= SEGMENT:
            break
    return bytes(text[:SEGMENT])


def scattered(size_bytes: int, share: float, seed: int) -> Iterator[tuple[int, bytes]]:
    """(offset, content) of `share` of all 4 KiB blocks, in random order, each with new noise."""
    chance = np.random.default_rng(seed)
    blocks = size_bytes // BLOCK
    for block in chance.choice(blocks, int(blocks * share), replace=False).tolist():
        yield block * BLOCK, chance.bytes(BLOCK)
