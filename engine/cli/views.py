"""A group, a whole site and a job as people read them; commands share these pictures.

This module must never ask a daemon anything.
"""

from __future__ import annotations

import json

from engine.cli import output, words
from engine.requests import GroupDoc, JobDoc, PeerDoc, PointDoc, SetAsideDoc, SnapshotDoc, StatusDoc, VolumeDoc


def group(doc: GroupDoc) -> None:
    reason = f" ({doc.reason})" if doc.reason else ""
    link = "connected" if doc.peer_connected else "no contact"
    output.facts(
        [
            ("group", doc.name),
            ("role", doc.role),
            ("state", doc.state + reason),
            ("peer", f"{doc.peer} ({link})"),
            ("recovery point objective", words.promise(doc)),
            ("lag", words.duration(doc.lag_s)),
            ("backlog", words.size(doc.backlog_bytes)),
            ("caught up in", words.duration(doc.eta_s)),
            ("last point", words.point(doc.last_point)),
            ("points", f"{doc.points}, {words.size(doc.points_bytes)}"),
            ("kept", f"the newest {doc.keep}" + (f", and {doc.retain}" if doc.retain else "")),
        ]
    )
    output.line()
    volumes(doc.volumes)


def groups(docs: tuple[GroupDoc, ...]) -> None:
    rows = [
        (
            doc.name,
            doc.role,
            doc.state,
            doc.peer,
            words.duration(doc.lag_s),
            words.size(doc.backlog_bytes),
            words.point(doc.last_point),
            f"{doc.points}, {words.size(doc.points_bytes)}",
            doc.reason,
        )
        for doc in docs
    ]
    columns = ("group", "role", "state", "peer", "lag", "backlog", "last point", "points", "reason")
    output.table(columns, rows, "There are no groups; make one with `leeward group create`.")


def peers(docs: tuple[PeerDoc, ...]) -> None:
    rows = [
        (
            doc.name,
            doc.address,
            "connected" if doc.connected else "no contact",
            words.yes(not doc.plain),
            doc.fingerprint,
        )
        for doc in docs
    ]
    columns = ("peer", "address", "link", "tls", "fingerprint")
    output.table(columns, rows, "There are no peers; pair one with `leeward peer invite`.")


def volumes(docs: tuple[VolumeDoc, ...]) -> None:
    rows = [
        (doc.name, words.size(doc.size), doc.state, doc.group or "", doc.store, doc.export or "", doc.reason)
        for doc in docs
    ]
    columns = ("volume", "size", "state", "group", "store", "export", "reason")
    output.table(columns, rows, "There are no volumes; add one with `leeward volume add`.")


def points(docs: tuple[PointDoc, ...]) -> None:
    rows = [
        (
            str(doc.sequence),
            doc.id,
            words.moment(doc.captured_at),
            words.moment(doc.sealed_at),
            words.size(doc.bytes),
            words.size(doc.space_bytes),
            words.yes(doc.pinned),
        )
        for doc in docs
    ]
    columns = ("point", "id", "captured", "sealed", "changed", "space", "pinned")
    output.table(columns, rows, "There are no recovery points yet; make one with `leeward sync`.")


def snapshots(docs: tuple[SnapshotDoc, ...]) -> None:
    rows = [
        (
            doc.name,
            doc.group,
            words.point(doc.point),
            words.size(doc.bytes),
            words.moment(doc.expires_at),
            volume.name,
            doc.reason or volume.export,
        )
        for doc in docs
        for volume in doc.volumes
    ]
    columns = ("snapshot", "group", "point", "written", "until", "volume", "export")
    output.table(columns, rows, "There are no snapshots.")


def set_asides(docs: tuple[SetAsideDoc, ...]) -> None:
    rows = [
        (doc.name, words.moment(doc.created_at), words.size(doc.bytes), doc.why, words.yes(bool(doc.volumes)))
        for doc in docs
    ]
    output.table(("set-aside", "since", "changed", "by", "exported"), rows, "Nothing is set aside.")


def status(doc: StatusDoc) -> None:
    for shown in doc.groups:
        output.line(f"{shown.name}: {words.failover(shown)}.")
    if doc.groups:
        output.line()
    output.line(f"Site {doc.site.name} ({doc.site.id}), Leeward {doc.site.version}")
    output.line()
    peers(doc.peers)
    output.line()
    groups(doc.groups)
    if doc.link is not None and doc.link.limit:
        output.line()
        output.line(f"Sends at most {words.rate(doc.link.limit_bytes_per_s)}, {doc.link.reason}.")
    if doc.snapshots:
        output.line()
        snapshots(doc.snapshots)


def jobs(docs: tuple[JobDoc, ...]) -> None:
    rows = [
        (
            doc.id,
            doc.kind,
            doc.group or "",
            doc.state,
            words.moment(doc.created_at),
            words.moment(doc.finished_at),
            doc.error.message if doc.error else "",
        )
        for doc in docs
    ]
    columns = ("operation", "kind", "group", "state", "asked", "finished", "error")
    output.table(columns, rows, "There are no operations.")


def job(doc: JobDoc) -> None:
    pairs = [
        ("operation", doc.id),
        ("kind", doc.kind),
        ("group", doc.group or "-"),
        ("state", doc.state),
        ("asked", words.moment(doc.created_at)),
        ("started", words.moment(doc.started_at)),
        ("finished", words.moment(doc.finished_at)),
    ]
    if doc.progress is not None:
        pairs.append(("progress", output.amount(doc.progress)))
    if doc.error is not None:
        pairs += [("error", f"{doc.error.message} [{doc.error.code}]"), ("remedy", doc.error.remedy)]
    if doc.outcome is not None:
        pairs.append(("outcome", json.dumps(doc.outcome)))
    output.facts(pairs)
