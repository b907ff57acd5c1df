"""A sealed pack: its directory is a shortcut that can be lost, its frames are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pack_story import create, open_sealed, read_all, seen
from plans import GIVEN_BACK, LAYER, SEED, VOLUME, ZEROED, BufferedPowerDisk, UnsyncedDisk, content, take

from blockstore.disk import Disk
from blockstore.errors import LayerDamaged
from blockstore.layer import SLOT_ABSENT, SLOT_ZERO, SealReceipt
from blockstore.pack_read import SealedPack
from blockstore.units import BLOCK

IMAGE = 9 * 1024 * BLOCK + 1000
A = {0: content(1), 1: content(2), 1023: ZEROED}
B = {1024: content(3), 1025: GIVEN_BACK, 2048: content(4)}
NEXT = b"t" * 16


@pytest.fixture
def sealed(live: Path) -> SealReceipt:
    pack = create(live, UnsyncedDisk())
    take(pack, A, B)
    receipt = pack.seal().run()
    pack.close()
    return receipt


def test_slots_name_blocks_zeros_and_what_is_not_there(live: Path, sealed: SealReceipt) -> None:
    pack = open_sealed(live, sealed)
    slots = pack.slots(0).tolist()
    assert [pack.file.read(BLOCK, slot * BLOCK) for slot in slots[:2]] == [content(1), content(2)]
    assert slots[1023] == SLOT_ZERO
    assert set(slots[2:1023]) == {SLOT_ABSENT}
    assert pack.slots(1).tolist()[1] == SLOT_ZERO
    assert set(pack.slots(5).tolist()) == {SLOT_ABSENT}
    assert [pack.has_region(region) for region in (0, 1, 2, 3, 4000)] == [True, True, True, False, False]


def test_a_part_has_the_extents_and_hashes_of_its_region_only(live: Path, sealed: SealReceipt) -> None:
    pack = open_sealed(live, sealed)
    first, second = pack.part(1), pack.part(2)
    assert first.extents.tolist() == [(1024, 1, 0), (1025, 1, 2)]
    assert second.extents.tolist() == [(2048, 1, 0)]
    assert (len(first.hashes), len(second.hashes)) == (1, 1)
    assert second.slot == first.slot + 1
    assert pack.file.read(BLOCK, second.slot * BLOCK) == content(4)


def test_a_lost_directory_is_made_again_from_the_frames(live: Path, sealed: SealReceipt) -> None:
    """Any byte of it may have flipped; whatever is opened reads the same."""
    whole = (live / "layer.pack").read_bytes()
    for at in range(sealed.directory_offset, len(whole), 7):
        broken = bytearray(whole)
        broken[at] ^= 1 << (at % 8)
        (live / "layer.pack").write_bytes(broken)
        pack = open_sealed(live, sealed)
        assert read_all(pack) == {**seen(A), **seen(B)}, at
        pack.close()


def test_a_pack_without_a_receipt_is_walked(live: Path, sealed: SealReceipt) -> None:
    assert read_all(open_sealed(live, None)) == {**seen(A), **seen(B)}


def test_a_walk_takes_only_what_the_last_sync_confirmed(live: Path) -> None:
    pack = create(live, UnsyncedDisk())
    take(pack, A)
    pack.begin_session(NEXT)
    take(pack, B)
    receipt = pack.seal().run()
    forgotten = replace(receipt, directory_check=bytes(8))
    assert read_all(open_sealed(live, forgotten)) == seen(B)


def test_a_pack_with_nothing_in_it_is_whole(live: Path) -> None:
    pack = create(live, UnsyncedDisk())
    take(pack, A)
    pack.begin_session(NEXT)
    receipt = pack.seal().run()
    assert (receipt.blocks, receipt.payload_bytes) == (0, 0)
    for known in (receipt, replace(receipt, directory_check=bytes(8))):
        assert read_all(open_sealed(live, known)) == {}


def test_a_flipped_byte_of_header_or_head_is_refused_or_harmless(live: Path, sealed: SealReceipt) -> None:
    """With the directory at hand only a header is refused at once; a region whose head is bad is refused when read."""
    path = live / "layer.pack"
    whole = path.read_bytes()
    second = BLOCK + BLOCK + 2 * BLOCK
    for at in [*range(0, BLOCK, 3), *range(BLOCK, 2 * BLOCK, 3), *range(second, second + BLOCK, 3)]:
        broken = bytearray(whole)
        broken[at] ^= 0x10
        path.write_bytes(broken)
        try:
            pack = open_sealed(live, sealed)
        except LayerDamaged:
            assert at < BLOCK
            continue
        for region, first in ((0, BLOCK), (1, second), (2, second)):
            if first <= at < first + BLOCK:
                with pytest.raises(LayerDamaged):
                    pack.slots(region)
            else:
                pack.slots(region)
        pack.close()
    path.write_bytes(whole)


def test_lost_directory_and_bad_frame_together_are_damage(live: Path, sealed: SealReceipt) -> None:
    path = live / "layer.pack"
    broken = bytearray(path.read_bytes())
    broken[BLOCK + 140] ^= 1
    broken[sealed.directory_offset + 5] ^= 1
    path.write_bytes(broken)
    with pytest.raises(LayerDamaged):
        open_sealed(live, sealed)


def test_a_short_a_lost_and_a_foreign_file_are_damage(live: Path, sealed: SealReceipt) -> None:
    path = live / "layer.pack"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(LayerDamaged, match="bytes are left"):
        open_sealed(live, sealed)
    path.write_bytes(whole)
    ids = {"volume_id": VOLUME, "layer_id": LAYER, "hash_seed": SEED, "image_bytes": IMAGE}
    for other in ({"volume_id": LAYER}, {"layer_id": VOLUME}, {"hash_seed": 1}, {"image_bytes": IMAGE - 1}):
        with pytest.raises(LayerDamaged):
            SealedPack.open(Disk(), str(path), receipt=sealed, **{**ids, **other})  # type: ignore[arg-type]
    path.unlink()
    with pytest.raises(LayerDamaged, match="missing"):
        open_sealed(live, sealed)


def test_a_pack_that_readers_use_is_retired_when_they_are_done(live: Path, sealed: SealReceipt) -> None:
    pack = open_sealed(live, sealed)
    assert pack.retired().over
    pack.acquire()
    pack.acquire()
    wait = pack.retired()
    pack.release()
    assert not wait.over
    pack.release()
    assert wait.over


def test_a_dropped_pack_is_gone_and_dropping_it_again_is_no_error(live: Path, sealed: SealReceipt) -> None:
    disk = BufferedPowerDisk()
    pack = open_sealed(live, sealed, disk)
    pack.drop()
    pack.drop()
    assert not (live / "layer.pack").exists()
    assert disk.syncs == [live.name, live.name]
