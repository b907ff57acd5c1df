"""Runs the real `leeward` program in a process of its own, against a site in memory behind a real socket."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from command_run import Ran
from memory_site import ApiThread

from engine import requests as ask
from engine.api.client import Client

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed console script; where the package is only lying on the path, the script pip would write."""
    installed = Path(sys.executable).parent / "leeward"
    if installed.exists():
        return installed
    module, _, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "leeward"
    ].partition(":")
    script = tmp_path_factory.mktemp("bin") / "leeward"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    script.chmod(0o755)
    return script


@pytest.fixture
def environment(api: ApiThread) -> dict[str, str]:
    """What commands see: the data directory of the site, and no terminal settings of who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return {
        **kept,
        "LEEWARD_DATA": str(api.data),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error::DeprecationWarning",
    }


@pytest.fixture
def leeward(program: Path, environment: dict[str, str], tmp_path: Path) -> Callable[..., Ran]:
    """`leeward("group", "show", "web")` runs that command to its end."""

    def run(*words: str, stdin: str | None = None, **variables: str) -> Ran:
        done = subprocess.run(
            [program, *words],
            env={**environment, **variables},
            cwd=tmp_path,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def with_group(api: ApiThread) -> None:
    """A peer, two volumes and the group `web` of both."""
    client = Client(api.data)
    for request in (
        ask.PeerAdd("lagoon", "127.0.0.1:7450", "SHA256:" + "0" * 64),
        ask.VolumeAdd("root", "/srv/root.img", 1 << 20),
        ask.VolumeAdd("log", "/srv/log.img", 2 << 20),
        ask.GroupCreate("web", ("root", "log"), "lagoon", 300),
    ):
        assert client.wait(client.submit(request)).state == "done"
