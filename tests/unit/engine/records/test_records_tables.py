"""Site, peers, volumes, events and generations: what is written is what is read, after a restart too."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from records_build import (
    GROUP,
    IDENTITY,
    LARGEST_U64,
    NOW,
    SITE,
    VOLUMES,
    Records,
    add_group,
    fresh,
    group,
    peer,
    volume,
)

from engine.errors import NameTaken, Raced, RefusedByState, UnknownName
from engine.model import Generation, GenerationId, GroupId, PointId, SiteId, TrackingId, VolumeId, VolumeState
from engine.records import columns, events, generations, groups, peers, site, volumes


@pytest.mark.parametrize(
    "at",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 11, 24, 13, 37, 0, 1, tzinfo=UTC),
        datetime(2400, 2, 29, 1, 2, 3, 999_999, tzinfo=UTC),
        datetime(2026, 6, 1, 2, 0, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_times_are_exact_to_the_microsecond(at: datetime) -> None:
    assert columns.from_us(columns.to_us(at)) == at


@pytest.mark.parametrize("value", [0, 1, (1 << 63) - 1, 1 << 63, LARGEST_U64])
def test_numbers_of_64_bits_come_back(value: int) -> None:
    assert columns.from_u64(columns.to_u64(value)) == value


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_number_that_needs_more_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        columns.to_u64(value)


def test_the_site_is_there_from_the_start_and_only_once(records: Records) -> None:
    assert records(site.get) == SITE
    with pytest.raises(sqlite3.IntegrityError):
        records(site.insert, replace(SITE, name="other"), NOW)


def test_a_peer_comes_back_as_it_was_added(records: Records) -> None:
    records(peers.insert, peer("south"), NOW)
    records(peers.insert, replace(peer("east"), plain=True), NOW)
    records.reopen()
    assert records(peers.get, "south") == peer("south")
    assert [found.name for found in records(peers.all)] == ["east", "south"]
    assert records(peers.get, "east").plain


def test_a_peer_is_added_once_and_unknown_ones_are_named(records: Records) -> None:
    records(peers.insert, peer(), NOW)
    with pytest.raises(NameTaken):
        records(peers.insert, peer(), NOW)
    with pytest.raises(UnknownName, match="west"):
        records(peers.get, "west")
    with pytest.raises(UnknownName, match="west"):
        records(peers.delete, "west")


def test_a_peer_never_becomes_another_site(records: Records) -> None:
    records(peers.insert, peer(), NOW)
    records(peers.set_id, "south", SiteId(b"1" * 16))
    records(peers.set_id, "south", SiteId(b"1" * 16))
    with pytest.raises(Raced):
        records(peers.set_id, "south", SiteId(b"2" * 16))
    assert records(peers.get, "south").id == b"1" * 16


def test_a_peer_with_a_group_stays(records: Records) -> None:
    records(add_group)
    with pytest.raises(RefusedByState, match="shop"):
        records(peers.delete, "south")
    records(groups.delete, GROUP)
    records(peers.delete, "south")
    assert records(peers.all) == ()


def test_a_volume_comes_back_with_all_64_bits(records: Records) -> None:
    added = volume(
        "db", prepared=True, identity=IDENTITY, tracking=TrackingId(fresh()), nonce=b"n" * 16, writes=1 << 40
    )
    records(volumes.insert, added)
    records.reopen()
    assert records(volumes.get, "db") == added
    assert records(volumes.by_id, added.id) == added
    assert records(volumes.all) == (added,)


def test_the_name_of_a_dead_volume_is_free_again(records: Records) -> None:
    old, new = volume("db"), volume("db")
    records(volumes.insert, old)
    with pytest.raises(NameTaken):
        records(volumes.insert, new)
    with pytest.raises(Raced):
        records(volumes.delete, old.id)
    records(volumes.set_state, old.id, VolumeState.DEAD)
    records(volumes.insert, new)
    assert records(volumes.get, "db").id == new.id
    assert [dead.id for dead in records(volumes.dead)] == [old.id]
    records(volumes.delete, old.id)
    assert records(volumes.dead) == ()


def test_a_failed_volume_says_why(records: Records) -> None:
    added = volume("db")
    records(volumes.insert, added)
    records(volumes.set_state, added.id, VolumeState.FAILED, "its store is gone")
    found = records(volumes.get, "db")
    assert (found.state, found.reason) == (VolumeState.FAILED, "its store is gone")
    records(volumes.set_state, added.id, VolumeState.ACTIVE)
    assert records(volumes.get, "db") == added


def test_an_open_volume_has_no_identity_and_a_stopped_one_has(records: Records) -> None:
    added = volume("db", identity=IDENTITY, writes=5)
    records(volumes.insert, added)
    tracking = TrackingId(fresh())
    records(volumes.opened, added.id, tracking=tracking, nonce=b"1" * 16)
    found = records(volumes.get, "db")
    assert (found.identity, found.tracking, found.nonce, found.writes) == (None, tracking, b"1" * 16, 5)
    records(volumes.opened, added.id, tracking=tracking, nonce=b"2" * 16, writes=5 + (1 << 32))
    assert records(volumes.get, "db").writes == 5 + (1 << 32)
    records(volumes.stopped, added.id, IDENTITY, writes=(1 << 32) + 9)
    found = records(volumes.get, "db")
    assert (found.identity, found.writes, found.nonce) == (IDENTITY, (1 << 32) + 9, b"2" * 16)


def test_opening_with_one_tracking_does_not_forget_a_planned_other(records: Records) -> None:
    added, planned = volume("db"), TrackingId(fresh())
    records(volumes.insert, added)
    records(volumes.plan_tracking, added.id, planned)
    records(volumes.opened, added.id, tracking=TrackingId(fresh()), nonce=b"")
    assert records(volumes.get, "db").tracking_next == planned
    records(volumes.opened, added.id, tracking=planned, nonce=b"")
    assert records(volumes.get, "db").tracking_next is None


def test_every_narrow_change_of_an_unknown_volume_is_refused(records: Records) -> None:
    with pytest.raises(UnknownName):
        records(volumes.set_writes, VolumeId(b"?" * 16), 1)


def test_a_volume_takes_the_hash_seed_of_its_group(records: Records) -> None:
    records(volumes.insert, volume("db", hash_seed=1))
    records(volumes.set_hash_seed, records(volumes.get, "db").id, LARGEST_U64)
    assert records(volumes.get, "db").hash_seed == LARGEST_U64


def test_a_volume_takes_the_size_of_the_peers_and_remembers_that_of_its_larger_store(records: Records) -> None:
    records(volumes.insert, volume("db", size_bytes=9000))
    records(volumes.fit, records(volumes.get, "db").id, size_bytes=5000, store_bytes=9000)
    found = records(volumes.get, "db")
    assert (found.size_bytes, found.store_bytes) == (5000, 9000)
    records(volumes.fit, found.id, size_bytes=9000, store_bytes=None)
    assert records(volumes.get, "db").store_bytes is None


def test_volumes_stand_in_the_order_given_to_their_group(records: Records) -> None:
    records(add_group)
    members = records(volumes.of_group, GROUP)
    assert [(member.id, member.position) for member in members] == [(VOLUMES[0], 0), (VOLUMES[1], 1)]
    other = replace(group(), id=GroupId(b"H" * 16), name="other")
    records(groups.insert, other)
    free = volume("aaa")
    records(volumes.insert, free)
    with pytest.raises(Raced, match="db"):
        records(volumes.assign, other.id, [free.id, VOLUMES[0]])
    assert records(volumes.of_group, other.id) == ()  # not by halves


def test_events_are_numbered_and_read_from_any_number_on(records: Records) -> None:
    for number in range(5):
        records(events.append, at=NOW, level="info", code="c", message=f"m{number}", group="shop", details='{"n": 1}')
    found = records(events.after, 2, 2)
    assert [(event.sequence, event.message) for event in found] == [(3, "m2"), (4, "m3")]
    assert found[0].at == NOW
    assert (found[0].level, found[0].code, found[0].group, found[0].details) == ("info", "c", "shop", '{"n": 1}')
    assert [event.sequence for event in records(events.newest, 2)] == [4, 5]
    assert records(events.after, 5, 10) == ()


def test_only_the_newest_events_are_kept_and_no_number_is_given_twice(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT", 3)
    for number in range(10):
        records(events.append, at=NOW, level="info", code="c", message=str(number))
    assert [event.sequence for event in records(events.after, 0, 100)] == [8, 9, 10]
    records(lambda conn: conn.execute("DELETE FROM event"))
    records.reopen()
    assert records(events.append, at=NOW, level="info", code="c", message="m").sequence == 11


def test_the_write_counter_of_a_known_generation_only_grows(records: Records) -> None:
    records(add_group)
    first = Generation(GenerationId(fresh()), None, SITE.id, PointId(fresh()), NOW, 7)
    second = Generation(GenerationId(fresh()), first.id, SiteId(b"o" * 16), None, NOW, 0)
    records(generations.note, GROUP, [first, second])
    records(generations.note, GROUP, [replace(first, writes=5)])
    assert records(generations.of_group, GROUP) == (first, second)
    records(generations.note, GROUP, [replace(first, writes=9)])
    assert records(generations.of_group, GROUP) == (replace(first, writes=9), second)
