"""Claims about reading replies: newer daemons are understood, anything else is refused by name."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from engine.api import replies
from engine.errors import BadValue, LeewardError, UnknownName
from engine.requests import ErrorDoc, GroupDoc, JobDoc, PointDoc, ProgressDoc, VolumeDoc, error_doc

POINT = PointDoc("0a" * 16, 3, "2026-11-02T13:48:24Z", "2026-11-02T13:48:25Z", 4096, True)
VOLUME = VolumeDoc("v", 10, "/srv/v", "active", None, "6001405")
GROUP = GroupDoc("g", "id", "protected", "ok", "", "p", True, 300, 1.5, 0, None, POINT, (VOLUME, VOLUME))


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(value)))


def test_a_nested_document_survives_json() -> None:
    assert replies.document(GroupDoc, through_json(GROUP)) == GROUP


def test_fields_of_a_newer_daemon_are_passed_over() -> None:
    assert replies.document(PointDoc, {**through_json(POINT), "verified": True}) == POINT


def test_a_field_with_a_default_may_be_missing_from_an_older_daemon() -> None:
    job = replies.document(JobDoc, {"id": "1", "kind": "sync", "group": None, "state": "queued", "created_at": "t"})
    assert job == JobDoc("1", "sync", None, "queued", "t")


def test_a_whole_number_is_read_where_a_fraction_may_stand() -> None:
    progress = replies.document(ProgressDoc, {"phase": "x", "done_bytes": 1, "total_bytes": 2, "bytes_per_s": 3})
    assert isinstance(progress.bytes_per_s, float)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"id": 7}, "GroupDoc.id is no str"),
        ({"peer_connected": 1}, "GroupDoc.peer_connected is no bool"),
        ({"backlog_bytes": True}, "GroupDoc.backlog_bytes is no int"),
        ({"backlog_bytes": None}, "GroupDoc.backlog_bytes is no int"),
        ({"last_point": []}, "GroupDoc.last_point is no object"),
        ({"volumes": {}}, "GroupDoc.volumes is no list"),
        ({"volumes": [{"name": "v"}]}, "GroupDoc.volumes[0] has no size"),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(change: dict[str, Any], where: str) -> None:
    with pytest.raises(replies.ReplyMalformed) as caught:
        replies.document(GroupDoc, {**through_json(GROUP), **change})
    assert str(caught.value) == where


def test_a_list_is_not_taken_for_a_document_nor_a_document_for_a_list() -> None:
    with pytest.raises(replies.ReplyMalformed):
        replies.document(PointDoc, [])
    with pytest.raises(replies.ReplyMalformed):
        replies.documents(PointDoc, {})


def test_a_remote_error_looks_like_the_one_that_was_raised() -> None:
    raised = UnknownName(what="group", name="g")
    remote = replies.failure({"error": through_json(error_doc(raised))})
    for error in (raised, remote):
        assert (error.code, str(error), error.remedy, error.details(), error.exit_status) == (
            "unknown_name",
            "There is no group named g here.",
            "Run `leeward status` to see what there is.",
            {"what": "group", "name": "g"},
            1,
        )
    assert isinstance(remote, LeewardError)
    assert replies.describe(remote) == replies.describe(raised)


def test_the_remedy_is_filled_with_the_facts() -> None:
    from engine.errors import DaemonUnreachable

    assert "`leeward serve --data /d`" in error_doc(DaemonUnreachable(data="/d", reason="r")).remedy


def test_what_is_no_error_of_ours_is_internal_and_says_what_it_was() -> None:
    assert error_doc(KeyError("k")) == ErrorDoc(
        "internal",
        "Something failed inside Leeward: KeyError: 'k'.",
        LeewardError.remedy,
        {"reason": "KeyError: 'k'"},
        1,
    )


def test_a_failure_without_an_error_is_refused() -> None:
    for reply in ({}, [], {"error": 3}, {"error": {"code": "x"}}):
        with pytest.raises(replies.ReplyMalformed):
            replies.failure(reply)


def test_an_error_reply_names_its_exit_status() -> None:
    doc = error_doc(BadValue(what="size", value="x", reason="r"))
    assert replies.failure({"error": through_json(doc)}).exit_status == 2
