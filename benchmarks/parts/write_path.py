"""What the write path adds to a bare pwrite: hot writes, writes that meet a capture, planning on huge volumes.

    .venv/bin/python -m benchmarks.parts.write_path [--folder DIR] [--live DIR]

One process, no network: `blockstore` alone, the store in the page cache. Kinds take turns in short rounds and the
quickest round of each counts, for the machine's noise only ever adds. Budget: a hot 4 KiB write costs at most
2 us over pwrite (`docs/formats.md`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from random import Random

from blockstore.disk import Disk
from blockstore.steps import Step
from blockstore.stores.kinds import make_store
from blockstore.tracking.bitmap import LiveMap, LiveName
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION
from blockstore.volume import Volume
from blockstore.writer import Writer, freeze

SIZE = 16 * REGION
WRITES, ROUNDS = 500, 60
TRACKING = b"t" * 16
BUDGET_US = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=None, help="where the store lies; a disk says more than a tmpfs")
    parser.add_argument("--live", default="/dev/shm", help="where live maps lie; a tmpfs")
    chosen = parser.parse_args()
    folder, live = tempfile.mkdtemp(dir=chosen.folder), tempfile.mkdtemp(dir=chosen.live)
    try:
        volume = tracked(folder, live)
        hot_writes(volume)
        captured_writes(volume)
        volume.close()
        planning(live)
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(live)


def tracked(folder: str, live: str) -> Volume:
    make_store(Disk(), f"{folder}/store", SIZE)
    volume = Volume.open(
        Disk(),
        name="bench",
        volume_id=b"v" * 16,
        store_path=f"{folder}/store",
        size_bytes=SIZE,
        folder=f"{folder}/volume",
        live_folder=live,
        hash_seed=1,
    )
    volume.start_tracking(TRACKING, all_dirty=False)
    volume.open_tracking(TRACKING, nonce=bytes(16), clean=False, pending=False)
    volume.maps_committed()
    return volume


def hot_writes(volume: Volume) -> None:
    """Random 4 KiB writes to regions that are hot: bare, through the file's class, through the writer."""
    writer = volume.open_writer()
    data = memoryview(os.urandom(BLOCK))
    fill(writer, data)
    random = Random(1)
    fd, file = volume.store.file.fd, volume.store.file
    best = quickest(
        {
            "pwrite": lambda offset: os.pwrite(fd, data, offset),
            "DiskFile.write": lambda offset: file.write(data, offset),
            "Writer.write": lambda offset: writer.write(offset, data, False),
        },
        lambda: [random.randrange(SIZE // BLOCK) * BLOCK for _ in range(WRITES)],
    )
    for name, us in best.items():
        print(f"{name:<18} {us:6.2f} us  +{us - best['pwrite']:.2f}")
    over = best["Writer.write"] - best["pwrite"]
    print(f"budget: {over:.2f} of {BUDGET_US} us over pwrite: {'kept' if over <= BUDGET_US else 'BROKEN'}")


def captured_writes(volume: Volume) -> None:
    """Every write hits a frozen block for the first time: it is copied before."""
    assert volume.revoke_writer().over
    writer = volume.open_writer()
    data = memoryview(os.urandom(BLOCK))
    fill(writer, data)
    blocks = list(range(SIZE // BLOCK))
    Random(2).shuffle(blocks)
    volume.prepare_capture(b"s" * 16)
    began = time.perf_counter()
    (capture,) = freeze([volume])
    print(f"switch             {(time.perf_counter() - began) * 1e6:6.2f} us")
    best = float("inf")
    for at in range(0, len(blocks), WRITES):
        some = blocks[at : at + WRITES]
        began = time.perf_counter()
        for block in some:
            while isinstance(step := writer.write(block * BLOCK, data, False), Step):
                step.run()
        best = min(best, (time.perf_counter() - began) / len(some) * 1e6)
    assert capture.failed is None
    print(f"first hit          {best:6.2f} us a write that preserves its block")
    capture.abandon()


def planning(live: str) -> None:
    """100 dirty blocks on 64 TiB: found in milliseconds, counted in milliseconds."""
    regions = (64 << 40) // REGION
    bits = LiveMap.create(Disk(), live, LiveName(b"v" * 16, b"o" * 16, 1, b"n" * 16), regions)
    random = Random(3)
    for _ in range(100):
        bits.mark(random.randrange(regions * BLOCKS_PER_REGION), 1)
    for name, what in (("list", lambda: sum(1 for _ in bits.regions())), ("count", bits.count)):
        began = time.perf_counter()
        found = what()
        print(f"64 TiB, {name:<10} {(time.perf_counter() - began) * 1e3:6.2f} ms for {found} dirty blocks")
    bits.close()


def fill(writer: Writer, data: memoryview) -> None:
    for offset in range(0, SIZE, BLOCK):
        while isinstance(step := writer.write(offset, data, False), Step):
            step.run()


def quickest(kinds: dict[str, Callable[[int], object]], offsets: Callable[[], list[int]]) -> dict[str, float]:
    """Microseconds a call of each kind takes in its quickest round."""
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(ROUNDS):
        for name, call in kinds.items():
            some = offsets()
            began = time.perf_counter()
            for offset in some:
                call(offset)
            best[name] = min(best[name], (time.perf_counter() - began) / len(some) * 1e6)
    return best


if __name__ == "__main__":
    main()
