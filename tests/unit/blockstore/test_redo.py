"""The redo of a sync: the digest of the peer's pack, and hashes that wait until their point is known to exist."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from pack_story import create
from plans import GIVEN_BACK, POINT, SEED, VOLUME, ZEROED, UnsyncedDisk, admit, content, take, wire

from blockstore.disk import Disk, DiskFile
from blockstore.errors import FrameDamaged, LayerDamaged, LayerSpace
from blockstore.frame import hash_blocks, zero_hash
from blockstore.hashes import HashTable
from blockstore.redo import RedoPack
from blockstore.units import BLOCK

IMAGE = 9 * 1024 * BLOCK + 1000
SYNC = b"s" * 16
A = {0: content(1), 1: content(2), 1023: ZEROED}
B = {1024: content(3), 1025: GIVEN_BACK}
C = {2048 + 5: content(4), 4096: content(5)}


def make(folder: Path, disk: Disk | None = None) -> RedoPack:
    return RedoPack.create(
        disk or UnsyncedDisk(),
        f"{folder}/redo",
        volume_id=VOLUME,
        sync_id=SYNC,
        builds_on=POINT,
        image_bytes=IMAGE,
        hash_seed=SEED,
    )


def found(folder: Path, sync_id: bytes = SYNC) -> RedoPack:
    return RedoPack.open(UnsyncedDisk(), f"{folder}/redo", volume_id=VOLUME, sync_id=sync_id, hash_seed=SEED)


def table(folder: Path) -> HashTable:
    return HashTable.open(UnsyncedDisk(), f"{folder}/hashes", volume_id=VOLUME, hash_seed=SEED, size_bytes=IMAGE)


def hashed(number: int) -> int:
    return int(hash_blocks(memoryview(content(number)), SEED)[0])


def test_sender_and_receiver_come_to_one_digest_however_frames_were_kept_or_sent_again(live: Path) -> None:
    pack, redo = create(live, UnsyncedDisk()), make(live)
    take(pack, B)
    pack.begin_session(b"t" * 16)
    redo.append(wire(A)[0])
    redo.append(wire({**B, **C})[0])  # as if all were sent
    redo.append(wire(A)[0])  # sent again after a break
    take(pack, A)
    slot = admit(pack, C, kept=[(1024, 1024)])
    pack.store(slot)
    pack.landed(slot)
    sealed, noted = pack.seal().run(), redo.seal()
    assert noted.digest == sealed.digest
    assert (noted.blocks, noted.payload_bytes) == (sealed.blocks, sealed.payload_bytes) == (7, 5 * BLOCK)


def test_a_different_block_is_a_different_digest(live: Path) -> None:
    pack, redo = create(live, UnsyncedDisk()), make(live)
    take(pack, A)
    redo.append(wire({**A, 1: content(9)})[0])
    assert pack.seal().run().digest != redo.seal().digest


def test_applied_it_sets_data_and_zeros_and_forgets_what_was_given_back(live: Path) -> None:
    redo = make(live)
    redo.append(wire(A)[0])
    redo.append(wire(B)[0])
    redo.seal()
    redo.close()
    hashes = table(live)
    hashes.store(0, hash_blocks(memoryview(b"".join(content(n) for n in range(50, 60))), SEED))
    before = hashes.lookup(2, 8).tolist()
    hashes.store(1025, hash_blocks(memoryview(content(60)), SEED))
    for _ in range(2):  # again, as after a crash
        again = found(live)
        assert again.builds_on == POINT
        again.apply(hashes)
        again.close()
        assert hashes.lookup(0, 2).tolist() == [hashed(1), hashed(2)]
        assert hashes.lookup(2, 8).tolist() == before
        assert hashes.lookup(1023, 3).tolist() == [zero_hash(SEED), hashed(3), 0]


def test_the_newest_frame_of_a_block_wins(live: Path) -> None:
    redo = make(live)
    redo.append(wire(A)[0])
    redo.append(wire({0: content(7), 1: GIVEN_BACK})[0])
    redo.seal()
    hashes = table(live)
    found(live).apply(hashes)
    assert hashes.lookup(0, 2).tolist() == [hashed(7), 0]


def test_a_redo_that_was_not_sealed_touches_no_hash(live: Path) -> None:
    redo = make(live)
    redo.append(wire(A)[0])
    redo.close()
    hashes = table(live)
    with pytest.raises(LayerDamaged):
        found(live).apply(hashes)
    assert not hashes.lookup(0, 2000).any()


def test_a_flipped_byte_refuses_the_whole_redo_and_touches_no_hash(live: Path) -> None:
    redo = make(live)
    redo.append(wire(A)[0])
    redo.append(wire(C)[0])
    receipt = redo.seal()
    redo.close()
    whole = (live / "redo").read_bytes()
    hashes = table(live)
    for at in range(0, receipt.directory_offset + BLOCK, 11):
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        (live / "redo").write_bytes(broken)
        with pytest.raises(LayerDamaged):
            found(live).apply(hashes)
        assert not hashes.lookup(0, 5000).any(), at


def test_another_syncs_redo_is_refused(live: Path) -> None:
    make(live).close()
    with pytest.raises(LayerDamaged):
        found(live, b"x" * 16)


def test_a_damaged_head_is_not_noted(live: Path) -> None:
    redo = make(live)
    head = wire(A)[0]
    head[130] ^= 1
    with pytest.raises(FrameDamaged):
        redo.append(head)
    with pytest.raises(FrameDamaged):
        redo.append(wire({}, kept=[(0, 1024)])[0])
    redo.append(wire(A)[0])
    redo.seal()
    hashes = table(live)
    found(live).apply(hashes)
    assert hashes.lookup(0, 1).tolist() == [hashed(1)]


def test_a_full_disk_fails_the_sync_by_name(live: Path) -> None:
    class Full(DiskFile):
        def write(self, data: object, offset: int, *, durable: bool = False) -> None:
            if offset:
                raise OSError(errno.ENOSPC, "full")
            super().write(data, offset)

    class FullDisk(UnsyncedDisk):
        def open(self, path: str, **how: bool) -> DiskFile:  # type: ignore[override]
            return Full(super().open(path, **how).fd, path)

    redo = make(live, FullDisk())
    with pytest.raises(LayerSpace):
        redo.append(wire(A)[0])
    with pytest.raises(LayerSpace):
        redo.seal()
    redo.drop()
    assert not (live / "redo").exists()
