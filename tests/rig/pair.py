"""Two paired daemons and a group: what most tests of replication start with.

with Pair(tmp_path, volumes=3, size="64M") as pair:
    ... write through pair.exports() ...
    pair.sync()
    with pair.snapshot() as exports: ...
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rig.daemon import Daemon

GROUP = "shop"


class Pair:
    """`east` protects, `west` recovers; a group `shop` of the volumes `data0`, `data1`...

    `plain`: no TLS between them. `stores`: the store of each volume at east, and `recovery_stores` at west, where
    they are not to be sparse files in the daemons' own folders.
    """

    def __init__(
        self,
        folder: Path,
        *,
        volumes: int = 1,
        size: str = "64M",
        plain: bool = False,
        keep: int = 24,
        rpo: str | None = None,
        stores: list[Path] | None = None,
        recovery_stores: list[Path] | None = None,
    ) -> None:
        self.folder = folder
        self.east = Daemon(folder / "east", "east")
        self.west = Daemon(folder / "west", "west")
        self.group = GROUP
        self.volumes = [f"data{number}" for number in range(volumes)]
        self._size = size
        self._plain = plain
        self._keep = keep
        self._promise = ["--rpo", rpo] if rpo else []
        self._stores = stores
        self._recovery_stores = recovery_stores

    def make(self) -> None:
        """Init, start, pair, add the volumes, create the group; returns when both sites have it."""
        for daemon in (self.east, self.west):
            daemon.init()
            daemon.start()
        self.introduce()
        for number, name in enumerate(self.volumes):
            if self._recovery_stores:
                store = str(self._recovery_stores[number])
                self.west.run("volume", "add", name, "--store", store, "--recovery")
            if self._stores:
                self.east.run("volume", "add", name, "--store", str(self._stores[number]))
            else:
                store = str(self.east.folder / f"{name}.store")
                self.east.run("volume", "add", name, "--store", store, "--size", self._size)
        volumes = [word for name in self.volumes for word in ("--volume", name)]
        self.east.run(
            "group", "create", self.group, *volumes, "--peer", "west", "--keep", str(self._keep), *self._promise
        )
        self.wait_connected()

    def introduce(self) -> None:
        """Pair the two sites, each by the fingerprint of the other."""
        for daemon, other in ((self.east, self.west), (self.west, self.east)):
            words = ["peer", "add", other.name, "--address", other.listen, "--fingerprint", other.fingerprint]
            daemon.run(*words, *(["--plain"] if self._plain else []))

    def wait_connected(self, timeout_s: float = 30) -> None:
        """Return when both sites say that the other one is connected, and the recovery site has the group."""
        deadline = time.monotonic() + timeout_s
        while not (self._is_connected(self.east) and self._is_connected(self.west) and self._is_known()):
            assert time.monotonic() < deadline, (
                f"not connected after {timeout_s} s:\n{self.east.log()}\n{self.west.log()}"
            )
            time.sleep(0.02)  # between two looks at a condition

    @staticmethod
    def _is_connected(daemon: Daemon) -> bool:
        return all(peer["connected"] for peer in daemon.run("status")["peers"])

    def _is_known(self) -> bool:
        return any(group["name"] == self.group for group in self.west.run("status")["groups"])

    def sync(self, *, timeout_s: float = 120) -> dict[str, Any]:
        """`leeward sync` at the protected site; its document."""
        return dict(self.east.run("sync", self.group, timeout_s=timeout_s))

    def points(self) -> list[dict[str, Any]]:
        """The recovery points, newest first."""
        return list(self.west.run("points", self.group))

    def exports(self) -> list[str]:
        """The NBD URIs of the volumes at the protected site."""
        return self.east.exports(self.group)

    @contextlib.contextmanager
    def snapshot(self, point: str | None = None, name: str = "look") -> Iterator[list[str]]:
        """The NBD URIs of a snapshot of a point (the newest by default) at the recovery site, deleted afterwards."""
        words = ["--point", point] if point else []
        document = self.west.run("snapshot", "create", self.group, "--name", name, *words)
        try:
            yield [volume["export"] for volume in document["volumes"]]
        finally:
            self.west.run("snapshot", "delete", self.group, name)

    def close(self) -> None:
        """Kill both daemons."""
        self.east.close()
        self.west.close()

    def __enter__(self) -> Pair:
        try:
            self.make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
