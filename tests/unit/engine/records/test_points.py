"""Points: a seal is one transaction for the whole group, under every doubt about who still waits for it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from records_build import (
    GROUP,
    LARGEST_U64,
    NOW,
    SITE,
    VOLUMES,
    Receipt,
    Records,
    add_group,
    begin,
    fresh,
    point_of,
    promote_at,
    receipts,
    receive,
)

from engine.errors import PointPinned, Raced, UnknownName
from engine.model import Generation, GenerationId, LayerId, LayerState, PointId, SyncId
from engine.records import generations, groups, incoming, layers, pins, points


@pytest.fixture(autouse=True)
def shop(records: Records) -> None:
    """The group, recovery here."""
    records(add_group)


def test_the_first_point_stands_on_the_bases_alone(records: Records) -> None:
    sealed = records(receive)
    found = records(groups.by_id, GROUP)
    assert (found.common, found.incoming) == (sealed, None)
    assert records(points.of_group, GROUP) == (sealed,)
    for member in VOLUMES:
        assert records(layers.up_to, member, sealed.id) == ()
        assert len(records(layers.up_to, member, sealed.id)) == 0


def test_a_seal_makes_point_and_layers_true_together(records: Records) -> None:
    first = records(receive)
    wanted = records(begin)
    after = records(lambda conn: points.seal(conn, point_of(wanted), receipts(conn), term=5))
    records.reopen()
    assert records(groups.by_id, GROUP) == after
    assert (after.common, after.incoming, after.term) == (point_of(wanted), None, 5)
    assert [point.id for point in records(points.of_group, GROUP)] == [wanted.point, first.id]
    assert records(points.newest, GROUP) == point_of(wanted)
    for member in VOLUMES:
        (layer,) = records(layers.chain, member)
        assert (layer.state, layer.point, layer.builds_on) == (LayerState.SEALED, wanted.point, first.id)
        assert (layer.length_bytes, layer.directory_offset, layer.blocks, layer.digest) == (12_288, 8_192, 3, b"d" * 16)
        assert layer.directory_check == LARGEST_U64


def test_a_point_needs_the_layers_up_to_it_oldest_first(records: Records) -> None:
    sealed = [records(receive) for _ in range(4)]
    for member in VOLUMES:
        chain = records(layers.chain, member)
        assert [layer.point for layer in chain] == [point.id for point in sealed[1:]]
        assert [layer.position for layer in chain] == sorted({layer.position for layer in chain})
        for count, point in enumerate(sealed):
            assert records(layers.up_to, member, point.id) == chain[:count]
    with pytest.raises(UnknownName):
        records(layers.up_to, VOLUMES[0], PointId(fresh()))


def test_a_lower_term_of_the_peer_takes_nothing_back(records: Records) -> None:
    wanted = records(begin)
    assert records(lambda conn: points.seal(conn, point_of(wanted), receipts(conn), term=0)).term == 1


def test_a_seal_brings_the_generations_of_the_capture(records: Records) -> None:
    born = Generation(GenerationId(fresh()), None, SITE.id, None, NOW, 3)
    wanted = records(begin)
    point = replace(point_of(wanted), generation=born.id)
    after = records(points.seal, point, [], history=[born])
    assert (after.generation, after.common) == (born.id, point)
    assert records(generations.of_group, GROUP) == (born,)


def test_a_seal_after_a_promotion_is_dropped(records: Records) -> None:
    first = records(receive)
    wanted = records(begin)
    sealed = records(receipts)
    records(promote_at, first)
    before = records.everything()
    with pytest.raises(Raced, match="protected"):
        records(points.seal, point_of(wanted), sealed)
    assert records.everything() == before


def test_a_seal_of_what_was_given_up_is_refused(records: Records) -> None:
    records(receive)
    wanted = records(begin)
    sealed = records(receipts)
    records(incoming.drop, GROUP)
    with pytest.raises(Raced, match="any more"):
        records(points.seal, point_of(wanted), sealed)


def test_a_point_is_sealed_once(records: Records) -> None:
    records(receive)
    wanted = records(begin)
    sealed = records(receipts)
    records(points.seal, point_of(wanted), sealed)
    before = records.everything()
    with pytest.raises(Raced):
        records(points.seal, point_of(wanted), sealed)
    assert records.everything() == before


@pytest.mark.parametrize("missing", [0, 1])
def test_a_seal_without_the_layer_of_a_volume_is_refused_whole(records: Records, missing: int) -> None:
    records(receive)
    wanted = records(begin)
    sealed = records(receipts)
    del sealed[missing]
    before = records.everything()
    with pytest.raises(Raced):
        records(points.seal, point_of(wanted), sealed)
    assert records.everything() == before


def test_a_seal_of_a_volume_that_received_nothing_is_refused(records: Records) -> None:
    records(receive)
    wanted = records(begin)
    sealed = records(receipts)
    records(layers.delete, [sealed[1][0]])
    with pytest.raises(Raced, match="a volume"):
        records(points.seal, point_of(wanted), sealed[:1])


def test_a_receipt_for_an_unknown_layer_is_refused(records: Records) -> None:
    records(receive)
    wanted = records(begin)
    sealed = [*records(receipts), (LayerId(fresh()), Receipt())]
    with pytest.raises(Raced):
        records(points.seal, point_of(wanted), sealed)


def test_what_follows_in_the_transaction_can_undo_a_seal(records: Records) -> None:
    records(receive)
    wanted = records(begin)
    before = records.everything()

    def seal_and_fail(conn: sqlite3.Connection) -> None:
        points.seal(conn, point_of(wanted), receipts(conn))
        raise LookupError

    with pytest.raises(LookupError):
        records(seal_and_fail)
    assert records.everything() == before


def test_a_new_sync_leaves_what_an_older_one_received_dead(records: Records) -> None:
    records(receive)
    records(begin)
    old = [layer.id for layer, _ in ((records(layers.get, id), r) for id, r in records(receipts))]
    wanted = records(begin)
    assert [records(layers.get, id).state for id in old] == [LayerState.DEAD] * 2
    opened = records(layers.receiving, GROUP)
    assert [layer.volume for layer in opened] == list(VOLUMES)
    assert {layer.sync for layer in opened} == {wanted.sync}
    assert {layer.id for layer in records(layers.in_state, LayerState.DEAD)} == set(old)


def test_a_renewed_sync_goes_on_in_the_same_layers(records: Records) -> None:
    records(receive)
    wanted = records(begin)
    old = records(layers.receiving, GROUP)
    renewed = replace(wanted, sync=SyncId(fresh()), point=PointId(fresh()))
    version = records(groups.by_id, GROUP).version
    opened = records(incoming.renew, GROUP, renewed, expects=version)
    assert opened == tuple(replace(layer, sync=renewed.sync) for layer in old)
    assert records(groups.by_id, GROUP).incoming == renewed
    sealed = records(receipts)
    with pytest.raises(Raced):
        records(points.seal, point_of(wanted), sealed)
    assert records(points.seal, point_of(renewed), sealed).common == point_of(renewed)


def test_a_sync_of_another_common_point_is_neither_begun_nor_renewed(records: Records) -> None:
    records(receive)
    wanted = records(begin)
    version = records(groups.by_id, GROUP).version
    stranger = replace(wanted, sync=SyncId(fresh()), builds_on=PointId(fresh()))
    for change in (incoming.begin, incoming.renew):
        with pytest.raises(Raced, match="common"):
            records(change, GROUP, stranger, expects=version)
        with pytest.raises(Raced, match="version"):
            records(change, GROUP, replace(wanted, point=PointId(fresh())), expects=version - 1)
    assert records(groups.by_id, GROUP).incoming == wanted


def test_nothing_is_renewed_where_nothing_was_received(records: Records) -> None:
    first = records(receive)
    version = records(groups.by_id, GROUP).version
    wanted = replace(records(begin), builds_on=first.id)
    dropped = records(incoming.drop, GROUP)
    assert dropped.version > version
    with pytest.raises(Raced):
        records(incoming.renew, GROUP, wanted, expects=dropped.version)
    assert records(incoming.drop, GROUP) == dropped  # again: nothing


def test_the_number_of_a_point_only_grows(records: Records) -> None:
    sealed = records(receive)
    with pytest.raises(Raced, match="number 1"):
        records(begin, sequence=sealed.sequence)


def test_a_pin_counts_once_per_holder_and_holds_the_point(records: Records) -> None:
    sealed = records(receive)
    for holder in ("a", "b", "a"):
        records(pins.pin, sealed.id, holder)
    assert records(points.get, sealed.id).pins == 2
    assert records(pins.holders, sealed.id) == ("a", "b")
    common = records(groups.by_id, GROUP).common
    assert common is not None
    assert common.pins == 2
    with pytest.raises(PointPinned, match="a, b"):
        records(points.delete, sealed.id)
    records(pins.unpin, sealed.id, "a")
    records(pins.unpin, sealed.id, "a")
    records(pins.unpin_group, GROUP, "b")
    assert records(points.get, sealed.id).pins == 0
    records(points.delete, sealed.id)
    assert records(points.find, sealed.id) is None


def test_a_point_that_is_gone_cannot_be_pinned(records: Records) -> None:
    with pytest.raises(UnknownName):
        records(pins.pin, PointId(fresh()), "late")


def test_no_way_round_deletes_a_pinned_point(records: Records) -> None:
    sealed = records(receive)
    records(pins.pin, sealed.id, "a")
    with pytest.raises(sqlite3.IntegrityError):
        records(lambda conn: conn.execute("DELETE FROM point"))
    assert records(points.get, sealed.id).pins == 1
