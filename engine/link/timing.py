"""How patient a link is: every interval, deadline and count of `link` in one value.

This module must never read a clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, unless a name says otherwise. After an outage a link stands at most 10 s after the peer answers."""

    ping_s: float = 2.0
    """A PING goes out this often, from both sides, whatever else is on the link."""

    silent_pings: int = 5
    """So many ping intervals without one byte from the peer, and the link is given up."""

    user_timeout_s: float = 10.0
    """TCP_USER_TIMEOUT: the kernel gives up when sent bytes stay unacknowledged for so long."""

    attempt_s: float = 5.0
    """One attempt to dial, from the look-up of the name to the peer's HELLO."""

    backoff_first_s: float = 0.25
    backoff_most_s: float = 4.0
    """Waits between attempts double from the first to the most, less up to a quarter at random."""

    steady_s: float = 2.0
    """A link that ends sooner counts as a failed attempt: it is not dialled again without a wait."""

    stranger_s: float = 10.0
    """A connection has so long to say who it is."""

    strangers: int = 32
    strangers_per_address: int = 4
    """Connections that have not said yet who they are."""

    linger_s: float = 1.0
    """So long a closing connection may take to deliver what was written."""

    complain_s: float = 60.0
    """The same complaint about the same address is reported again after so long."""
