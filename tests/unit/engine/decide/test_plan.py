"""A plan: its totals and digest, and how it is cut into batches."""

from __future__ import annotations

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from blockstore.blockset import BlockSet
from blockstore.units import BLOCKS_PER_REGION, WHOLE_REGION, Extent
from engine.decide.plan import PlanDigest, batches, plan_volume

plans = st.dictionaries(
    st.integers(0, 50),
    st.one_of(st.just(WHOLE_REGION), st.integers(1, WHOLE_REGION), st.integers(1, 0xFFFF)),
    max_size=20,
).map(lambda regions: sorted(regions.items()))


@given(plans)
def test_batches_hold_every_block_once_and_no_region_twice(plan: list[tuple[int, int]]) -> None:
    cut = list(batches(plan, BLOCKS_PER_REGION))
    assert [region for batch in cut for region in batch.regions] == plan
    for batch in cut:
        assert batch.blocks == sum(run.count for run in batch.runs) <= BLOCKS_PER_REGION
        assert BlockSet.of_extents(*batch.runs) == BlockSet(dict(batch.regions))
        assert all(a.first + a.count < b.first for a, b in zip(batch.runs, batch.runs[1:], strict=False))


def test_small_regions_fill_a_batch_before_another_begins() -> None:
    cut = list(batches([(region, 0xFF) for region in range(300)], BLOCKS_PER_REGION))
    assert [batch.blocks for batch in cut] == [1024, 1024, 352]


def test_runs_go_on_over_the_border_of_regions() -> None:
    last, first = 1 << (BLOCKS_PER_REGION - 1), 1
    (batch,) = batches([(4, last), (5, first)], BLOCKS_PER_REGION)
    assert batch.runs == (Extent(5 * BLOCKS_PER_REGION - 1, 2),)


def test_a_step_back_begins_a_new_batch() -> None:
    assert [batch.regions for batch in batches([(7, 1), (3, 1)], BLOCKS_PER_REGION)] == [((7, 1),), ((3, 1),)]


def test_batches_are_cut_lazily() -> None:
    asked: list[int] = []

    def endless() -> object:
        region = 0
        while True:
            asked.append(region)
            yield region, WHOLE_REGION
            region += 1

    cut = batches(endless(), BLOCKS_PER_REGION)  # type: ignore[arg-type]
    assert next(cut).regions == ((0, WHOLE_REGION),)
    assert len(asked) == 2


@given(plans)
def test_totals_are_the_same_at_once_and_piece_by_piece(plan: list[tuple[int, int]]) -> None:
    digest = PlanDigest()
    for region, bits in plan:
        digest.add(region, bits)
    totals = plan_volume(plan)
    assert totals == digest.totals()
    assert totals.blocks == sum(bits.bit_count() for _, bits in plan)


def test_the_digest_is_the_documented_one() -> None:
    raw = (2).to_bytes(4, "little") + bytes([0b101]) + bytes(127)
    assert plan_volume([(2, 0b101)]).digest == xxhash.xxh3_128_digest(raw)
    assert plan_volume([(2, 0b101)]).digest != plan_volume([(3, 0b101)]).digest
