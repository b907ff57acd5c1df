"""Groups: every change is a compare-and-set, and the states of a sync at the protected site follow each other."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import timedelta

import pytest
from records_build import (
    GROUP,
    NOW,
    SITE,
    VOLUMES,
    Records,
    add_group,
    fresh,
    group,
    peer,
    pending,
    promote_at,
    receive,
    snapshot,
)

from engine.errors import NameTaken, Raced, RefusedByState, UnknownName
from engine.model import (
    Generation,
    GenerationId,
    Group,
    GroupId,
    Incoming,
    LayerState,
    Point,
    PointId,
    Role,
    SyncId,
    SyncState,
)
from engine.records import generations, groups, layers, peers, points, snapshots, volumes


@pytest.fixture
def shop(records: Records) -> Group:
    """The group, protected here."""
    return records(add_group, Role.PROTECTED)


def point(sequence: int = 1) -> Point:
    return Point(PointId(fresh()), GROUP, sequence, NOW, NOW + timedelta(seconds=1), None, b"d" * 16, 4096, 0)


FULL = group(
    Role.PROTECTED,
    version=7,
    term=3,
    announced=True,
    common=replace(point(12), generation=GenerationId(b"g" * 16)),
    equal_at=NOW,
    generation_due=True,
    generation=GenerationId(b"g" * 16),
    pending=pending(13, SyncState.SEALING),
    incoming=Incoming(SyncId(fresh()), PointId(fresh()), 14, PointId(fresh()), NOW, b"plan", 1 << 40),
)
BARE = group(rpo_s=None)


@pytest.mark.parametrize("value", [FULL, BARE])
def test_a_group_comes_back_as_it_was_written(records: Records, value: Group) -> None:
    records(peers.insert, peer(), NOW)
    records(groups.insert, value)
    records.reopen()
    assert records(groups.get, "shop") == value
    assert records(groups.by_id, GROUP) == value
    assert records(groups.all) == (value,)
    after = replace(value, common=None, pending=None, incoming=None, equal_at=None, keep=9)
    assert records(groups.update, after, expects=value.version) == replace(after, version=value.version + 1)
    assert records(groups.get, "shop") == replace(after, version=value.version + 1)


def test_names_are_taken_once_and_unknown_ones_are_named(records: Records, shop: Group) -> None:
    with pytest.raises(NameTaken):
        records(groups.insert, replace(shop, id=GroupId(fresh())))
    with pytest.raises(UnknownName, match="mail"):
        records(groups.get, "mail")
    with pytest.raises(UnknownName):
        records(groups.by_id, GroupId(b"?" * 16))
    assert records(groups.find, "mail") is None


def test_a_change_decided_on_an_older_version_is_refused_whole(records: Records, shop: Group) -> None:
    records(groups.update, replace(shop, keep=5), expects=shop.version)
    before = records.everything()
    with pytest.raises(Raced):
        records(groups.update, replace(shop, role=Role.DEMOTED), expects=shop.version)
    assert records.everything() == before
    assert records(groups.get, "shop").role is Role.PROTECTED


async def test_of_many_that_decide_on_one_version_exactly_one_wins(records: Records, shop: Group) -> None:
    def change(conn: sqlite3.Connection, keep: int) -> Group:
        return groups.update(conn, replace(shop, keep=keep), expects=shop.version)

    outcomes = await asyncio.gather(
        *(records.database.transact(lambda conn, keep=keep: change(conn, keep)) for keep in range(100, 150)),
        return_exceptions=True,
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, Group)]
    assert len(won) == 1
    assert {type(outcome) for outcome in outcomes} == {Group, Raced}
    assert records(groups.get, "shop") == won[0]


async def test_counting_up_by_compare_and_set_loses_nothing(records: Records, shop: Group) -> None:
    async def add_one() -> None:
        found = await records.database.read(lambda conn: groups.get(conn, "shop"))
        more = replace(found, keep=found.keep + 1)
        try:
            await records.database.transact(lambda conn: groups.update(conn, more, expects=found.version))
        except Raced:
            await add_one()

    await asyncio.gather(*(add_one() for _ in range(20)))
    assert records(groups.get, "shop").keep == shop.keep + 20


def test_one_sync_at_a_time(records: Records, shop: Group) -> None:
    first = pending()
    assert records(groups.begin_capture, GROUP, first).pending == first
    with pytest.raises(Raced, match="under way"):
        records(groups.begin_capture, GROUP, pending())
    assert records(groups.get, "shop").pending == first


def test_a_sync_decided_on_an_older_version_does_not_begin(records: Records, shop: Group) -> None:
    records(groups.update, replace(shop, role=Role.DEMOTED), expects=shop.version)
    with pytest.raises(Raced, match="version"):
        records(groups.begin_capture, GROUP, pending(), expects=shop.version)
    assert records(groups.begin_capture, GROUP, pending(), expects=shop.version + 1).pending is not None


def test_the_recovery_side_captures_nothing(records: Records) -> None:
    records(add_group, Role.RECOVERY)
    with pytest.raises(Raced, match="recovery"):
        records(groups.begin_capture, GROUP, pending())


def test_a_sync_goes_from_seeding_to_running_to_sealing_to_adopted(records: Records, shop: Group) -> None:
    begun = pending(state=SyncState.SEEDING)
    later, latest = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
    records(groups.begin_capture, GROUP, begun)
    running = records(groups.captured, GROUP, begun.sync, captured_at=later).pending
    assert running == replace(begun, state=SyncState.RUNNING, captured_at=later)
    sealing = records(groups.sealing, GROUP, begun.sync).pending
    assert sealing == replace(begun, state=SyncState.SEALING, captured_at=later)
    assert records(groups.sealing, GROUP, begun.sync, captured_at=latest).pending == replace(
        sealing, captured_at=latest
    )
    sealed = replace(point(), id=begun.point)
    adopted = records(groups.adopt, GROUP, sealed)
    assert (adopted.pending, adopted.common) == (None, sealed)
    with pytest.raises(Raced):
        records(groups.adopt, GROUP, sealed)
    with pytest.raises(Raced):
        records(groups.sealing, GROUP, begun.sync)


def test_only_the_pending_point_is_adopted(records: Records, shop: Group) -> None:
    records(groups.begin_capture, GROUP, pending())
    before = records.everything()
    with pytest.raises(Raced, match="not the pending"):
        records(groups.adopt, GROUP, point())
    assert records.everything() == before


def test_a_stale_sync_moves_nothing(records: Records, shop: Group) -> None:
    records(groups.begin_capture, GROUP, pending())
    before = records.everything()
    for change in (groups.sealing, groups.abandon):
        with pytest.raises(Raced):
            records(change, GROUP, SyncId(fresh()))
    with pytest.raises(Raced):
        records(groups.captured, GROUP, SyncId(fresh()), captured_at=NOW)
    assert records.everything() == before


def test_an_abandoned_sync_is_gone_and_again_changes_nothing(records: Records, shop: Group) -> None:
    begun = pending()
    records(groups.begin_capture, GROUP, begun)
    after = records(groups.abandon, GROUP, begun.sync)
    assert after.pending is None
    assert records(groups.abandon, GROUP) == after
    assert records(groups.abandon, GROUP, begun.sync) == after


def test_equality_moves_forward_only(records: Records, shop: Group) -> None:
    later = records(groups.equal, GROUP, NOW + timedelta(minutes=1))
    assert later.equal_at == NOW + timedelta(minutes=1)
    assert records(groups.equal, GROUP, NOW) == later


def test_an_announcement_is_noted_once(records: Records, shop: Group) -> None:
    noted = records(groups.announced, GROUP)
    assert noted.announced
    assert records(groups.announced, GROUP) == noted


def test_a_generation_begins_once_and_only_when_due(records: Records, shop: Group) -> None:
    born = Generation(GenerationId(fresh()), None, SITE.id, None, NOW, 0)
    with pytest.raises(Raced):
        records(groups.begin_generation, GROUP, born)
    assert records(generations.of_group, GROUP) == ()
    due = records(groups.update, replace(shop, generation_due=True), expects=shop.version)
    begun = records(groups.begin_generation, GROUP, born)
    assert (begun.generation, begun.generation_due, begun.version) == (born.id, False, due.version + 1)
    assert records(generations.of_group, GROUP) == (born,)
    with pytest.raises(Raced):
        records(groups.begin_generation, GROUP, born)


def test_a_removed_group_frees_its_volumes_and_leaves_its_layers_dead(records: Records) -> None:
    records(add_group)
    records(receive)
    newest = records(receive)
    held = snapshot(newest)
    records(snapshots.create, held)
    before = records.everything()
    with pytest.raises(RefusedByState, match="snapshot test"):
        records(groups.delete, GROUP)
    assert records.everything() == before
    records(snapshots.deleting, held.id)
    records(snapshots.delete, held.id)
    records(groups.delete, GROUP)
    assert records(groups.all) == ()
    assert records(points.of_group, GROUP) == ()
    for member in VOLUMES:
        assert records(volumes.by_id, member).group is None
        assert [layer.state for layer in records(layers.of_volume, member)] == [LayerState.DEAD]


def test_a_promoted_group_can_be_removed(records: Records) -> None:
    records(add_group)
    records(promote_at, records(receive))
    records(groups.delete, GROUP)
    assert records(groups.all) == ()
    assert [records(volumes.by_id, member).top for member in VOLUMES] == [None, None]
