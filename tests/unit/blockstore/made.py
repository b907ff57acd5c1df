"""A volume made for a test, and its calls without a loop: every step is run where it is met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blockstore.disk import Disk
from blockstore.steps import Step, Wait
from blockstore.stores.kinds import make_store
from blockstore.units import BLOCK, REGION
from blockstore.volume import Volume

VOLUME, TRACKING = b"V" * 16, b"T" * 16
SIZE = 100 * REGION + 3 * BLOCK + 512


def open_volume(
    folder: Path, live: Path | None, disk: Disk | None = None, size: int = SIZE, store_size: int | None = None
) -> Volume:
    """A volume whose tracking is not open; its store is made if it is missing."""
    disk = disk or Disk()
    if not (folder / "store").exists():
        make_store(disk, str(folder / "store"), size)
    return Volume.open(
        disk,
        name="vol",
        volume_id=VOLUME,
        store_path=str(folder / "store"),
        size_bytes=size,
        store_bytes=store_size,
        folder=str(folder / "volume"),
        live_folder=str(live) if live else None,
        hash_seed=7,
    )


def tracked(
    folder: Path, live: Path | None, disk: Disk | None = None, size: int = SIZE, *, all_dirty: bool = False
) -> Volume:
    """A new volume, tracked from now on."""
    volume = open_volume(folder, live, disk, size)
    volume.start_tracking(TRACKING, all_dirty=all_dirty)
    volume.open_tracking(TRACKING, nonce=bytes(16), clean=False, pending=False)
    volume.maps_committed()
    return volume


def do(call: Callable[[], Wait | None]) -> int:
    """Make a call until it is complete; returns how many steps that took. Raises what a step failed with."""
    steps = 0
    while (wait := call()) is not None:
        if isinstance(wait, Step) and not wait.started:
            wait.run()
            steps += 1
        assert wait.over, "nobody else could end this wait"
        if wait.error is not None:
            raise wait.error
        if wait.final:
            break
    return steps


def write(volume: Volume, block: int, data: bytes = b"d" * BLOCK, *, durable: bool = False) -> int:
    """Write at a block through the volume's writer."""
    writer = volume._writer
    assert writer is not None
    return do(lambda: writer.write(block * BLOCK, memoryview(data), durable))
