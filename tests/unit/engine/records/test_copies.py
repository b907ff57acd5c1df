"""Snapshots, folds and promotions: what each holds back from the others, and what a crash between their steps finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records_build import (
    GROUP,
    NONCES,
    NOW,
    VOLUMES,
    Records,
    add_group,
    begin,
    fresh,
    pending,
    prepare,
    promote_at,
    receive,
    remove,
    snapshot,
)

from engine.errors import NameTaken, PointPinned, Raced, RefusedByState, UnknownName
from engine.model import LayerId, LayerKind, LayerState, PointId, Role, SnapshotState, TrackingId
from engine.records import folds, groups, layers, pins, points, promote, snapshots, volumes


@pytest.fixture(autouse=True)
def shop(records: Records) -> None:
    """The group, recovery here."""
    records(add_group)


# Snapshots


def test_a_snapshot_pins_its_point_from_the_first_transaction_to_the_last(records: Records) -> None:
    point = records(receive)
    made = records(snapshots.create, snapshot(point))
    records.reopen()
    assert records(snapshots.get, GROUP, "test") == made
    assert records(snapshots.all) == records(snapshots.of_group, GROUP) == (made,)
    assert records(pins.holders, point.id) == (pins.of_snapshot(made.id),)
    for layer, member in zip(made.layers, VOLUMES, strict=True):
        row = records(layers.get, layer)
        assert (row.volume, row.kind, row.state, row.builds_on) == (
            member,
            LayerKind.OVERLAY,
            LayerState.LIVE,
            point.id,
        )
        assert layer not in {other.id for other in records(layers.chain, member)}
    records(snapshots.ready, made.id)
    assert records(snapshots.get, GROUP, "test").state is SnapshotState.READY
    records(snapshots.deleting, made.id)
    records(snapshots.deleting, made.id)
    assert records(points.get, point.id).pins == 1
    records(snapshots.delete, made.id)
    assert records(points.get, point.id).pins == 0
    assert records(snapshots.all) == ()
    assert [records(layers.of_volume, member) for member in VOLUMES] == [(), ()]


def test_a_snapshot_of_a_point_that_is_gone_leaves_nothing(records: Records) -> None:
    point = records(receive)
    before = records.everything()
    with pytest.raises(UnknownName):
        records(snapshots.create, replace(snapshot(point), point=PointId(fresh())))
    with pytest.raises(Raced):
        records(snapshots.create, replace(snapshot(point), layers=(LayerId(fresh()),)))
    assert records.everything() == before


def test_the_name_of_a_snapshot_is_taken_within_its_group(records: Records) -> None:
    point = records(receive)
    records(snapshots.create, snapshot(point))
    with pytest.raises(NameTaken):
        records(snapshots.create, snapshot(point))
    records(snapshots.create, snapshot(point, "other"))
    assert records(points.get, point.id).pins == 2
    with pytest.raises(UnknownName, match="third"):
        records(snapshots.get, GROUP, "third")


def test_a_snapshot_moves_one_way_only(records: Records) -> None:
    made = records(snapshots.create, snapshot(records(receive)))
    with pytest.raises(Raced):
        records(snapshots.delete, made.id)
    records(snapshots.deleting, made.id)
    with pytest.raises(Raced):
        records(snapshots.ready, made.id)
    records(snapshots.delete, made.id)
    for step in (snapshots.ready, snapshots.deleting, snapshots.delete):
        with pytest.raises(Raced):
            records(step, made.id)


def test_a_reset_puts_new_overlays_in_the_place_of_the_old_ones_at_once(records: Records) -> None:
    point = records(receive)
    made = records(snapshots.create, replace(snapshot(point), expires_at=NOW))
    with pytest.raises(Raced):
        records(snapshots.reset, made.id, [LayerId(fresh()) for _ in VOLUMES])  # its first files are not there yet
    records(snapshots.ready, made.id)
    new = tuple(LayerId(fresh()) for _ in VOLUMES)
    records(snapshots.reset, made.id, new)
    records.reopen()
    after = records(snapshots.get, GROUP, "test")
    assert after == replace(made, state=SnapshotState.RESETTING, layers=new)
    assert {records(layers.get, layer).state for layer in made.layers} == {LayerState.DEAD}
    assert {records(layers.get, layer).state for layer in new} == {LayerState.LIVE}
    newer = tuple(LayerId(fresh()) for _ in VOLUMES)
    records(snapshots.reset, made.id, newer)  # one that a crash cut is begun anew
    records(snapshots.ready, made.id)
    assert records(snapshots.get, GROUP, "test") == replace(made, state=SnapshotState.READY, layers=newer)
    assert records(points.get, point.id).pins == 1
    with pytest.raises(Raced):
        records(snapshots.reset, made.id, newer[:1])
    records(snapshots.deleting, made.id)
    with pytest.raises(Raced):
        records(snapshots.reset, made.id, new)


def test_the_name_of_a_snapshot_is_free_as_soon_as_it_is_being_deleted(records: Records) -> None:
    point = records(receive)
    made = records(snapshots.create, snapshot(point))
    records(snapshots.deleting, made.id)
    again = records(snapshots.create, snapshot(point))
    assert records(snapshots.get, GROUP, "test") == again
    records(snapshots.delete, made.id)
    assert records(pins.holders, point.id) == (pins.of_snapshot(again.id),)


# Folds


def test_retention_lets_go_beyond_the_newest_few_oldest_first(records: Records) -> None:
    sealed = [records(receive) for _ in range(5)]
    assert [point.id for point in records(folds.retention, GROUP, 3)] == [point.id for point in sealed[:2]]
    assert records(folds.retention, GROUP, 5) == ()
    assert len(records(folds.retention, GROUP, 0)) == 4  # the newest stays whatever is asked


def test_retention_stops_at_the_first_pinned_point(records: Records) -> None:
    sealed = [records(receive) for _ in range(5)]
    held = records(snapshots.create, snapshot(sealed[1]))
    assert records(folds.retention, GROUP, 1) == (sealed[0],)
    records(remove, held)
    assert records(folds.retention, GROUP, 1) == tuple(sealed[:4])


def test_a_fold_takes_the_oldest_point_and_moves_every_volume(records: Records) -> None:
    first, second, third = (records(receive) for _ in range(3))
    folding = records(folds.start, GROUP)
    assert [layer.volume for layer in folding] == list(VOLUMES)
    assert {(layer.state, layer.point) for layer in folding} == {(LayerState.FOLDING, second.id)}
    assert [point.id for point in records(points.of_group, GROUP)] == [third.id, second.id]
    assert records(points.find, first.id) is None
    # Until it is over the layer still hides the base that is being changed.
    assert len(records(layers.up_to, VOLUMES[0], second.id)) == 1
    records(folds.finish, [layer.id for layer in folding])
    for member in VOLUMES:
        assert len(records(layers.up_to, member, second.id)) == 0
        assert [layer.point for layer in records(layers.chain, member)] == [third.id]
    gone = records(layers.in_state, LayerState.FOLDED, group=GROUP)
    assert {layer.id for layer in gone} == {layer.id for layer in folding}
    records(layers.delete, [layer.id for layer in gone])
    records(layers.delete, [layer.id for layer in gone])
    assert records(layers.in_state, LayerState.FOLDED) == ()


def test_a_fold_cut_by_a_crash_is_the_same_fold_again(records: Records) -> None:
    for _ in range(3):
        records(receive)
    folding = records(folds.start, GROUP)
    records.reopen()
    before = records.everything()
    assert records(folds.start, GROUP) == folding
    assert records.everything() == before


def test_a_pin_and_a_fold_exclude_each_other_in_either_order(records: Records) -> None:
    first = records(receive)
    records(receive)
    held = records(snapshots.create, snapshot(first))
    before = records.everything()
    with pytest.raises(PointPinned, match="snapshot:"):
        records(folds.start, GROUP)
    assert records.everything() == before
    records(remove, held)
    records(folds.start, GROUP)
    with pytest.raises(UnknownName):
        records(snapshots.create, snapshot(first))


def test_the_newest_point_is_never_folded_away(records: Records) -> None:
    with pytest.raises(RefusedByState):
        records(folds.start, GROUP)
    records(receive)
    with pytest.raises(RefusedByState):
        records(folds.start, GROUP)


# Promotion


def test_a_promotion_changes_the_whole_group_at_once(records: Records) -> None:
    records(receive)
    newest = records(receive)
    records(begin)
    opened = records(layers.receiving, GROUP)
    tops = records(prepare, newest)
    version = records(groups.by_id, GROUP).version
    after = records(promote.commit, GROUP, newest.id, NONCES, term=4, expects=version)
    records.reopen()
    assert records(groups.by_id, GROUP) == after
    assert (after.role, after.term, after.generation_due, after.incoming) == (Role.PROTECTED, 4, True, None)
    assert after.common == replace(newest, pins=1)
    for top in tops:
        member = records(volumes.by_id, top.volume)
        assert (member.top, member.tracking, member.tracking_next, member.nonce) == (
            top.layer,
            top.tracking,
            None,
            b"n" * 16,
        )
        assert records(layers.get, top.layer).state is LayerState.LIVE
    assert [records(layers.get, layer.id).state for layer in opened] == [LayerState.DEAD] * 2


def test_a_promotion_prepared_but_not_committed_is_still_recovery(records: Records) -> None:
    point = records(receive)
    tops = records(prepare, point)
    records.reopen()
    assert records(groups.by_id, GROUP).role is Role.RECOVERY
    members = records(volumes.of_group, GROUP)
    assert [(member.tracking, member.tracking_next) for member in members] == [(None, top.tracking) for top in tops]
    assert [layer.id for layer in records(promote.cancel, GROUP)] == [top.layer for top in tops]
    assert {records(layers.get, top.layer).state for top in tops} == {LayerState.DEAD}
    assert records(promote.cancel, GROUP) == ()
    # The files of the planned trackings stay named until they are gone.
    assert [member.tracking_next for member in records(volumes.of_group, GROUP)] == [top.tracking for top in tops]
    with pytest.raises(Raced, match="no longer prepared"):
        records(promote.commit, GROUP, point.id, NONCES, term=2, expects=records(groups.by_id, GROUP).version)
    assert records(promote_at, point).role is Role.PROTECTED


def test_a_promotion_that_lost_the_race_changes_nothing(records: Records) -> None:
    point = records(receive)
    records(prepare, point)
    records(begin)
    before = records.everything()
    version = records(groups.by_id, GROUP).version
    with pytest.raises(Raced, match="version"):
        records(promote.commit, GROUP, point.id, NONCES, term=2, expects=version - 1)
    assert records.everything() == before


def test_a_group_is_promoted_once(records: Records) -> None:
    point = records(receive)
    records(promote_at, point)
    before = records.everything()
    with pytest.raises(Raced, match="protected"):
        records(prepare, point)
    with pytest.raises(Raced):
        records(promote.commit, GROUP, point.id, NONCES, term=9, expects=records(groups.by_id, GROUP).version)
    assert records.everything() == before


def test_two_promotions_are_never_prepared_together(records: Records) -> None:
    point = records(receive)
    records(prepare, point)
    with pytest.raises(Raced, match="under way"):
        records(prepare, point)


def test_a_promotion_covers_every_volume_or_none(records: Records) -> None:
    point = records(receive)
    before = records.everything()
    tops = [promote.Top(VOLUMES[0], LayerId(fresh()), TrackingId(fresh()))]
    with pytest.raises(Raced):
        records(promote.prepare, GROUP, point.id, tops)
    assert records.everything() == before


def test_the_term_rises_with_every_promotion(records: Records) -> None:
    point = records(receive)
    records(prepare, point)
    found = records(groups.by_id, GROUP)
    with pytest.raises(AssertionError):
        records(promote.commit, GROUP, point.id, NONCES, term=found.term, expects=found.version)
    assert records(groups.by_id, GROUP) == found


def test_an_older_point_sets_the_layers_above_it_aside_and_keeps_them_readable(records: Records) -> None:
    _, older, middle, newest = (records(receive) for _ in range(4))
    after = records(promote_at, older)
    assert after.common == replace(newest, pins=1)  # the common point stays the newest sealed one
    for member in VOLUMES:
        assert [layer.point for layer in records(layers.chain, member)] == [older.id]
        aside = records(layers.in_state, LayerState.SET_ASIDE, group=GROUP)
        assert {layer.point for layer in aside} == {middle.id, newest.id}
        assert len(records(layers.up_to, member, newest.id)) == 3
    assert [point.pins for point in records(points.of_group, GROUP)] == [1, 1, 1, 0]


def test_nothing_from_the_promoted_point_up_is_folded_until_the_peer_holds_a_new_one(records: Records) -> None:
    oldest, older, _, _ = (records(receive) for _ in range(4))
    records(promote_at, older)
    assert records(folds.retention, GROUP, 1) == (oldest,)
    folding = records(folds.start, GROUP)
    assert {layer.point for layer in folding} == {older.id}
    records(folds.finish, [layer.id for layer in folding])
    with pytest.raises(PointPinned, match="promoted"):
        records(folds.start, GROUP)
    begun = pending(9)
    records(groups.begin_capture, GROUP, begun)
    records(groups.adopt, GROUP, replace(older, id=begun.point, sequence=9))
    assert [point.pins for point in records(points.of_group, GROUP)] == [0, 0, 0]


def test_a_promoted_image_stays_its_chain_when_the_peer_holds_the_common_point(records: Records) -> None:
    _, point = records(receive), records(receive)
    records(promote_at, point)
    chains = [records(layers.chain, member) for member in VOLUMES]
    begun = pending(3)
    records(groups.begin_capture, GROUP, begun)
    common = records(groups.adopt, GROUP, replace(point, id=begun.point, sequence=3, pins=0)).common
    assert common is not None
    with pytest.raises(UnknownName):
        records(layers.up_to, VOLUMES[0], common.id)  # it has no layers here; the base alone would be a wrong image
    assert [records(layers.chain, member) for member in VOLUMES] == chains
    for member in records(volumes.of_group, GROUP):
        assert member.top is not None
        assert records(layers.get, member.top).builds_on == point.id


def test_a_snapshot_outlives_a_promotion(records: Records) -> None:
    point = records(receive)
    held = records(snapshots.create, snapshot(point))
    records(promote_at, point)
    assert records(pins.holders, point.id) == ("promoted", pins.of_snapshot(held.id))
    assert {records(layers.get, layer).state for layer in held.layers} == {LayerState.LIVE}
    records(remove, held)
    assert records(points.get, point.id).pins == 1
