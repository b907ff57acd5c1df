"""Points that go from the middle: what is dropped, what is merged into what, and what a crash between finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records_build import GROUP, VOLUMES, Receipt, Records, add_group, fresh, promote_at, receive, remove, snapshot

from engine.errors import Raced
from engine.model import LayerId, LayerState, VolumeId
from engine.records import folds, layers, merges, points, retention, snapshots


@pytest.fixture(autouse=True)
def shop(records: Records) -> None:
    """The group, recovery here."""
    records(add_group)


def names() -> dict[VolumeId, LayerId]:
    return {volume: LayerId(fresh()) for volume in VOLUMES}


def test_what_may_go_behind_a_pinned_point_is_dropped_and_its_layers_become_one(records: Records) -> None:
    sealed = [records(receive) for _ in range(6)]
    records(snapshots.create, snapshot(sealed[1]))
    assert records(folds.retention, GROUP, 1) == (sealed[0],)
    assert records(merges.drop, GROUP, 1) == tuple(point.id for point in sealed[2:5])
    assert records(merges.drop, GROUP, 1) == ()
    assert [point.sequence for point in records(points.of_group, GROUP)] == [6, 2, 1]
    due = records(merges.start, GROUP, names())
    assert [merge.volume for merge in due] == list(VOLUMES)
    for merge in due:
        assert [layer.point for layer in merge.inputs] == [point.id for point in sealed[2:]]
        assert (merge.output.builds_on, merge.output.point) == (sealed[1].id, sealed[5].id)
        assert records(layers.get, merge.output.id).state is LayerState.BUILDING
        assert merge.output.id not in {layer.id for layer in records(layers.chain, merge.volume)}
    records(merges.finish, GROUP, due, [Receipt(), Receipt(length_bytes=4096)])
    records.reopen()
    for merge in due:
        assert [layer.id for layer in records(layers.up_to, merge.volume, sealed[5].id)][1:] == [merge.output.id]
        assert [layer.point for layer in records(layers.up_to, merge.volume, sealed[1].id)] == [sealed[1].id]
        assert {records(layers.get, layer.id).state for layer in merge.inputs} == {LayerState.DEAD}
    assert records(merges.start, GROUP, names()) == ()
    assert records(retention.space, GROUP)[sealed[5].id] == 12_288 + 4096
    kept = records(retention.kept, GROUP)
    assert (kept.points, kept.bytes) == (3, sum(records(retention.space, GROUP).values()))


def test_a_merge_that_a_crash_cut_is_given_up_and_due_again(records: Records) -> None:
    sealed = [records(receive) for _ in range(4)]
    records(snapshots.create, snapshot(sealed[0]))
    records(merges.drop, GROUP, 1)
    due = records(merges.start, GROUP, names())
    with pytest.raises(Raced, match="under way"):
        records(merges.start, GROUP, names())
    records.reopen()
    records(merges.cancel, GROUP)
    records(merges.cancel, GROUP)
    assert {records(layers.get, merge.output.id).state for merge in due} == {LayerState.DEAD}
    again = records(merges.start, GROUP, names())
    assert [merge.inputs for merge in again] == [merge.inputs for merge in due]
    with pytest.raises(Raced):
        records(merges.finish, GROUP, due, [Receipt(), Receipt()])


def test_a_promotion_while_layers_are_merged_wins(records: Records) -> None:
    sealed = [records(receive) for _ in range(4)]
    held = snapshot(sealed[0])
    records(snapshots.create, held)
    records(merges.drop, GROUP, 1)
    due = records(merges.start, GROUP, names())
    records(promote_at, sealed[3])
    before = records.everything()
    with pytest.raises(Raced, match="protected"):
        records(merges.finish, GROUP, due, [Receipt(), Receipt()])
    assert records.everything() == before
    records(merges.cancel, GROUP)
    assert records(merges.start, GROUP, names()) == ()
    assert records(merges.drop, GROUP, 1) == ()


def test_a_fold_of_a_layer_without_a_name_leaves_every_point_its_image(records: Records) -> None:
    """The held point went before the merge ran: the base comes to a state that is no point, under what is above."""
    sealed = [records(receive) for _ in range(4)]
    held = snapshot(sealed[0])
    records(snapshots.create, held)
    records(merges.drop, GROUP, 1)
    records(remove, held)
    folding = records(folds.start, GROUP)
    assert {layer.point for layer in folding} == {sealed[1].id}
    records(folds.finish, [layer.id for layer in folding])
    for member in VOLUMES:
        assert [layer.point for layer in records(layers.up_to, member, sealed[3].id)] == [sealed[2].id, sealed[3].id]
    assert [replace(point, pins=0) for point in records(points.of_group, GROUP)] == [sealed[3]]
    assert len(records(merges.start, GROUP, names())) == 2


def test_a_schedule_stands_beside_the_count_until_it_is_taken_away(records: Records) -> None:
    sealed = [records(receive) for _ in range(5)]
    records(retention.set_schedule, GROUP, "weekly:4w")
    records(retention.set_schedule, GROUP, "all:1h")
    assert records(retention.schedule_of, GROUP) == "all:1h"
    assert records(retention.due, GROUP, 1) == ()
    records(retention.set_schedule, GROUP, "")
    assert records(retention.due, GROUP, 1) == tuple(sealed[:4])
