"""A pack that is received: what counts, what a session cuts off, what a restart finds, what a seal names."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from pack_story import IDS, IMAGE, SYNC, create, digests, open_sealed, read_all, recover, seen
from plans import GIVEN_BACK, SEED, ZEROED, BufferedPowerDisk, Plan, UnsyncedDisk, admit, content, take, wire

from blockstore.disk import Disk, DiskFile
from blockstore.errors import BlockMismatch, FrameDamaged, LayerDamaged, LayerFailed, LayerSpace, StoreFlushFailed
from blockstore.layer import SealReceipt
from blockstore.pack import OpenPack
from blockstore.units import BLOCK

NEXT = b"t" * 16
A = {0: content(1), 1: content(2), 1023: ZEROED}
B = {1024: content(3), 1025: GIVEN_BACK}
C = {2048 + 5: content(4)}


def test_what_was_received_is_read_back_block_for_block(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A, B, C)
    receipt = pack.seal().run()
    pack.close()
    assert (receipt.blocks, receipt.payload_bytes) == (6, 4 * BLOCK)
    sealed = open_sealed(tmp_path, receipt)
    assert read_all(sealed) == {**seen(A), **seen(B), **seen(C)}
    assert list(sealed.regions()) == [0, 1, 2]
    assert (tmp_path / "layer.pack").stat().st_size == receipt.length_bytes


def test_frames_count_without_a_gap_only(tmp_path: Path) -> None:
    pack = create(tmp_path)
    slots = [admit(pack, plan) for plan in (A, B, C)]
    for at in (1, 2):
        pack.store(slots[at])
        pack.landed(slots[at])
    assert (pack.received_frames, pack.complete_frames) == (3, 0)
    assert pack.checkpoint() is None
    pack.store(slots[0])
    pack.landed(slots[0])
    assert pack.complete_frames == 3
    step = pack.checkpoint()
    assert step is not None
    step.run()
    assert pack.durable_frames == 3
    assert pack.checkpoint() is None


def test_a_checkpoint_names_what_was_complete_before_its_sync_began(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A)
    step = pack.checkpoint()
    assert step is not None
    work = step.start()
    take(pack, B)
    assert pack.checkpoint() is step, "one at a time"
    work()
    step.complete(None)
    assert pack.durable_frames == 1
    again = pack.checkpoint()
    assert again is not None
    assert again is not step


def test_a_head_claims_durable_only_what_a_checkpoint_made_so(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A)
    assert admit(pack, B).head.durable == BLOCK
    pack.begin_session(SYNC)
    end = pack.complete.offset
    assert admit(pack, B).head.durable == end


def test_a_session_cuts_off_what_lies_behind_a_gap(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A)
    lost, behind = admit(pack, B), admit(pack, C)
    pack.store(behind)
    pack.landed(behind)
    pack.begin_session(SYNC)
    assert pack.presence() == digests(A)
    assert (tmp_path / "layer.pack").stat().st_size == pack.complete.offset
    pack.landed(lost)
    assert (pack.received_frames, pack.complete_frames, pack.durable_frames) == (0, 0, 0)
    take(pack, C)
    assert pack.presence() == digests(A, C)


def test_a_late_slot_of_a_void_session_counts_for_nothing(tmp_path: Path) -> None:
    pack = create(tmp_path)
    late = admit(pack, A)
    pack.begin_session(SYNC)
    slot = admit(pack, B)
    pack.landed(late)
    assert pack.complete_frames == 0
    pack.store(slot)
    pack.landed(slot)
    assert pack.presence() == digests(B)


def test_a_late_checkpoint_of_a_void_session_claims_nothing(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A)
    step = pack.checkpoint()
    assert step is not None
    step.start()()
    pack.begin_session(SYNC)
    take(pack, B)
    step.complete(None)
    assert pack.durable_frames == 0


def test_a_wrong_block_is_named_and_nothing_of_its_frame_is_written(tmp_path: Path) -> None:
    pack = create(tmp_path)
    slot = admit(pack, {**A, 5: content(9), 6: content(10)})
    at = slot.head.padded_bytes + 3 * BLOCK
    slot.buffer[at + 17] ^= 1
    with pytest.raises(BlockMismatch) as refused:
        pack.store(slot)
    assert (refused.value.first, refused.value.blocks) == (6, 1)
    assert (tmp_path / "layer.pack").stat().st_size == BLOCK
    pack.begin_session(SYNC)
    take(pack, A)
    assert pack.presence() == digests(A)


@pytest.mark.parametrize("flip", [0, 130, 150])
def test_a_damaged_head_is_not_admitted(tmp_path: Path, flip: int) -> None:
    pack = create(tmp_path)
    head, payload = wire(A)
    head[flip] ^= 1
    buffer = memoryview(bytearray(head) + bytes(2 * BLOCK + len(payload)))
    with pytest.raises(FrameDamaged):
        pack.admit(buffer, len(head))
    assert pack.received_frames == 0


def test_a_frame_that_claims_more_than_its_buffer_is_not_admitted(tmp_path: Path) -> None:
    pack = create(tmp_path)
    head, _ = wire(A)
    with pytest.raises(FrameDamaged):
        pack.admit(memoryview(bytearray(head) + bytes(BLOCK)), len(head))
    with pytest.raises(FrameDamaged):
        pack.admit(memoryview(bytearray(head) + bytes(8 * BLOCK)), len(head) + 8)


def test_the_last_frame_that_names_a_region_replaces_it_whole(tmp_path: Path) -> None:
    pack = create(tmp_path)
    newer = {1: content(20)}
    take(pack, A, B, newer)
    receipt = pack.seal().run()
    assert read_all(open_sealed(tmp_path, receipt)) == {**seen(newer), **seen(B)}
    assert receipt.blocks == 3


def test_a_restart_finds_what_was_synced_and_goes_on(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A, B)
    pack.close()
    found = recover(tmp_path)
    found.begin_session(SYNC)
    assert found.presence() == digests(A, B)
    take(found, C)
    receipt = found.seal().run()
    assert read_all(open_sealed(tmp_path, receipt)) == {**seen(A), **seen(B), **seen(C)}


def test_a_directory_without_its_transaction_is_cut_off_and_written_again(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A)
    first = pack.seal().run()
    pack.close()
    found = recover(tmp_path)
    assert (tmp_path / "layer.pack").stat().st_size == first.directory_offset
    found.begin_session(SYNC)
    again = found.seal().run()
    assert (again.digest, again.directory_offset, again.length_bytes) == (
        first.digest,
        first.directory_offset,
        first.length_bytes,
    )
    assert read_all(open_sealed(tmp_path, again)) == seen(A)


def test_another_layers_pack_is_refused(tmp_path: Path) -> None:
    create(tmp_path).close()
    for changed in (
        {"layer_id": b"x" * 16},
        {"volume_id": b"x" * 16},
        {"builds_on": b"x" * 16},
        {"image_bytes": IMAGE + BLOCK},
        {"hash_seed": SEED + 1},
    ):
        with pytest.raises(LayerDamaged):
            OpenPack.recover(Disk(), f"{tmp_path}/layer.pack", **{**IDS, **changed})


# Reuse by a new capture


def test_what_an_older_sync_brought_is_offered_and_counts_for_nothing(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A, B)
    pack.begin_session(NEXT)
    assert pack.presence() == {}
    assert pack.reusable() == digests(A, B)
    take(pack, C)
    receipt = pack.seal().run()
    assert read_all(open_sealed(tmp_path, receipt)) == seen(C)


def test_a_kept_region_is_the_older_frames(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A, B)
    pack.close()
    found = recover(tmp_path)
    found.begin_session(NEXT)
    assert found.reusable() == digests(A, B)
    slot = admit(found, C, kept=[(1024, 1024)])
    found.store(slot)
    found.landed(slot)
    assert found.presence() == digests(B, C)
    assert found.reusable() == digests(A)
    found.close()
    again = recover(tmp_path)
    again.begin_session(NEXT)
    assert again.presence() == digests(B, C)
    receipt = again.seal().run()
    assert read_all(open_sealed(tmp_path, receipt)) == {**seen(B), **seen(C)}
    plain = create_elsewhere(tmp_path, B, C)
    assert receipt.digest == plain.digest, "the source, which knows of no reuse, must come to the same digest"


def create_elsewhere(folder: Path, *plans: Plan) -> SealReceipt:
    (folder / "other").mkdir()
    pack = create(folder / "other")
    take(pack, *plans)
    return pack.seal().run()


def test_only_what_is_complete_can_be_kept(tmp_path: Path) -> None:
    pack = create(tmp_path)
    under_way = admit(pack, B)
    with pytest.raises(FrameDamaged):
        admit(pack, {}, kept=[(1024, 1024)])
    pack.store(under_way)
    pack.landed(under_way)
    admit(pack, {}, kept=[(1024, 1024)])
    with pytest.raises(FrameDamaged):
        admit(pack, {}, kept=[(1024, 2048)])


# Failures of the disk


class FailingFile(DiskFile):
    def __init__(self, inner: DiskFile, disk: FailingDisk) -> None:
        super().__init__(inner.fd, inner.path, direct=inner.direct)
        self._disk = disk

    def write(self, data: object, offset: int, *, durable: bool = False) -> None:
        self._disk.check("write", self)
        super().write(data, offset, durable=durable)

    def _sync(self, call: Callable[[int], None]) -> None:
        def checked(fd: int) -> None:
            self._disk.check("sync", self)
            call(fd)

        super()._sync(checked)


class FailingDisk(Disk):
    """`fails` names the call that fails and how."""

    def __init__(self) -> None:
        self.fails: dict[str, int] = {}
        self.only_direct = False

    def check(self, what: str, file: DiskFile) -> None:
        if what in self.fails and (file.direct or not self.only_direct):
            raise OSError(self.fails[what], "refused")

    def open(self, path: str, **how: bool) -> DiskFile:  # type: ignore[override]
        return FailingFile(super().open(path, **how), self)


def test_a_full_disk_voids_the_session_and_the_next_one_goes_on(tmp_path: Path) -> None:
    disk = FailingDisk()
    pack = create(tmp_path, disk)
    take(pack, A)
    disk.fails = {"write": errno.ENOSPC}
    with pytest.raises(LayerSpace):
        pack.store(admit(pack, B))
    disk.fails = {}
    pack.begin_session(SYNC)
    take(pack, B)
    disk.fails = {"write": errno.ENOSPC}
    with pytest.raises(LayerSpace):
        pack.seal().run()
    disk.fails = {}
    pack.begin_session(SYNC)
    assert read_all(open_sealed(tmp_path, pack.seal().run())) == {**seen(A), **seen(B)}


def test_a_full_disk_leaves_no_file_behind_when_a_pack_is_made(tmp_path: Path) -> None:
    disk = FailingDisk()
    disk.fails = {"write": errno.ENOSPC}
    with pytest.raises(LayerSpace):
        create(tmp_path, disk)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_sync_is_the_end_of_the_pack(tmp_path: Path) -> None:
    disk = FailingDisk()
    pack = create(tmp_path, disk)
    take(pack, A)
    disk.fails = {"sync": errno.EIO}
    step = pack.checkpoint()
    assert step is not None
    with pytest.raises(LayerFailed):
        step.run()
    disk.fails = {}
    assert pack.durable_frames == 0
    for again in (pack.checkpoint, pack.seal, lambda: pack.begin_session(SYNC)):
        with pytest.raises(LayerFailed):
            again()
    pack.drop()
    assert list(tmp_path.iterdir()) == []


def test_direct_writes_that_are_refused_in_mid_file_go_on_buffered(tmp_path: Path) -> None:
    disk = FailingDisk()
    pack = create(tmp_path, disk)
    assert pack.frames.file.direct, "the tests' folder takes direct I/O"
    take(pack, A)
    disk.fails, disk.only_direct = {"write": errno.EINVAL}, True
    with pytest.raises(OSError, match="refused"):
        pack.store(admit(pack, B))
    pack.begin_session(SYNC)
    assert not pack.frames.file.direct
    take(pack, B)
    assert read_all(open_sealed(tmp_path, pack.seal().run())) == {**seen(A), **seen(B)}


def test_a_medium_that_lost_what_it_had_synced_is_found_out(tmp_path: Path) -> None:
    pack = create(tmp_path)
    take(pack, A)
    pack.durable_offset = 1 << 20  # so the second head claims: more than will be there
    take(pack, B)
    pack.close()
    with pytest.raises(LayerDamaged, match="medium lost"):
        recover(tmp_path)


def test_syncs_per_operation(tmp_path: Path) -> None:
    disk = BufferedPowerDisk()
    pack = create(tmp_path, disk)
    assert disk.syncs == ["layer.pack", tmp_path.name, "layer.pack"], "made, and a session begun"
    disk.syncs.clear()
    take(pack, A, B)
    step = pack.checkpoint()
    assert step is not None
    step.run()
    assert disk.syncs == ["layer.pack"]
    disk.syncs.clear()
    pack.seal().run()
    assert disk.syncs == ["layer.pack"]


# What a restart finds after anything


def test_a_tail_cut_anywhere_costs_only_what_no_checkpoint_covered(live: Path) -> None:
    """A kill in a write, or an old size: whole frames count, and nothing below `durable` is missing."""
    pack = create(live)
    take(pack, A)
    pack.begin_session(SYNC)
    first = pack.complete.offset
    take(pack, B)
    second = pack.complete.offset
    take(pack, C)
    pack.close()
    whole = (live / "layer.pack").read_bytes()
    for length in range(first, len(whole) + 1, 512):
        (live / "layer.pack").write_bytes(whole[:length])
        found = recover(live, UnsyncedDisk())
        found.begin_session(SYNC)
        expected = [A] + [B] * (length >= second) + [C] * (length >= len(whole))
        assert found.presence() == digests(*expected), length
        found.close()


def test_no_flipped_byte_of_a_tail_brings_a_wrong_block(live: Path) -> None:
    """Every byte of headers and heads, and some of the payloads: refused, or fewer regions, never other ones."""
    pack = create(live)
    take(pack, A, B)
    pack.close()
    whole = (live / "layer.pack").read_bytes()
    heads = {*range(BLOCK), *range(BLOCK, BLOCK + 300), *range(4 * BLOCK, 4 * BLOCK + 300)}
    for at in sorted({*heads, *range(0, len(whole), 509)}):
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        (live / "layer.pack").write_bytes(broken)
        try:
            found = recover(live, UnsyncedDisk())
        except LayerDamaged:
            assert at < BLOCK, "nothing was said to be durable yet"
            continue
        assert at >= BLOCK
        found.begin_session(SYNC)
        expected = {} if at < 4 * BLOCK else digests(A)
        assert found.presence() == expected, at
        found.close()


def test_frames_of_an_older_run_behind_the_cut_never_count(tmp_path: Path) -> None:
    """The file system lied about the cut: as long frames of an older sync still stand there, in order."""
    pack = create(tmp_path)
    take(pack, A)
    keep = pack.complete.offset
    take(pack, B, C)
    pack.close()
    old = (tmp_path / "layer.pack").read_bytes()
    (tmp_path / "layer.pack").write_bytes(old[:keep])
    found = recover(tmp_path)
    found.begin_session(NEXT)
    take(found, {1024: content(30), 1025: ZEROED})
    end = found.complete.offset
    found.close()
    new = (tmp_path / "layer.pack").read_bytes()
    (tmp_path / "layer.pack").write_bytes(new + old[end:])
    again = recover(tmp_path)
    again.begin_session(NEXT)
    assert set(again.presence()) == {1}
    assert set(again.reusable()) == {0}
    assert again.complete.offset == end


def test_a_failed_sync_of_the_folder_is_told(tmp_path: Path) -> None:
    class NoFolders(Disk):
        def sync_dir(self, path: str) -> None:
            raise StoreFlushFailed(path=path, reason="no")

    with pytest.raises(StoreFlushFailed):
        OpenPack.create(NoFolders(), f"{tmp_path}/layer.pack", **IDS)
    assert list(tmp_path.iterdir()) == []
