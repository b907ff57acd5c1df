"""Numbers and times as people read them. JSON never goes through here.

This module must never do I/O.
"""

from __future__ import annotations

from engine.requests import GroupDoc, PointDoc


def size(count: int) -> str:
    """Bytes in the largest unit of 1024 that leaves a whole part: "512 B", "3.0 MiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def rate(bytes_per_s: float | None) -> str:
    """Bytes a second; None: no limit."""
    return "as fast as it can" if bytes_per_s is None else f"{size(round(bytes_per_s))}/s"


def duration(seconds: float | None) -> str:
    """Seconds in at most two units: "0.3 s", "5 min 3 s", "2 d 4 h"; "-" where there is none."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, large_name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {large_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def moment(rfc3339: str | None) -> str:
    """A time of the API, to the second, still UTC: "2026-11-02 13:48:24Z"."""
    if not rfc3339:
        return "-"
    day, _, clock = rfc3339.partition("T")
    return f"{day} {clock[:8]}Z"


def point(doc: PointDoc | None) -> str:
    """A point by its number and capture time."""
    return "none yet" if doc is None else f"{doc.sequence} of {moment(doc.captured_at)}"


def yes(value: bool) -> str:
    return "yes" if value else "no"


def promise(doc: GroupDoc) -> str:
    """The RPO of a group, whether it is kept now, and how well it was: "2.0 s, kept; 99.8 % of the last day"."""
    if doc.rpo_s is None:
        return "none: synced when asked"
    now = {True: ", kept", False: ", BROKEN", None: ""}[doc.rpo_kept]
    share = "" if doc.rpo_kept_percent is None else f"; kept {_floor(doc.rpo_kept_percent)} % of the last day"
    return duration(doc.rpo_s) + now + share


def failover(doc: GroupDoc) -> str:
    """Could the recovery site take over now, and how much would be lost: the first thing asked on a bad day."""
    here = doc.role == "recovery"
    taker = "this site" if here else doc.peer
    if doc.state == "split":
        return "written at both sites: choose one with `leeward reverse` or `leeward restore`"
    if doc.last_point is None:
        return f"{taker} CANNOT take over: it has no recovery point yet"
    if here and doc.state == "failed":
        return f"this site CANNOT take over: {doc.reason}"
    lost = f"what was written in the last {duration(doc.lag_s)} would be lost"
    if here:
        return f"this site can take over now; {lost}"
    if not doc.peer_connected:
        return f"no contact with {taker}: as far as is known it can take over; {lost}"
    return f"{taker} can take over now; {lost}" + (f", at most {size(doc.backlog_bytes)}" if doc.backlog_bytes else "")


def _floor(percent: float) -> str:
    """Two decimals, never rounded up: 100 is said when nothing was missed."""
    return f"{int(percent * 100) / 100:g}"
