"""Tell systemd how the daemon is: sd_notify(3) datagrams on NOTIFY_SOCKET; nothing where there is none."""

from __future__ import annotations

import contextlib
import os
import socket


def ready(status: str) -> None:
    """Boot has converged and every listener answers."""
    _send(f"READY=1\nSTATUS={status}")


def stopping() -> None:
    """An orderly stop has begun."""
    _send("STOPPING=1")


def _send(text: str) -> None:
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    target = "\0" + path[1:] if path.startswith("@") else path
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    # Nobody to tell is no reason to stop serving.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as notifier:
        notifier.sendto(text.encode(), target)
