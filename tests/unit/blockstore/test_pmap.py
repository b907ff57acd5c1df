"""Pages of bits on disk: the format, twins, and what damage costs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from power_disk import PowerDisk
from xxhash import xxh3_64_intdigest

from blockstore.disk import Disk
from blockstore.errors import LayerDamaged, TrackingLost
from blockstore.tracking.pmap import KIND_DIRTY, KIND_PRESENCE, ROWS_BYTES, PagedBitmap, pages_for

V, O = b"v" * 16, b"o" * 16  # noqa: E741  # volume and owner
REGIONS = 31 * 40 + 3


def create(path: Path, disk: Disk | None = None, kind: int = KIND_DIRTY) -> PagedBitmap:
    return PagedBitmap.create(
        disk or Disk(), str(path), kind=kind, volume_id=V, owner=O, regions=REGIONS, allocate=True
    )


def reopen(path: Path, kind: int = KIND_DIRTY, owner: bytes = O) -> PagedBitmap:
    return PagedBitmap.open(Disk(), str(path), kind=kind, volume_id=V, owner=owner, regions=REGIONS)


def put(file: PagedBitmap, page: int, rows: bytes) -> None:
    staged = [file.stage(page, rows)]
    file.write(staged)
    file.landed(staged)


def rows(byte: int) -> bytes:
    return bytes([byte]) * ROWS_BYTES


def test_header_and_page_are_laid_out_as_the_formats_say(tmp_path: Path) -> None:
    file = create(tmp_path / "p")
    put(file, 17, rows(1))
    put(file, 17, rows(2))
    raw = (tmp_path / "p").read_bytes()
    head = struct.pack("<8sHHI16s16s", b"LWPMAP1\0", 1, KIND_DIRTY, 4096, V, O)
    check = xxh3_64_intdigest(head + bytes(4096 - len(head)))
    assert raw[:4096] == (head + struct.pack("<Q", check)).ljust(4096, b"\0")
    for slot, version, byte in ((0, 1, 1), (1, 2, 2)):
        at = 65536 + 131072 + slot * 65536 + 4096
        page = struct.pack("<4sHHIIQ16s", b"LWPG", 1, KIND_DIRTY, 17, 31, version, O)
        body = bytes(128 - 48) + rows(byte)
        check = xxh3_64_intdigest(page + bytes(8) + body)
        assert raw[at : at + 4096] == page + struct.pack("<Q", check) + body
    assert len(raw) == 65536 + 2 * 131072 + 65536 + 9 * 4096  # 41 pages: the last group is used up to its ninth


def test_all_space_is_there_from_the_start(tmp_path: Path) -> None:
    create(tmp_path / "p")
    assert (tmp_path / "p").stat().st_blocks * 512 >= (tmp_path / "p").stat().st_size


def test_pages_are_found_again(tmp_path: Path, seed: int) -> None:
    random, file, model = Random(seed), create(tmp_path / "p"), {}
    for _ in range(100):
        page = random.randrange(pages_for(REGIONS))
        model[page] = random.randbytes(ROWS_BYTES)
        put(file, page, model[page])
    file.close()
    again = reopen(tmp_path / "p")
    assert dict(again.load()) == model
    assert not again.torn
    put(again, 3, rows(9))
    assert dict(reopen(tmp_path / "p").load())[3] == rows(9)


def test_a_page_is_staged_once_until_it_has_landed(tmp_path: Path) -> None:
    file = create(tmp_path / "p")
    file.stage(5, rows(1))
    with pytest.raises(AssertionError):
        file.stage(5, rows(2))


def test_one_write_and_one_sync_for_many_pages(tmp_path: Path) -> None:
    disk = PowerDisk()
    file = create(tmp_path / "p", disk)
    disk.syncs.clear()
    file.write([file.stage(page, rows(page)) for page in range(20)])
    assert disk.syncs == ["p"]


def test_a_torn_page_leaves_the_one_before_it_and_says_so(tmp_path: Path) -> None:
    file = create(tmp_path / "p")
    put(file, 0, rows(1))
    _, offset, image = file.stage(0, rows(3))
    file.file.write(image[:2048], offset)
    again = reopen(tmp_path / "p")
    assert dict(again.load()) == {0: rows(1)}
    assert again.torn == {0}
    put(again, 0, rows(7))  # goes over the torn one
    assert dict(reopen(tmp_path / "p").load()) == {0: rows(7)}


def test_a_page_with_no_valid_twin_is_damaged(tmp_path: Path) -> None:
    file = create(tmp_path / "p")
    put(file, 0, rows(1))
    file.file.write(b"?", 65536 + 4095)
    assert dict(reopen(tmp_path / "p").load()) == {0: None}


@pytest.mark.parametrize("twins", [1, 2])
def test_no_flipped_byte_of_a_page_passes(live: Path, twins: int) -> None:
    file = create(live / "p")
    for version in range(twins):
        put(file, 2, rows(version + 1))
    offset = 65536 + (twins - 1) * 65536 + 2 * 4096
    raw = file.file.read(4096, offset)
    for at in (*range(128), *range(128, 4096, 13)):
        file.file.write(bytes([raw[at] ^ 0x10]), offset + at)
        again = PagedBitmap(file.file, KIND_DIRTY, O, REGIONS)
        found = dict(again.load())
        assert found == {2: None} if twins == 1 else again.torn == {2}
        file.file.write(raw[at : at + 1], offset + at)


def test_every_flipped_byte_of_the_header_is_refused(live: Path) -> None:
    file = create(live / "p")
    raw = file.file.read(4096, 0)
    for at in range(4096):
        file.file.write(bytes([raw[at] ^ 1]), at)
        with pytest.raises(TrackingLost):
            reopen(live / "p")
        file.file.write(raw[at : at + 1], at)
    reopen(live / "p")


@pytest.mark.parametrize(("kind", "error"), [(KIND_DIRTY, TrackingLost), (KIND_PRESENCE, LayerDamaged)])
def test_who_is_refused_is_told_by_kind(tmp_path: Path, kind: int, error: type[Exception]) -> None:
    path = tmp_path / "p"
    with pytest.raises(error):
        reopen(path, kind)
    path.write_bytes(b"short")
    with pytest.raises(error):
        reopen(path, kind)
    path.unlink()
    create(path, kind=kind).close()
    with pytest.raises(error):
        reopen(path, kind, owner=b"x" * 16)
    reopen(path, kind)


def test_a_page_of_another_owner_does_not_count(tmp_path: Path) -> None:
    file = create(tmp_path / "p")
    foreign = PagedBitmap(file.file, KIND_DIRTY, b"x" * 16, REGIONS)
    put(foreign, 4, rows(1))
    assert dict(reopen(tmp_path / "p").load()) == {4: None}


def power_states(tmp_path: Path, prepare: Callable[[PagedBitmap], None], seed: int) -> list[dict[int, bytes | None]]:
    """What is loaded after 60 power cuts in the middle of a write of page 0 with rows(9)."""
    found = []
    for run in range(60):
        disk, old, new = PowerDisk(), tmp_path / f"{run}a", tmp_path / f"{run}b"
        old.mkdir()
        new.mkdir()
        file = create(old / "p", disk)
        disk.sync_dir(str(old))
        prepare(file)
        _, offset, image = file.stage(0, rows(9))
        file.file.write(image, offset)
        disk.cut_power(Random(seed * 100 + run), str(old), str(new))
        again = reopen(new / "p")
        found.append({page: None if page in again.torn else bits for page, bits in again.load()})
    return found


def test_after_a_power_cut_a_page_is_old_new_or_known_to_be_torn(tmp_path: Path, seed: int) -> None:
    states = power_states(tmp_path, lambda file: put(file, 0, rows(1)), seed)
    kinds = {state[0] if state[0] is None else state[0][:1] for state in states}
    assert kinds <= {b"\1", b"\x09", None}
    assert len(kinds) == 3
