"""Memory does not follow the volume: 8 GiB with 4 GiB of data, copied whole."""

from __future__ import annotations

from pathlib import Path

from rig.pair import Pair

MIB = 1 << 20
LIMIT = 256 * MIB
BITMAPS = 8 * MIB
"""Four bitmaps of 8 GiB at 32 MiB per TiB are 1 MiB; the pages around them make it a little more."""


def test_both_daemons_stay_below_256_mib_in_a_full_sync_of_8_gib(tmp_path: Path) -> None:
    store = tmp_path / "big.store"
    noise = Path("/dev/urandom").open("rb").read(4 * MIB)  # noqa: SIM115  # one read
    with store.open("wb") as file:
        file.truncate(8192 * MIB)
        for at in range(0, 8192, 8):
            file.seek(at * MIB)
            file.write(at.to_bytes(8, "little") + noise[8:])
    with Pair(tmp_path, stores=[store]) as pair:
        done = pair.sync(timeout_s=280)
        assert done["bytes_sent"] >= 4096 * MIB - 4096 * 1024
        peaks = {daemon.name: daemon.resident_bytes(peak=True) for daemon in (pair.east, pair.west)}
        print({name: f"{peak / MIB:.0f} MiB" for name, peak in peaks.items()}, f"{done['seconds']:.1f} s")
        assert all(peak <= LIMIT + BITMAPS for peak in peaks.values()), peaks
