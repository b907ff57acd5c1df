"""`leeward demo`: the whole story with real parts, told in plain words with figures measured on the way.

Two daemons on loopback, a real ext4 image written by a real NBD client, a full sync, an increment, both
daemons killed, the recovery copy promoted and compared byte for byte. It uses a temporary directory only,
cleans up, and fails loudly when a step is not what it says. It must never print what it did not measure.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from engine.cli.demo_site import DemoSite, run_tool

IMAGE_MIB = 192
TOUCHED_BLOCKS = 400
BLOCK = 4096
TOOLS = {"mke2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "nbdcopy": "libnbd-bin", "qemu-io": "qemu-utils"}


class DemoFailed(Exception):
    """A step was not what the demo says it is."""


def run(say: Callable[[str], None]) -> int:
    """Tell the story through `say`, one line at a time. Returns the exit status: 0, or 1 if a step failed."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool, path=_path()) is None})
    if missing:
        say(f"The demo needs a few common tools. Install them with: apt-get install {' '.join(missing)}")
        return 1
    with tempfile.TemporaryDirectory(prefix="leeward-demo-") as folder:
        story = Story(Path(folder), say)
        try:
            story.tell()
        except DemoFailed as failure:
            say(f"\nThe demo FAILED: {failure}")
            return 1
        finally:
            story.close()
    return 0


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def megabytes(count: int) -> str:
    """Bytes in MiB, for a person."""
    return f"{count / (1 << 20):.1f} MiB"


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Story:
    """The steps in order. `close` kills what still runs."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.harbour = DemoSite(folder, "harbour")
        self.lee = DemoSite(folder, "lee")
        self.export = ""

    def tell(self) -> None:
        self.start_pair()
        self.write_image()
        self.first_sync()
        self.increment()
        captured = self.read_back(self.export, "protected.img")
        self.kill_both()
        self.bring_up(captured)

    def close(self) -> None:
        self.harbour.kill()
        self.lee.kill()

    def start_pair(self) -> None:
        self.say("1. Two sites: 'harbour' (protected) and 'lee' (recovery), a daemon each, on this host's loopback.")
        began = time.monotonic()
        for site in (self.harbour, self.lee):
            site.init()
            site.start()
        self.harbour.command("peer", "add", "lee", "--address", self.lee.listen, "--fingerprint", self.lee.fingerprint)
        self.lee.command(
            "peer", "add", "harbour", "--address", self.harbour.listen, "--fingerprint", self.harbour.fingerprint
        )
        self.say(
            f"   Started and paired in {time.monotonic() - began:.1f} s; each pinned the other's certificate"
            f" ({self.lee.fingerprint[:23]}...), the link is TLS 1.3."
        )

    def write_image(self) -> None:
        tree = self.folder / "tree"
        files = make_tree(tree)
        image = self.folder / "ext4.img"
        run_tool("mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(image), f"{IMAGE_MIB}M")
        size = image.stat().st_size
        self.harbour.command("volume", "add", "data", "--store", str(self.folder / "data.store"), "--size", str(size))
        group = self.harbour.command("group", "create", "ships", "--volume", "data", "--peer", "lee")
        self.export = group["volumes"][0]["export"]
        began = time.monotonic()
        run_tool("nbdcopy", "--flush", str(image), self.export)
        self.say(
            f"2. A real ext4 file system of {IMAGE_MIB} MiB with {files} files, written by nbdcopy to {self.export}"
            f" in {time.monotonic() - began:.1f} s."
        )

    def first_sync(self) -> None:
        done = self.harbour.command("sync", "ships")
        self.expect(done["point"] is not None, "the first sync sealed no recovery point")
        self.say(
            f"3. First sync: {megabytes(done['bytes_sent'])} of blocks sent, {megabytes(done['bytes_wire'])} on the"
            f" wire, {done['seconds']:.2f} s; recovery point {done['point']['sequence']} is sealed at 'lee'."
        )

    def increment(self) -> None:
        offsets = random.Random(7).sample(range(IMAGE_MIB << 8), TOUCHED_BLOCKS)
        changed = self.touch_free_space(offsets)
        done = self.harbour.command("sync", "ships")
        self.expect(done["bytes_sent"] >= changed, f"{changed} bytes changed, but only {done['bytes_sent']} were sent")
        self.say(
            f"4. A guest overwrites {changed // BLOCK} scattered blocks, {megabytes(changed)}. The next sync puts"
            f" {megabytes(done['bytes_wire'])} on the wire ({done['bytes_wire'] / changed:.3f} x the change)"
            f" in {done['seconds']:.2f} s."
        )
        idle = self.harbour.command("sync", "ships")
        self.expect(idle["bytes_sent"] == 0, "a sync without a change sent blocks")
        self.say(f"   Nothing changed since: a sync costs {idle['bytes_wire']} bytes on the wire.")

    def touch_free_space(self, blocks: list[int]) -> int:
        """Write new content over blocks that the file system does not use; returns the bytes written."""
        free = self.free_blocks()
        chosen = sorted(set(blocks) & free) or sorted(free)[:TOUCHED_BLOCKS]
        commands: list[str] = []
        for number, block in enumerate(chosen):
            commands += ["-c", f"write -P {1 + number % 250} {block * BLOCK} {BLOCK}"]
        run_tool("qemu-io", "-f", "raw", "-t", "writeback", *commands, "-c", "flush", self.export)
        return len(chosen) * BLOCK

    def free_blocks(self) -> set[int]:
        """The free 4 KiB blocks of the image, from dumpe2fs."""
        text = run_tool("dumpe2fs", str(self.folder / "ext4.img"))
        size = 4096 if "Block size:               4096" in text else 1024
        free: set[int] = set()
        for line in text.splitlines():
            if line.startswith("  Free blocks: "):
                for part in filter(None, line.removeprefix("  Free blocks: ").replace(" ", "").split(",")):
                    first, _, last = part.partition("-")
                    low, high = int(first) * size, (int(last or first) + 1) * size
                    free.update(range(-(-low // BLOCK), high // BLOCK))
        return free

    def read_back(self, uri: str, name: str) -> Path:
        copy = self.folder / name
        run_tool("nbdcopy", uri, str(copy))
        return copy

    def kill_both(self) -> None:
        self.harbour.kill()
        self.lee.kill()
        self.say("5. Both daemons are killed with SIGKILL. 'harbour' is gone for good.")

    def bring_up(self, captured: Path) -> None:
        self.lee.start()
        began = time.monotonic()
        group = self.lee.command("promote", "ships", "--force", "--yes")
        seconds = time.monotonic() - began
        export = group["volumes"][0]["export"]
        self.expect(bool(export), "the promoted group has no export")
        self.say(f"6. 'lee' is started again and promoted in {seconds:.2f} s, from metadata alone: {export}")
        copy = self.read_back(export, "recovered.img")
        self.expect(digest_of(copy) == digest_of(captured), "the recovery copy differs from the protected volume")
        run_tool("e2fsck", "-fn", str(copy))
        self.say(
            f"   Read back through NBD: {megabytes(copy.stat().st_size)}, SHA-256 {digest_of(copy)[:16]}...,"
            " byte for byte what it was at the capture; e2fsck finds it clean."
        )
        run_tool("qemu-io", "-f", "raw", "-c", "write -P 9 0 4096", "-c", "read -P 9 0 4096", export)
        self.say("   And it is writable. That is the whole story.")

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise DemoFailed(otherwise)


def make_tree(folder: Path) -> int:
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
