"""A network of its own for a daemon: a namespace joined to ours by a veth pair, whose ends go down and are slowed.

with Veth("10.77.0") as wire:
    daemon.prefix = wire.prefix      # runs there
    daemon.listen = f"{wire.there}:{port}"
    wire.down(); wire.up(); wire.limit("100mbit")

Needs root and iproute2, as every test here that has a device.
"""

from __future__ import annotations

import os
import subprocess
from typing import Self


class Veth:
    """`here` and `there` are the addresses of the two ends; `net` is three numbers of an IPv4 network of 256."""

    def __init__(self, net: str) -> None:
        self.here, self.there = f"{net}.1", f"{net}.2"
        mark = f"{os.getpid():x}"[-6:]
        self._space, self._near, self._far = f"lw{mark}", f"lwa{mark}", f"lwb{mark}"
        self.prefix = ("ip", "netns", "exec", self._space)

    def __enter__(self) -> Self:
        _ip("netns", "add", self._space)
        try:
            _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._space)
            _ip("addr", "add", f"{self.here}/24", "dev", self._near)
            _ip("link", "set", self._near, "up")
            for words in (
                ("addr", "add", f"{self.there}/24", "dev", self._far),
                ("link", "set", self._far, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", self._space, *words)
        except BaseException:
            self.close()
            raise
        return self

    def down(self) -> None:
        """The cable is pulled: nothing arrives, and nobody is told."""
        _ip("link", "set", self._near, "down")

    def up(self) -> None:
        _ip("link", "set", self._near, "up")

    def limit(self, rate: str) -> None:
        """Both directions carry `rate` (tc's words, such as 100mbit) at most."""
        shape = ("root", "tbf", "rate", rate, "burst", "64k", "latency", "50ms")
        _run("tc", "qdisc", "replace", "dev", self._near, *shape)
        _run(*self.prefix, "tc", "qdisc", "replace", "dev", self._far, *shape)

    def close(self) -> None:
        """Take it all away; the other end of the pair goes with the namespace."""
        subprocess.run(["ip", "netns", "del", self._space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._near], check=False, capture_output=True)

    def __exit__(self, *_: object) -> None:
        self.close()


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)
