"""What a group's state is called, and how far its recovery copy is behind. Pure."""

from __future__ import annotations

from datetime import datetime

from engine.model import Group, Role


def state_of(group: Group, *, failed: str, is_syncing: bool, is_split: bool, is_seeded: bool) -> tuple[str, str]:
    """(state, reason): one of unseeded, seeding, ok, syncing, paused, split, failed; the reason may be empty."""
    if failed:
        return "failed", failed
    if is_split:
        return "split", "both sites are writable: see `leeward events`"
    if group.paused_at is not None:
        return "paused", f"nothing is sent since {group.paused_at:%Y-%m-%d %H:%M:%SZ}: `leeward resume {group.name}`"
    if not is_seeded:
        if is_syncing or group.incoming is not None or group.pending is not None:
            return "seeding", "the first copy is not complete: there is no recovery point yet"
        return "unseeded", "no sync has run yet" if group.announced else "the peer does not know this group yet"
    return ("syncing", "") if is_syncing else ("ok", "")


def fresh_as_of(group: Group) -> datetime | None:
    """The newest moment that the recovery copy is known to stand for; None if there is no point yet.

    At the recovery side only what it holds counts, not what the peer may have written since.
    """
    times = [group.equal_at, group.common.captured_at if group.common else None]
    return max((at for at in times if at is not None), default=None)


def lag_s(group: Group, now: datetime) -> float | None:
    """Seconds since `fresh_as_of`, by the clocks of both sites; None if there is no point yet."""
    fresh = fresh_as_of(group)
    return max(0.0, (now - fresh).total_seconds()) if fresh is not None else None


def is_writable(group: Group) -> bool:
    """Whether hosts may write the group's volumes at this site."""
    return group.role is Role.PROTECTED
