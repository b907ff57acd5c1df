"""What a restart believes: after a stop, a kill, a power cut, damage; and in which order it makes things durable."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from made import SIZE, TRACKING, do, open_volume, tracked, write
from power_disk import PowerDisk

from blockstore.blockset import BlockSet
from blockstore.disk import Disk
from blockstore.tracking.recovery import UNTRUSTED_WRITES, Found
from blockstore.units import BLOCK, BLOCKS_PER_REGION, REGION, blocks_in
from blockstore.volume import Volume
from blockstore.writer import freeze

REGION_OF_9000 = BlockSet.of_extents((8 * BLOCKS_PER_REGION, BLOCKS_PER_REGION))
EVERYTHING = BlockSet.of_extents((0, blocks_in(SIZE)))


class Machine:
    """A host: the volume's processes come and go on it, and so does the power. It remembers what records would."""

    def __init__(self, tmp_path: Path, live: Path | None) -> None:
        self.root, self.live = tmp_path, live
        self.disk = PowerDisk()
        self.boots = 0
        self.folder = self._folder()
        self.nonce = bytes(16)
        self.volume = open_volume(self.folder, live, self.disk)
        self.volume.start_tracking(TRACKING, all_dirty=False)
        self.boot()

    def _folder(self) -> Path:
        self.boots += 1
        folder = self.root / str(self.boots)
        folder.mkdir()
        return folder

    def boot(self, *, clean: bool = False, pending: bool = False, writes: int = 0, recorded: bool = True) -> Found:
        if self.volume is None:
            self.volume = open_volume(self.folder, self.live, self.disk)
        found = self.volume.open_tracking(TRACKING, nonce=self.nonce, clean=clean, pending=pending, writes=writes)
        if recorded:
            self.nonce = found.nonce
            self.volume.maps_committed()
        self.volume.open_writer()
        return found

    def kill(self) -> None:
        self.disk.kill()
        self.volume = None  # type: ignore[assignment]

    def cut_power(self, seed: int) -> None:
        old = self.folder
        self.folder = self._folder()
        self.disk = self.disk.cut_power(Random(seed), str(old), str(self.folder))
        for path in self.live.iterdir() if self.live else ():
            path.unlink()
        self.volume = None  # type: ignore[assignment]

    def stop(self) -> None:
        assert self.volume.revoke_writer().over
        do(self.volume.stop_clean)
        self.volume.close()
        self.volume = None  # type: ignore[assignment]

    def capture(self) -> None:
        self.volume.prepare_capture(b"s" * 16)
        freeze([self.volume])


@pytest.fixture
def machine(tmp_path: Path, live: Path) -> Machine:
    return Machine(tmp_path, live)


def test_new_tracking_has_every_block_dirty_or_none(tmp_path: Path, live: Path) -> None:
    for name, all_dirty, expected in (("all", True, EVERYTHING), ("none", False, BlockSet())):
        (tmp_path / name).mkdir()
        volume = tracked(tmp_path / name, live, all_dirty=all_dirty)
        assert volume.dirty() == expected
        assert volume.dirty_blocks == len(expected)
        volume.close()
        volume.drop_tracking(TRACKING)
        assert not list(live.iterdir())


def test_new_tracking_is_durable_with_its_names(tmp_path: Path, live: Path) -> None:
    disk = PowerDisk()
    volume = open_volume(tmp_path, live, disk)
    disk.syncs.clear()
    volume.start_tracking(TRACKING, all_dirty=False)
    tid = TRACKING.hex()
    assert disk.syncs == [f"dirty.{tid}.pmap", f"intent.{tid}", "volume"]
    disk.syncs.clear()
    volume.start_tracking(b"2" * 16, all_dirty=True)
    assert disk.syncs.count(f"dirty.{'32' * 16}.pmap") == 2


def test_new_tracking_is_exact_for_the_process_that_made_it(tmp_path: Path, live: Path) -> None:
    volume = open_volume(tmp_path, live)
    volume.start_tracking(TRACKING, all_dirty=True)
    found = volume.open_tracking(TRACKING, nonce=bytes(16), clean=False, pending=False, writes=5)
    assert (found.lost, found.suspect_blocks, found.writes, volume.writes) == ("", 0, 5, 5)


def test_tracking_is_made_once(tmp_path: Path, live: Path) -> None:
    volume = tracked(tmp_path, live)
    with pytest.raises(FileExistsError):
        volume.start_tracking(TRACKING, all_dirty=False)


def test_after_a_kill_the_marks_are_exact(machine: Machine) -> None:
    for block in (3, 9000, 9000):
        write(machine.volume, block)
    machine.kill()
    found = machine.boot()
    assert (found.lost, found.suspect_blocks, found.writes) == ("", 0, 3)
    assert machine.volume.dirty() == BlockSet.of_extents((3, 1), (9000, 1))
    machine.kill()
    machine.boot()
    assert machine.volume.dirty() == BlockSet.of_extents((3, 1), (9000, 1))


def test_after_a_kill_the_regions_are_still_hot(machine: Machine, seed: int) -> None:
    write(machine.volume, 9000)
    machine.kill()
    machine.boot()
    assert write(machine.volume, 9001) == 0
    machine.cut_power(seed)
    machine.boot()
    assert machine.volume.dirty() == REGION_OF_9000


def test_after_a_power_cut_hot_regions_are_suspect_and_cold_ones_exact(machine: Machine, seed: int) -> None:
    for block in (3, 9000):
        write(machine.volume, block)
    step = machine.volume.cool(0.0, all=True)
    assert step is not None
    step.run()
    write(machine.volume, 9001)
    machine.cut_power(seed)
    found = machine.boot(writes=70)
    assert (found.lost, found.suspect_blocks, found.writes) == ("", 1 + 1024, 70 + UNTRUSTED_WRITES)
    assert machine.volume.dirty() == BlockSet.of_extents((3, 1)) | REGION_OF_9000


def test_the_last_region_is_suspect_up_to_the_end_only(machine: Machine, seed: int) -> None:
    write(machine.volume, blocks_in(SIZE) - 1, bytes(512))
    machine.cut_power(seed)
    machine.boot()
    assert machine.volume.dirty() == BlockSet.of_extents((100 * BLOCKS_PER_REGION, 4))


def test_without_tmpfs_a_kill_is_as_a_power_cut(tmp_path: Path) -> None:
    machine = Machine(tmp_path, None)
    write(machine.volume, 9000)
    machine.kill()
    assert machine.boot().suspect_blocks == 1024
    assert machine.volume.dirty() == REGION_OF_9000


def test_maps_of_a_run_that_the_records_do_not_know_are_not_believed(machine: Machine) -> None:
    write(machine.volume, 3)
    machine.kill()
    machine.boot(recorded=False)
    write(machine.volume, 9000)
    machine.kill()
    machine.boot()
    assert machine.volume.dirty() == BlockSet.of_extents((3, 1))


def test_maps_of_earlier_runs_go_once_the_new_ones_are_recorded(machine: Machine, live: Path) -> None:
    machine.kill()
    machine.boot(recorded=False)
    assert len(list(live.iterdir())) == 2
    machine.volume.maps_committed()
    assert len(list(live.iterdir())) == 1


def test_a_map_that_is_missing_costs_the_trust_in_the_others(machine: Machine, live: Path) -> None:
    write(machine.volume, 3)
    machine.capture()
    write(machine.volume, 9000)
    machine.kill()
    oldest = min(live.iterdir(), key=lambda path: int(path.name.split(".")[1]))
    oldest.unlink()
    assert machine.boot().suspect_blocks == 2048


def test_the_newest_map_missing_costs_the_trust_too(machine: Machine, live: Path) -> None:
    machine.capture()
    write(machine.volume, 9000)
    machine.kill()
    max(live.iterdir(), key=lambda path: int(path.name.split(".")[1])).unlink()
    machine.boot()
    assert machine.volume.dirty() == REGION_OF_9000


def test_a_poisoned_map_is_not_believed(machine: Machine) -> None:
    write(machine.volume, 9000)
    machine.volume.fail(OSError(5, "a sync failed"))
    machine.kill()
    assert machine.boot().suspect_blocks == 1024


def test_a_prepared_capture_changes_nothing(machine: Machine) -> None:
    write(machine.volume, 9000)
    machine.volume.prepare_capture(b"s" * 16)
    machine.kill()
    assert machine.boot().suspect_blocks == 0
    assert machine.volume.dirty() == BlockSet.of_extents((9000, 1))


def test_a_capture_that_dies_leaves_its_blocks_dirty(machine: Machine) -> None:
    write(machine.volume, 3)
    machine.capture()
    write(machine.volume, 9000)
    machine.kill()
    machine.boot()
    assert machine.volume.dirty() == BlockSet.of_extents((3, 1), (9000, 1))
    assert not machine.volume.pending_frozen


@pytest.mark.parametrize("sealed", [True, False])
def test_what_a_sync_with_unknown_outcome_froze_is_kept_apart(machine: Machine, sealed: bool) -> None:
    write(machine.volume, 3)
    write(machine.volume, 4)
    machine.capture()
    write(machine.volume, 4)
    for _ in range(2):  # and once more, killed before the peer told
        machine.kill()
        machine.boot(pending=True)
        assert machine.volume.pending_frozen == BlockSet.of_extents((3, 2))
        assert machine.volume.dirty() == BlockSet.of_extents((3, 2))
    machine.volume.settle_pending(sealed)
    machine.volume.settle_pending(sealed)
    assert machine.volume.dirty() == (BlockSet.of_extents((4, 1)) if sealed else BlockSet.of_extents((3, 2)))
    assert not machine.volume.pending_frozen
    machine.kill()
    machine.boot()
    assert machine.volume.dirty() == (BlockSet.of_extents((4, 1)) if sealed else BlockSet.of_extents((3, 2)))


def test_after_a_power_cut_a_pending_sync_has_nothing_apart(machine: Machine, seed: int) -> None:
    write(machine.volume, 9000)
    machine.capture()
    machine.cut_power(seed)
    machine.boot(pending=True)
    assert not machine.volume.pending_frozen
    machine.volume.settle_pending(True)
    assert machine.volume.dirty() == REGION_OF_9000


def test_pages_hold_what_is_pending_as_well(machine: Machine, seed: int) -> None:
    write(machine.volume, 9000)
    machine.capture()
    machine.kill()
    machine.boot(pending=True)
    while (step := machine.volume.cool(0.0, all=True)) is not None:
        step.run()
    write(machine.volume, 0)  # its record leaves out what is cold
    machine.cut_power(seed)
    machine.boot()
    assert machine.volume.dirty() == BlockSet.of_extents((0, 1024), (9000, 1))


def test_a_clean_stop_is_exact_without_any_map(machine: Machine, live: Path) -> None:
    for block in (3, 9000):
        write(machine.volume, block)
    machine.stop()
    assert not list(live.iterdir())
    found = machine.boot(clean=True, writes=2)
    assert (found.lost, found.suspect_blocks, found.writes) == ("", 0, 2)
    assert machine.volume.dirty() == BlockSet.of_extents((3, 1), (9000, 1))


def test_a_clean_stop_survives_a_power_cut_right_after_it(machine: Machine, seed: int) -> None:
    write(machine.volume, 9000)
    assert machine.volume.revoke_writer().over
    do(machine.volume.stop_clean)
    machine.cut_power(seed)
    machine.boot(clean=True)
    assert machine.volume.dirty() == BlockSet.of_extents((9000, 1))


def test_a_store_written_while_it_was_stopped_loses_the_tracking(machine: Machine) -> None:
    machine.stop()
    found = machine.boot(clean=False, writes=9)
    assert "while stopped" in found.lost
    assert (found.suspect_blocks, found.writes) == (blocks_in(SIZE), 9 + UNTRUSTED_WRITES)
    assert machine.volume.dirty() == EVERYTHING


def test_a_first_write_after_a_clean_stop_ends_it(machine: Machine, seed: int) -> None:
    machine.stop()
    machine.boot(clean=True)
    write(machine.volume, 9000)
    machine.cut_power(seed)
    machine.boot(clean=True)
    assert machine.volume.dirty() == REGION_OF_9000


@pytest.mark.parametrize("power", [False, True])
def test_a_start_after_a_clean_stop_that_dies_before_the_first_write_is_exact(machine: Machine, power: bool) -> None:
    write(machine.volume, 9000)
    machine.stop()
    machine.boot(clean=True)
    machine.cut_power(1) if power else machine.kill()
    found = machine.boot(clean=False)  # the records forgot at that start what the store had looked like
    assert not found.lost
    assert machine.volume.dirty() == BlockSet.of_extents((9000, 1))


def _cool(volume: Volume, now_s: float) -> int:
    """Cool until there is nothing more to do; in how many steps."""
    steps = 0
    while (step := volume.cool(now_s, all=True)) is not None:
        step.run()
        steps += 1
        assert steps < 10, "once is enough"
    return steps


def _synced(machine: Machine) -> None:
    """What was written is in a point of both sides; its pages on the disk still call it dirty."""
    write(machine.volume, 9000)
    _cool(machine.volume, 1000)
    machine.volume.prepare_capture(b"s" * 16)
    (capture,) = freeze([machine.volume])
    capture.flush().run()
    capture.settle().run()
    assert machine.volume.dirty() == BlockSet()


def test_a_clean_stop_after_a_sync_leaves_nothing_dirty(machine: Machine) -> None:
    _synced(machine)
    machine.stop()
    machine.boot(clean=True)
    assert machine.volume.dirty() == BlockSet()


def test_cooling_takes_what_was_synced_off_the_disk(machine: Machine) -> None:
    _synced(machine)
    pages = machine.volume._tracker.pages.file  # type: ignore[union-attr]
    assert pages.shown
    assert _cool(machine.volume, 2000), "pages are stale: they are written anew"
    assert not pages.shown


def test_seeding_takes_every_bit_off_the_disk(tmp_path: Path, live: Path) -> None:
    volume = tracked(tmp_path, live, all_dirty=True)
    assert volume.set_clean_everything().over
    assert _cool(volume, 1000)
    pages = volume._tracker.pages.file.shown  # type: ignore[union-attr]
    assert not pages


def test_marks_after_a_clean_stop_survive_a_kill(machine: Machine) -> None:
    machine.stop()
    machine.boot(clean=True)
    machine.volume.mark_blocks(77, 2)
    machine.kill()
    machine.boot(clean=True)
    assert machine.volume.dirty() == BlockSet.of_extents((77, 2))
    machine.stop()
    machine.boot(clean=True)
    assert machine.volume.dirty() == BlockSet.of_extents((77, 2))


@pytest.mark.parametrize("which", ["intent", "dirty"])
@pytest.mark.parametrize("how", ["missing", "foreign", "garbage"])
def test_files_that_cannot_be_used_lose_the_tracking_and_are_made_new(machine: Machine, which: str, how: str) -> None:
    write(machine.volume, 3)
    machine.kill()
    (path,) = [p for p in (machine.folder / "volume").iterdir() if p.name.startswith(which)]
    if how == "missing":
        path.unlink()
    else:
        raw = bytearray(path.read_bytes())
        for start in (0, 65536):
            raw[start + 20 : start + 36] = b"x" * 16 if how == "foreign" else bytes(16)
        path.write_bytes(raw)
    found = machine.boot()
    assert path.name in found.lost
    assert machine.volume.dirty() == EVERYTHING
    machine.kill()
    assert machine.boot().lost == ""
    assert machine.volume.dirty() == EVERYTHING


def test_tracking_that_was_lost_stays_lost_through_a_kill_before_it_is_recorded(machine: Machine) -> None:
    write(machine.volume, 3)
    machine.stop()
    assert machine.boot(clean=False, recorded=False).lost
    machine.kill()
    machine.boot(clean=False)
    assert machine.volume.dirty() == EVERYTHING


def test_a_damaged_page_counts_as_all_dirty(machine: Machine) -> None:
    write(machine.volume, 9000)
    machine.stop()
    (path,) = (machine.folder / "volume").glob("dirty.*")
    raw = bytearray(path.read_bytes())
    raw[65536 + 300] ^= 1
    path.write_bytes(raw)
    machine.boot(clean=True)
    assert machine.volume.dirty() == BlockSet.of_extents((0, 31 * BLOCKS_PER_REGION))
    machine.stop()  # writes it whole again
    machine.boot(clean=True)
    assert machine.volume.dirty() == BlockSet.of_extents((0, 31 * BLOCKS_PER_REGION))


def test_a_newer_page_gone_bad_is_not_taken_for_the_older_one(machine: Machine) -> None:
    for block in (9000, 9001):
        write(machine.volume, block)
        step = machine.volume.cool(0.0, all=True)
        assert step is not None
        step.run()
    machine.stop()
    (path,) = (machine.folder / "volume").glob("dirty.*")
    raw = bytearray(path.read_bytes())
    raw[65536 + 65536 + 300] ^= 1
    path.write_bytes(raw)
    machine.boot(clean=True)
    assert 9001 in machine.volume.dirty()


def test_what_a_dead_process_wrote_is_synced_before_it_is_believed(machine: Machine) -> None:
    machine.kill()
    machine.disk.syncs.clear()
    machine.boot()
    tid = TRACKING.hex()
    assert machine.disk.syncs[0] == "store"
    assert [name for name in machine.disk.syncs if tid in name] == [f"intent.{tid}", f"dirty.{tid}.pmap"]


def test_a_clean_stop_flushes_before_it_records(machine: Machine) -> None:
    write(machine.volume, 9000)
    assert machine.volume.revoke_writer().over
    machine.disk.syncs.clear()
    do(machine.volume.stop_clean)
    tid = TRACKING.hex()
    assert machine.disk.syncs == ["store", f"dirty.{tid}.pmap", f"intent.{tid}"]


def test_dropping_a_tracking_leaves_nothing_and_may_be_repeated(tmp_path: Path, live: Path) -> None:
    volume = tracked(tmp_path, live)
    volume.close()
    volume = open_volume(tmp_path, live)
    for _ in range(2):
        volume.drop_tracking(TRACKING)
    assert not list(live.iterdir())
    assert [path.name for path in (tmp_path / "volume").iterdir()] == ["hashes"]


def test_a_tracking_is_not_let_go_while_its_pages_are_written(tmp_path: Path, live: Path) -> None:
    volume = tracked(tmp_path, live)
    volume.open_writer()
    write(volume, 7, b"w" * BLOCK)
    assert volume.revoke_writer().over
    cooling = volume.cool(0.0, all=True)
    assert cooling is not None
    work = cooling.start()
    assert volume.let_go(TRACKING) is cooling
    assert volume.is_tracked
    cooling.complete(work())
    assert volume.let_go(TRACKING) is None
    assert not volume.is_tracked
    volume.drop_tracking(TRACKING)
    assert volume.cool(1.0, all=True) is None
    assert not list(live.iterdir())


def test_maps_of_other_owners_in_the_folder_are_left_alone(machine: Machine, live: Path) -> None:
    overlay = live / f"{'ab' * 16}.1.live"
    overlay.write_bytes(b"an overlay's")
    machine.kill()
    machine.boot()
    machine.stop()
    assert overlay.read_bytes() == b"an overlay's"


def test_a_volume_of_one_short_block_works(tmp_path: Path, live: Path) -> None:
    volume = tracked(tmp_path, live, Disk(), size=100)
    writer = volume.open_writer()
    do(lambda: writer.write(0, memoryview(b"x" * 100), False))
    assert volume.dirty() == BlockSet.of_extents((0, 1))
    buffer = memoryview(bytearray(BLOCK))
    do(lambda: writer.read_into(0, buffer))
    assert bytes(buffer) == b"x" * 100 + bytes(BLOCK - 100)
    volume.close()


def test_a_volume_of_whole_regions_works(tmp_path: Path, live: Path) -> None:
    volume = tracked(tmp_path, live, Disk(), size=2 * REGION)
    volume.open_writer()
    write(volume, 2047)
    assert volume.dirty() == BlockSet.of_extents((2047, 1))
    volume.close()
