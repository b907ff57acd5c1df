"""One daemon as a real process in its own data directory, and the command line that talks to it.

    with Daemon(tmp_path / "east", "east") as east:     # init, serve, `status` exits 0
        document = east.run("volume", "add", "data", "--store", str(path), "--size", "64M")
        error = east.fails("promote", "none", status=1)
        east.kill()                                     # SIGKILL
        east.start()

Live maps lie on tmpfs, in a directory of the daemon's own that survives its restarts, as on a real host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rig.ports import free_port

LEEWARD = str(Path(sys.executable).parent / "leeward")
TMPFS = "/dev/shm"


class CommandFailed(AssertionError):
    """A command ended with another exit status than the test said."""


class Daemon:
    """A site named `name` below `folder`: ports, process, commands. Made by `init` once, started and killed at will."""

    def __init__(self, folder: Path, name: str, *, nbd_host: str = "127.0.0.1") -> None:
        self.name = name
        self.folder = folder
        self.data = folder / "data"
        self.listen = f"127.0.0.1:{free_port()}"
        self.nbd = f"{nbd_host}:{free_port()}"
        self.api = f"127.0.0.1:{free_port()}"
        self.fingerprint = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        """What the daemon's environment has beside ours, from the next start on."""
        self.prefix: tuple[str, ...] = ()
        """Words before `leeward serve`, such as those that run it in a network namespace."""
        folder.mkdir(parents=True, exist_ok=True)
        self.live = Path(tempfile.mkdtemp(prefix="leeward-live-", dir=TMPFS))
        self._log = folder / "log"

    # Its life

    def init(self) -> dict[str, Any]:
        """Make the site; its document."""
        document: dict[str, Any] = self.run(
            "init", "--name", self.name, "--listen", self.listen, "--nbd", self.nbd, "--api", self.api
        )
        self.fingerprint = document["fingerprint"]
        self.configure(live_dir=str(self.live))
        return document

    def configure(self, **options: str | int) -> None:
        """Set top-level keys of leeward.toml, for the next start."""
        path = self.data / "leeward.toml"
        lines = path.read_text(encoding="utf-8").splitlines()
        for key, value in options.items():
            lines = [line for line in lines if not re.match(rf"#?\s*{key}\s*=", line)]
            lines.insert(0, f"{key} = {json.dumps(value)}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def start(self, *, timeout_s: float = 30) -> None:
        """Run `leeward serve` and return when it serves: `leeward status` exits 0."""
        self.launch()
        self.wait_until_serving(timeout_s)

    def launch(self) -> None:
        """Run `leeward serve`, and do not wait for anything."""
        assert self.process is None, f"{self.name} runs already"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, LEEWARD, "serve", "--data", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )

    def wait_until_serving(self, timeout_s: float = 30) -> None:
        """Return when `leeward status` exits 0. CommandFailed, with the log, if the daemon ends or takes longer."""
        assert self.process is not None, f"{self.name} was not started"
        deadline = time.monotonic() + timeout_s
        while self._call("status").returncode != 0:
            if self.process.poll() is not None:
                raise CommandFailed(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise CommandFailed(f"{self.name} does not serve after {timeout_s} s:\n{self.log()}")
            time.sleep(0.02)  # between two looks at a condition

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone. Nothing if it does not run."""
        self._end(signal.SIGKILL)

    def terminate(self, *, timeout_s: float = 30) -> int:
        """SIGTERM; the exit status of the daemon."""
        return self._end(signal.SIGTERM, timeout_s)

    def _end(self, number: signal.Signals, timeout_s: float = 30) -> int:
        process = self.process
        if process is None:
            return 0
        process.send_signal(number)
        status = process.wait(timeout_s)
        self.process = None
        return status

    def restart(self) -> None:
        """Kill and start."""
        self.kill()
        self.start()

    def lose_power(self) -> None:
        """What tmpfs loses with the host: kill, and forget the live maps. The page cache stays: see tests/crash."""
        self.kill()
        shutil.rmtree(self.live)
        self.live.mkdir()

    def close(self) -> None:
        """Kill, and remove what lies outside `folder`."""
        self.kill()
        shutil.rmtree(self.live, ignore_errors=True)

    def __enter__(self) -> Daemon:
        try:
            self.init()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Its commands

    def run(self, *words: str, timeout_s: float = 120) -> Any:
        """Run `leeward WORDS... --json` against this site; the document that it prints."""
        done = self._call(*words, timeout_s=timeout_s)
        if done.returncode != 0:
            raise CommandFailed(
                f"leeward {' '.join(words)} at {self.name} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return json.loads(done.stdout)

    def fails(self, *words: str, status: int, timeout_s: float = 120) -> dict[str, Any]:
        """Run a command that must end with `status`; its error: code, message, remedy, details."""
        done = self._call(*words, timeout_s=timeout_s)
        if done.returncode != status:
            raise CommandFailed(
                f"leeward {' '.join(words)} at {self.name} ended with {done.returncode} instead of {status}: "
                f"{done.stdout}{done.stderr}"
            )
        document: dict[str, Any] = json.loads(done.stdout)
        return dict(document["error"])

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and let it run; `finished` takes its document."""
        return subprocess.Popen(
            self._command(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment()
        )

    @staticmethod
    def finished(command: subprocess.Popen[str], timeout_s: float = 120) -> Any:
        """Wait for a spawned command; the document that it printed."""
        out, err = command.communicate(timeout=timeout_s)
        if command.returncode != 0:
            raise CommandFailed(f"{command.args!r} ended with {command.returncode}: {out}{err}")
        return json.loads(out)

    def text(self, *words: str, status: int = 0) -> str:
        """Run a command as a person does, without --json; everything that it printed."""
        command = [LEEWARD, *words, "--data", str(self.data)]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), check=False)
        if done.returncode != status:
            raise CommandFailed(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def _call(self, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(words),
            capture_output=True,
            text=True,
            env=self._environment(),
            timeout=timeout_s,
            check=False,
        )

    def _command(self, words: Sequence[str]) -> list[str]:
        return [LEEWARD, *words, "--data", str(self.data), "--json"]

    def _environment(self) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("LEEWARD_")}
        return {**ours, "XDG_RUNTIME_DIR": str(self.live), "PYTHONFAULTHANDLER": "1", **self.environment}

    # What it says of itself

    def log(self) -> str:
        """Everything that the daemon printed since the first start."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """The daemon's events, oldest first."""
        return list(self.run("events"))

    def group(self, name: str) -> dict[str, Any]:
        """The document of a group."""
        return dict(self.run("group", "show", name))

    def exports(self, group: str) -> list[str]:
        """The NBD URIs of a group's volumes, in their order."""
        return [volume["export"] for volume in self.group(group)["volumes"]]

    def wait_for(self, group: str, timeout_s: float = 30, **fields: Any) -> dict[str, Any]:
        """The document of a group once it has these fields; AssertionError if it has not in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            document = self.group(group)
            if all(document[key] == value for key, value in fields.items()):
                return document
            assert time.monotonic() < deadline, f"{group} at {self.name} never had {fields}: {document}"
            time.sleep(0.02)  # between two looks at a condition

    def resident_bytes(self, *, peak: bool = False) -> int:
        """Memory that the daemon's process holds now, or held at most since it started."""
        assert self.process is not None, f"{self.name} does not run"
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status, re.MULTILINE)
        assert found, "no such line in /proc/PID/status"
        return int(found.group(1)) * 1024
