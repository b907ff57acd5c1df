"""A pair in step, and a model of what each side must show: what tests of role changes and set-asides stand on."""

from __future__ import annotations

from rig.daemon import Daemon
from rig.nbd import NbdClient
from rig.pair import Pair

BLOCK = 4096
BLOCKS = 64
SIZE = BLOCKS * BLOCK + 512


class Sides:
    """A pair in step, and a model of what each side must show: block -> byte."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.east, self.west, self.group = pair.east, pair.west, pair.group
        self.expected: dict[str, dict[int, int]] = {"east": dict.fromkeys(range(BLOCKS), 1), "west": {}}
        for uri in self.exports(self.east):
            with NbdClient(uri) as client:
                client.pwrite(b"\x01" * BLOCKS * BLOCK, 0)
        self.sync(self.east, moved=None)

    def exports(self, side: Daemon) -> list[str]:
        return [uri for uri in side.exports(self.group) if uri]

    def write(self, side: Daemon, block: int, value: int) -> None:
        """The same write to every volume of the group."""
        for uri in self.exports(side):
            with NbdClient(uri) as client:
                client.pwrite(bytes([value]) * BLOCK, block * BLOCK)
                client.flush()
        self.expected[side.name][block] = value

    def sync(self, source: Daemon, *, moved: int | None) -> None:
        """Ship; `moved` blocks a volume. Then the other side shows what the source does."""
        target = self.west if source is self.east else self.east
        done = source.run("sync", self.group)
        if moved is not None:
            assert done["bytes_sent"] == moved * BLOCK * len(self.pair.volumes), done
        self.expected[target.name] = dict(self.expected[source.name])
        self.check_point(target)

    def check_point(self, side: Daemon) -> None:
        """The newest recovery point at a side shows what is expected of it."""
        made = side.run("snapshot", "create", self.group, "--name", "look")
        try:
            self._check(side, [volume["export"] for volume in made["volumes"]])
        finally:
            side.run("snapshot", "delete", self.group, "look")

    def check_live(self, side: Daemon) -> None:
        self._check(side, self.exports(side))

    def _check(self, side: Daemon, uris: list[str]) -> None:
        expected = b"".join(bytes([self.expected[side.name][block]]) * BLOCK for block in range(BLOCKS))
        for uri in uris:
            with NbdClient(uri) as client:
                assert bytes(client.pread(BLOCKS * BLOCK, 0)) == expected, f"{side.name} shows another image"

    def promote(self, side: Daemon, *words: str) -> None:
        side.run("promote", self.group, *words)
        self.check_live(side)

    def part_ways(self) -> None:
        """East wrote block 1 and died, west was promoted and wrote block 2; then east is back."""
        self.write(self.east, 1, 11)
        self.east.kill()
        self.promote(self.west)
        self.write(self.west, 2, 22)
        self.east.start()
        self.pair.wait_connected()

    def role(self, side: Daemon) -> str:
        return str(side.group(self.group)["role"])
