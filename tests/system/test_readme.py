"""Every command of the README's real pair, run as it stands there, in its order.

A block that follows `<!-- run: SITE -->` is run at that site. What differs from host to host is put in its place:
data directories, addresses, and the token that the first site printed.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.daemon import LEEWARD, Daemon
from rig.nbd import NbdClient
from rig.source import ROOT
from rig.until import until

BLOCK = re.compile(r"<!-- run: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
SITES = ("east", "west")


def readme_lines() -> list[tuple[str, str]]:
    """(site, command) in the order of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [(site, line) for site, block in BLOCK.findall(text) for line in block.splitlines()]


class Hosts:
    """Two hosts on this one: a daemon each, and the README's words for what is theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sites = {name: Daemon(folder / name, name) for name in SITES}
        self.token = ""
        self.image = os.urandom(3 << 20) + bytes(1 << 20)
        (folder / "disk.img").write_bytes(self.image)

    def close(self) -> None:
        for daemon in self.sites.values():
            daemon.close()

    def here(self, site: str, line: str) -> str:
        """The command with what differs from host to host."""
        daemon = self.sites[site]
        line = line.replace("127.0.0.1:10809", daemon.nbd).replace("0.0.0.0:7450", daemon.listen)
        line = line.replace("/var/lib/leeward", str(daemon.data))
        for name, other in self.sites.items():
            line = line.replace(f"{name}.example:7450", other.listen)
        return line.replace("leeward1...", self.token)

    def run(self, site: str, line: str) -> str:
        """Run one line of the README at `site`; what it printed."""
        daemon, line = self.sites[site], self.here(site, line)
        if line.startswith("leeward serve"):
            daemon.launch()
            daemon.wait_until_serving()
            return ""
        if line.startswith("leeward reverse"):  # a promotion makes the sites dial each other anew
            until(lambda: all(peer["connected"] for peer in daemon.run("status")["peers"]), "contact", 30)
        if line.startswith("leeward init"):
            line += f" --nbd {daemon.nbd} --api {daemon.api}"  # two sites on one host
        environment = {
            **os.environ,
            "LEEWARD_DATA": str(daemon.data),
            "PATH": f"{Path(LEEWARD).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["sh", "-euc", line], capture_output=True, text=True, env=environment, cwd=self.folder, check=False
        )
        assert done.returncode == 0, f"{line!r} of the README ended with {done.returncode}: {done.stdout}{done.stderr}"
        if line.startswith("leeward peer invite"):
            found = re.search(r"leeward1[a-z2-7]+", done.stdout)
            assert found, f"invite printed no token: {done.stdout}"
            self.token = found.group()
        if line.startswith("leeward init"):
            daemon.configure(live_dir=str(daemon.live))
        return done.stdout


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


def test_every_command_of_the_readme_does_what_it_says(hosts: Hosts) -> None:
    lines = readme_lines()
    assert {site for site, _ in lines} == set(SITES)
    printed = {line: hosts.run(site, line) for site, line in lines}
    assert f"nbd://{hosts.sites['east'].nbd}/data" in printed["leeward export list"]
    east, west = (hosts.sites[site].group("shop") for site in SITES)
    assert (east["role"], west["role"]) == ("protected", "recovery"), "the drill ends where the pair began"
    with NbdClient(east["volumes"][0]["export"]) as client:
        assert client.size == 10 << 30
        assert client.pread(len(hosts.image), 0) == hosts.image


def test_every_command_that_the_readme_names_exists() -> None:
    commands = {tuple(line.split()[:2]) for _, line in readme_lines() if line.startswith("leeward ")}
    assert len(commands) >= 9
    for _, command in sorted(commands):
        done = subprocess.run([LEEWARD, command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
