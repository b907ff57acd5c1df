"""`leeward demo`: the whole story with real parts, told in plain words with figures measured on the way.

Two daemons on loopback, a real ext4 image written by a real NBD client, a full sync, an increment, both
daemons killed, the recovery copy promoted and compared byte for byte. It uses a temporary directory only,
cleans up, and fails loudly when a step is not what it says. It must never print what it did not measure.
"""

from __future__ import annotations

import random
from pathlib import Path

from engine.cli.demo_site import (
    BLOCK,
    Say,
    Stopwatch,
    Story,
    digest_of,
    free_blocks,
    make_file_system,
    megabytes,
    perform,
    run_tool,
    write_blocks,
)

IMAGE_MIB = 192
TOUCHED_BLOCKS = 400


def run(say: Say) -> int:
    """Tell the story through `say`, one line at a time. Returns the exit status: 0, or 1 if a step failed."""
    return perform("demo", Replication, say)


class Replication(Story):
    """The steps in order."""

    export = ""

    def tell(self) -> None:
        self.say("1. Two sites: 'harbour' (protected) and 'lee' (recovery), a daemon each, on this host's loopback.")
        self.start_pair()
        self.write_image()
        self.first_sync()
        self.increment()
        captured = self.read_back(self.export, "protected.img")
        self.kill_both()
        self.bring_up(captured)

    def write_image(self) -> None:
        image = self.folder / "ext4.img"
        files = make_file_system(image, IMAGE_MIB)
        (self.export,) = self.protect({"data": image})
        watch = Stopwatch()
        run_tool("nbdcopy", "--flush", str(image), self.export)
        self.say(
            f"2. A real ext4 file system of {IMAGE_MIB} MiB with {files} files, written by nbdcopy to {self.export}"
            f" in {watch.seconds:.1f} s."
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
        free = free_blocks(self.folder / "ext4.img")
        chosen = sorted(set(blocks) & free) or sorted(free)[:TOUCHED_BLOCKS]
        write_blocks(self.export, [f"-P {1 + n % 250} {block * BLOCK} {BLOCK}" for n, block in enumerate(chosen)])
        return len(chosen) * BLOCK

    def kill_both(self) -> None:
        self.harbour.kill()
        self.lee.kill()
        self.say("5. Both daemons are killed with SIGKILL. 'harbour' is gone for good.")

    def bring_up(self, captured: Path) -> None:
        self.lee.start()
        watch = Stopwatch()
        group = self.lee.command("promote", "ships", "--force", "--yes")
        seconds = watch.seconds
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
