"""What the demo and the drill are told with: daemons as real processes, tools, a real image, and measured figures.

This module must never reach into a daemon: it runs `leeward` as a person would. Nothing outlives `perform`: neither
a process nor a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import EXIT_REFUSED

BLOCK = 4096
START_DEADLINE_S = 30.0
TOOL_DEADLINE_S = 300.0
"""No program of a story takes longer; one that does is stuck."""
LOOK_S = 0.05
"""Between two looks at a daemon that is waited for."""
TMPFS = "/dev/shm"
TOOLS = {"mke2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "nbdcopy": "libnbd-bin", "qemu-io": "qemu-utils"}
LEEWARD = [sys.executable, "-c", "import sys; from engine.cli.main import main; sys.exit(main())"]

Say = Callable[[str], None]
"""Takes one line of a story."""


class DemoFailed(Exception):
    """A step was not what the story says it is."""


class ToolFailed(DemoFailed):
    """A command of a story failed; carries its words."""


class Stopwatch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


def perform(name: str, story: Callable[[Path, Say], Story], say: Say) -> int:
    """Tell a story, then clean up behind it, also when it fails or is told to end. Returns the exit status, 0 or 1."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool, path=_path()) is None})
    if missing:
        say(f"The {name} needs a few common tools. Install them with: apt-get install {' '.join(missing)}")
        return 1
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no daemon stays behind
    try:
        with tempfile.TemporaryDirectory(prefix="leeward-demo-") as folder:
            told = story(Path(folder), say)
            try:
                told.tell()
            except DemoFailed as failure:
                say(f"\nThe {name} FAILED: {failure}")
                return 1
            finally:
                told.close()
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM count when the block is over: KeyboardInterrupt is raised there."""
    came: list[int] = []
    ends = (signal.SIGINT, signal.SIGTERM)
    before = {end: signal.signal(end, lambda number, _: came.append(number)) for end in ends}
    try:
        yield
    finally:
        for end, handler in before.items():
            signal.signal(end, handler)
    if came:
        raise KeyboardInterrupt


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def run_tool(*arguments: str) -> str:
    """Run a program and return what it printed. Raises ToolFailed with its words."""
    done = _run(arguments)
    if done.returncode != 0:
        words = done.stderr.strip() or done.stdout.strip()
        raise ToolFailed(f"{' '.join(arguments[:4])} ended with {done.returncode}: {words}")
    return done.stdout


def _run(arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": _path()}
    try:
        return subprocess.run(
            arguments, capture_output=True, text=True, env=environment, check=False, timeout=TOOL_DEADLINE_S
        )
    except subprocess.TimeoutExpired as stuck:
        raise ToolFailed(f"{' '.join(arguments[:4])} did not end within {TOOL_DEADLINE_S:.0f} s") from stuck


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
        self._live = tempfile.mkdtemp(prefix="leeward-demo-", dir=TMPFS if os.path.isdir(TMPFS) else folder)

    def init(self) -> None:
        made = self.command("init", "--name", self.name, "--listen", self.listen, "--nbd", self.nbd, "--api", self.api)
        self.fingerprint = made["fingerprint"]
        settings = self.data / "leeward.toml"  # its live maps too are in a temporary directory
        settings.write_text(f"live_dir = {json.dumps(self._live)}\n{settings.read_text()}")

    def start(self) -> None:
        """Start the daemon and wait until `leeward status` says that it serves."""
        with self._log.open("ab") as log, _interrupted_later():  # or the new process would be nobody's to kill
            self._process = subprocess.Popen([*LEEWARD, "serve", "--data", str(self.data)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                self.command("status")
                return
            except ToolFailed as failure:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ToolFailed(f"{self.name} did not start: {failure}; {self.log_tail()}") from failure
            time.sleep(LOOK_S)

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run a `leeward` command against this site and return its JSON document."""
        document = self.listing(*arguments)
        assert isinstance(document, dict)
        return document

    def listing(self, *arguments: str) -> Any:
        """As `command`, where the answer may be a list."""
        done = self._ask(arguments)
        if done.returncode != 0:
            words = f"leeward {' '.join(arguments)} at {self.name}"
            raise ToolFailed(f"{words} ended with {done.returncode}: {_said(done)}")
        return json.loads(done.stdout)

    def refused(self, *arguments: str) -> dict[str, Any]:
        """Run a command that the state must not allow; the error's document. Raises DemoFailed if it is not refused."""
        done = self._ask(arguments)
        if done.returncode != EXIT_REFUSED:
            words = f"leeward {' '.join(arguments)} at {self.name}"
            raise DemoFailed(f"{words} had to be refused, and ended with {done.returncode}: {_said(done)}")
        error = json.loads(done.stdout)["error"]
        assert isinstance(error, dict)
        return error

    def _ask(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return _run((*LEEWARD, *arguments, "--data", str(self.data), "--json"))

    def wait_connected(self) -> None:
        """Return when this site says that every peer of it is connected. Raises ToolFailed when that takes long."""
        watch = Stopwatch()
        while not all(peer["connected"] for peer in self.command("status")["peers"]):
            if watch.seconds > START_DEADLINE_S:
                raise ToolFailed(f"{self.name} has no contact with its peer; {self.log_tail()}")
            time.sleep(LOOK_S)

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-600:] if self._log.exists() else ""

    def kill(self) -> None:
        """SIGKILL, and wait for the end; nothing if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process = None  # only now: an interruption above must leave it to the next kill

    def close(self) -> None:
        """Kill the daemon, and remove what it has outside the story's folder."""
        self.kill()
        shutil.rmtree(self._live, ignore_errors=True)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The words of a command that failed, which was asked for JSON."""
    try:
        return str(json.loads(done.stdout)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return (done.stderr or done.stdout).strip()


class Story(ABC):
    """Two sites in a folder, and what every story does with them. `close` kills what still runs."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder = folder
        self.say = say
        self.harbour = DemoSite(folder, "harbour")
        self.lee = DemoSite(folder, "lee")

    @abstractmethod
    def tell(self) -> None:
        """The steps in order. Raises DemoFailed."""

    def close(self) -> None:
        self.harbour.close()
        self.lee.close()

    def start_pair(self) -> None:
        """Make, start and pair both sites."""
        watch = Stopwatch()
        for site in (self.harbour, self.lee):
            site.init()
            site.start()
        self.harbour.command("peer", "add", "lee", "--address", self.lee.listen, "--fingerprint", self.lee.fingerprint)
        self.lee.command(
            "peer", "add", "harbour", "--address", self.harbour.listen, "--fingerprint", self.harbour.fingerprint
        )
        self.say(
            f"   Started and paired in {watch.seconds:.1f} s; each pinned the other's certificate"
            f" ({self.lee.fingerprint[:23]}...), the link is TLS 1.3."
        )

    def protect(self, images: dict[str, Path]) -> list[str]:
        """Add a volume at 'harbour' for each image, of its size, in one group 'ships'. Returns their exports."""
        for name, image in images.items():
            store, size = self.folder / f"{name}.store", image.stat().st_size
            self.harbour.command("volume", "add", name, "--store", str(store), "--size", str(size))
        named = [word for name in images for word in ("--volume", name)]
        group = self.harbour.command("group", "create", "ships", *named, "--peer", "lee")
        return [volume["export"] for volume in group["volumes"]]

    def read_back(self, uri: str, name: str) -> Path:
        """The whole of an export, read through NBD into a file of the story's folder."""
        copy = self.folder / name
        run_tool("nbdcopy", uri, str(copy))
        return copy

    def expect(self, holds: bool, otherwise: str) -> None:
        """Raises DemoFailed with these words unless it holds."""
        if not holds:
            raise DemoFailed(otherwise)


def megabytes(count: int) -> str:
    """Bytes in MiB, for a person."""
    return f"{count / (1 << 20):.1f} MiB"


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_blocks(uri: str, writes: list[str]) -> None:
    """Write through NBD and flush; each of `writes` is what qemu-io's `write` takes: content, offset, length."""
    commands = [word for write in writes for word in ("-c", f"write {write}")]
    run_tool("qemu-io", "-f", "raw", "-t", "writeback", *commands, "-c", "flush", uri)


def make_file_system(image: Path, size_mib: int) -> int:
    """An ext4 image with a directory tree in it; returns how many files."""
    tree = image.with_suffix(".tree")
    files = _make_tree(tree)
    run_tool("mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(image), f"{size_mib}M")
    return files


def free_blocks(image: Path) -> set[int]:
    """The free 4 KiB blocks of an ext4 image, from dumpe2fs."""
    text = run_tool("dumpe2fs", str(image))
    size = 4096 if "Block size:               4096" in text else 1024
    free: set[int] = set()
    for line in text.splitlines():
        if line.startswith("  Free blocks: "):
            for part in filter(None, line.removeprefix("  Free blocks: ").replace(" ", "").split(",")):
                first, _, last = part.partition("-")
                low, high = int(first) * size, (int(last or first) + 1) * size
                free.update(range(-(-low // BLOCK), high // BLOCK))
    return free


def _make_tree(folder: Path) -> int:
    """A directory tree of text and random files; returns how many files."""
    dice = random.Random(1)
    count = 0
    for name in ("logs", "mail/archive", "db"):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            size = dice.randrange(1, 1 << 19)
            body = (
                dice.randbytes(size) if number % 2 else b"the quick brown fox jumps over the lazy dog\n" * (size // 44)
            )
            (folder / name / f"file-{number:03}").write_bytes(body)
            count += 1
    return count
