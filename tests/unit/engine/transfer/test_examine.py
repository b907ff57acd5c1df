"""A buffer of blocks comes to what a plain loop over its blocks comes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockstore.blockset import BlockSet
from blockstore.frame import DATA, KEPT, MAX_HEAD_BYTES, ZERO, frame_regions, hash_blocks, parse_head, zero_hash
from blockstore.units import BLOCK, BLOCKS_PER_REGION, Extent
from engine.decide.plan import Batch, batches
from engine.transfer.examine import Examined, Examiner, Head
from engine.transfer.outgoing import Outgoing
from engine.transfer.pipeline import Buffer
from engine.transfer.source import U64

SEED = 99
IMAGE = 8 * BLOCKS_PER_REGION * BLOCK
BUFFER = Buffer()

CONTENTS = {"zero": bytes(BLOCK), "tail": bytes(BLOCK - 1) + b"\1", "a": b"a" * BLOCK, "b": b"b" * BLOCK}


def content(number: int, kind: str) -> bytes:
    return CONTENTS[kind] if kind in ("zero", "tail") else (number.to_bytes(4, "little") + CONTENTS[kind])[:BLOCK]


def examine(
    blocks: dict[int, str], known: dict[int, int] | None = None, reusable: dict[int, bytes] | None = None
) -> tuple[Batch, Examined]:
    """What `blocks`, number -> kind of content, come to."""
    (batch,) = batches(BlockSet.of_extents(*((number, 1) for number in blocks)).regions(), BLOCKS_PER_REGION)
    for at, number in enumerate(sorted(blocks)):
        BUFFER.view[at * BLOCK : (at + 1) * BLOCK] = content(number, blocks[number])

    def hashes(runs: Sequence[Extent]) -> U64 | None:
        if known is None:
            return None
        return np.array([known.get(n, 0) for run in runs for n in range(run.first, run.first + run.count)], np.uint64)

    examiner = Examiner(image_bytes=IMAGE, hash_seed=SEED, known_hashes=hashes, reusable=reusable or {}, probes=True)
    return batch, examiner.examine(batch, BUFFER)


def hash_of(number: int, kind: str) -> int:
    return int(hash_blocks(memoryview(content(number, kind)), SEED)[0])


def listed(head: Head) -> dict[int, int]:
    """Block -> kind of the extents of a head."""
    return {int(first) + at: int(kind) for first, count, kind in head.extents.tolist() for at in range(count)}


some_blocks = st.dictionaries(
    st.integers(0, 8 * BLOCKS_PER_REGION - 1), st.sampled_from(sorted(CONTENTS)), min_size=1, max_size=200
)


@settings(max_examples=200, deadline=None)
@given(some_blocks, st.randoms(use_true_random=False))
def test_every_block_is_equal_zero_or_sent_as_a_plain_loop_says(blocks: dict[int, str], random: object) -> None:
    chance = random.random  # type: ignore[attr-defined]
    known = {n: hash_of(n, kind if chance() < 0.5 else "b") for n, kind in blocks.items() if chance() < 0.7}
    batch, found = examine(blocks, known)
    equal = {n for n, kind in blocks.items() if known.get(n) == hash_of(n, kind)}
    rest = {n: kind for n, kind in blocks.items() if n not in equal}
    assert BlockSet(dict(found.equal)) == BlockSet.of_extents(*((n, 1) for n in equal))
    assert BlockSet(dict(found.regions)) == BlockSet.of_extents(*((n, 1) for n in rest))
    assert found.blocks == len(blocks) == batch.blocks
    if not rest:
        assert found.sent is None
        return
    assert found.sent is not None
    assert found.sent is found.noted
    assert listed(found.sent) == {n: ZERO if kind == "zero" else DATA for n, kind in rest.items()}
    data = [n for n in sorted(rest) if rest[n] != "zero"]
    assert found.sent.hashes.tolist() == [hash_of(n, rest[n]) for n in data]
    positions = [at for run in found.payload for at in range(run.first, run.first + run.count)]
    assert b"".join(bytes(BUFFER.view[at * BLOCK : (at + 1) * BLOCK]) for at in positions) == b"".join(
        content(n, rest[n]) for n in data
    )
    assert found.zero_blocks == len(rest) - len(data)
    parsed = parse_head(memoryview(found.sent.to_bytes()), filled=False, image_blocks=IMAGE // BLOCK)
    extents = parsed.extents
    ends = extents["first"] + extents["count"]
    joinable = (ends[:-1] == extents["first"][1:]) & (extents["kind"][:-1] == extents["kind"][1:])
    assert not joinable.any(), "extents are as few as can be: digests of both ends depend on it"


def test_a_zero_block_has_the_hash_of_a_zero_block_and_can_be_equal() -> None:
    _, found = examine({5: "zero", 6: "a"}, {5: zero_hash(SEED)})
    assert found.equal == [(0, 1 << 5)]
    assert found.sent is not None
    assert listed(found.sent) == {6: DATA}


def digests(blocks: dict[int, str]) -> dict[int, bytes]:
    _, found = examine(blocks)
    assert found.noted is not None
    head = parse_head(memoryview(found.noted.to_bytes()), filled=False)
    return {region: digest for region, _, digest in frame_regions(head, SEED)}


def test_a_region_that_the_receiver_holds_is_kept_whole_and_noted_as_if_sent() -> None:
    blocks = {1: "a", 2: "zero", 1030: "b", 1031: "a", 3 * 1024: "a", 8 * 1024 - 1: "b"}
    held = digests(blocks)
    held[3] = bytes(8)
    _, found = examine(blocks, reusable=held)
    assert found.sent is not None
    assert found.noted is not None
    rows = [tuple(row) for row in found.sent.extents.tolist()]
    assert rows == [(0, 2048, KEPT), (3072, 1, DATA), (7 * 1024, 1024, KEPT)]
    assert listed(found.noted) == {n: ZERO if kind == "zero" else DATA for n, kind in blocks.items()}
    assert len(found.noted.hashes) == 5
    assert found.sent.hashes.tolist() == [hash_of(3072, "a")]
    assert found.kept_blocks == 5
    assert found.zero_blocks == 0
    parse_head(memoryview(found.sent.to_bytes()), filled=False, image_blocks=IMAGE // BLOCK)


def test_the_short_last_region_of_an_image_can_be_kept() -> None:
    blocks = {2 * 1024 + 3: "a"}
    image = 2 * 1024 * BLOCK + 5 * BLOCK - 100
    (batch,) = batches([(2, 1 << 3)], BLOCKS_PER_REGION)
    BUFFER.view[:BLOCK] = content(2051, "a")
    examiner = Examiner(
        image_bytes=image, hash_seed=SEED, known_hashes=lambda _: None, reusable=digests(blocks), probes=False
    )
    found = examiner.examine(batch, BUFFER)
    assert found.sent is not None
    assert [tuple(row) for row in found.sent.extents.tolist()] == [(2048, 5, KEPT)]
    parse_head(memoryview(found.sent.to_bytes()), filled=False, image_blocks=2053)


def test_examining_leaves_the_buffer_as_it_is() -> None:
    blocks = {n: "zero" if n % 3 else "a" for n in range(500)}
    examine(blocks)
    before = bytes(BUFFER.view)
    examine(blocks)
    assert bytes(BUFFER.view) == before


def frame(blocks: dict[int, str]) -> Outgoing:
    _, found = examine(blocks)
    assert found.sent is not None
    assert found.noted is not None
    return Outgoing(None, found.sent, found.noted, found.regions)  # type: ignore[arg-type]


def test_frames_without_blocks_are_joined_as_if_they_had_been_one() -> None:
    zeros = frame(dict.fromkeys(range(1024), "zero"))
    more = frame({n: "zero" if n < 1500 else "a" for n in range(1024, 1600)})
    assert zeros.takes(more)
    whole = zeros.joined(more)
    assert [tuple(row) for row in whole.sent.extents.tolist()] == [(0, 1500, ZERO), (1500, 100, DATA)]
    assert whole.sent is whole.noted
    assert whole.regions == zeros.regions + more.regions
    assert not more.takes(zeros), "regions of a frame ascend"


@pytest.mark.parametrize("step", [2, 3])
def test_a_joined_head_stays_within_its_limit(step: int) -> None:
    zeros = frame(dict.fromkeys(range(0, 1024, step), "zero"))
    data = frame(dict.fromkeys(range(1024, 2048), "a"))
    scattered = frame(dict.fromkeys(range(1024, 3072, 2), "a"))
    assert zeros.takes(data)
    assert len(zeros.joined(data).sent.to_bytes()) <= MAX_HEAD_BYTES
    assert not zeros.takes(scattered)
