"""A daemon of the demo as a real process, and the command line that talks to it.

This module must never reach into a daemon: it runs `leeward` as a person would.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

START_DEADLINE_S = 30.0
LEEWARD = [sys.executable, "-c", "import sys; from engine.cli.main import main; sys.exit(main())"]


class ToolFailed(Exception):
    """A command of the demo failed; carries its words."""


def run_tool(*arguments: str) -> str:
    """Run a program and return what it printed. Raises ToolFailed with its error output."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False)
    if done.returncode != 0:
        raise ToolFailed(f"{' '.join(arguments[:4])} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DemoSite:
    """One site: its data directory, addresses and daemon process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.data = folder / name
        self.listen = f"127.0.0.1:{free_port()}"
        self.nbd = f"127.0.0.1:{free_port()}"
        self.api = f"127.0.0.1:{free_port()}"
        self.fingerprint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / f"{name}.log"

    def init(self) -> None:
        made = self.command("init", "--name", self.name, "--listen", self.listen, "--nbd", self.nbd, "--api", self.api)
        self.fingerprint = made["fingerprint"]

    def start(self) -> None:
        """Start the daemon and wait until `leeward status` says that it serves."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*LEEWARD, "serve", "--data", str(self.data)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                self.command("status")
                return
            except ToolFailed as failure:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ToolFailed(f"{self.name} did not start: {failure}; {self.log_tail()}") from failure
            time.sleep(0.05)

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run a `leeward` command against this site and return its JSON document."""
        document = json.loads(run_tool(*LEEWARD, *arguments, "--data", str(self.data), "--json"))
        assert isinstance(document, dict)
        return document

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-600:] if self._log.exists() else ""

    def kill(self) -> None:
        """SIGKILL, and wait for the end; nothing if it does not run."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
