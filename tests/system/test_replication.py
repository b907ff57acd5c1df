"""Real images, replicated: what a snapshot of the point shows is what the host wrote."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from rig.images import (
    build_ext4,
    build_xfs,
    check_ext4,
    check_xfs,
    compare_image,
    compare_trees,
    extract_ext4,
    make_tree,
)
from rig.loop import loop_device, mounted, run
from rig.nbd import NbdClient
from rig.pair import Pair
from rig.until import until

MIB = 1 << 20
BLOCK = 4096


def copy(source: str | Path, target: str | Path) -> None:
    subprocess.run(["nbdcopy", "--flush", str(source), str(target)], check=True)


def test_an_ext4_image_reads_back_from_a_snapshot_with_every_file(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", seed=1)
    build_ext4(tmp_path / "image", tree, 256 * MIB)
    with Pair(tmp_path, size="256M") as pair:
        copy(tmp_path / "image", pair.exports()[0])
        assert pair.sync()["point"]["sequence"] == 1
        with pair.snapshot() as exports:
            copy(exports[0], tmp_path / "back")
    check_ext4(tmp_path / "back")
    assert compare_trees(tree, extract_ext4(tmp_path / "back", tmp_path / "out")) == []


def test_an_xfs_on_loop_devices_at_both_ends_reads_back_with_every_file(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", seed=2)
    for name in ("east.img", "west.img", "made.img"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(400 * MIB)
    with loop_device(tmp_path / "made.img") as made:
        build_xfs(made, tree, tmp_path / "made")
    with (
        loop_device(tmp_path / "east.img") as east,
        loop_device(tmp_path / "west.img", sector_bytes=4096) as west,
        Pair(tmp_path, stores=[east], recovery_stores=[west]) as pair,
    ):
        copy(tmp_path / "made.img", pair.exports()[0])
        pair.sync()
        with pair.snapshot() as exports:
            copy(exports[0], tmp_path / "back")
    with loop_device(tmp_path / "back") as device:
        check_xfs(device)
        with mounted(device, tmp_path / "mnt", read_only=True) as found:
            assert compare_trees(tree, found) == []


def test_a_scattered_hundredth_of_a_volume_costs_its_bytes_on_the_wire(tmp_path: Path) -> None:
    """1 % of 2 GiB in single blocks: at most 1.05 x the changed bytes in both directions; no change: under 4 KiB."""
    size, chance = 2048 * MIB, random.Random(3)
    blocks = sorted(chance.sample(range(size // BLOCK), size // BLOCK // 100))
    with Pair(tmp_path, size="2G") as pair:
        pair.sync()
        with NbdClient(pair.exports()[0]) as client:
            for block in blocks:
                client.pwrite(chance.randbytes(BLOCK), block * BLOCK)
            client.flush()
        done = pair.sync()
        assert done["bytes_changed"] == len(blocks) * BLOCK
        assert done["bytes_wire"] <= 1.05 * len(blocks) * BLOCK
        again = pair.sync()
        assert again["bytes_wire"] < 4096
        assert again["point"]["id"] == done["point"]["id"], "a sync that finds nothing changed makes no point"
        print(
            f"wire: {done['bytes_wire'] / len(blocks) / BLOCK:.4f} x the change; no change: {again['bytes_wire']} bytes"
        )


def test_the_first_point_tells_how_much_its_copy_brought(tmp_path: Path) -> None:
    with Pair(tmp_path, size="64M") as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"a" * 3 * MIB, 5 * MIB)
        pair.sync()
        client.pwrite(b"b" * MIB, 5 * MIB)
        pair.sync()
        assert [point["bytes"] for point in pair.points()] == [MIB, 3 * MIB]


def test_a_first_copy_that_was_cut_tells_all_that_it_brought(tmp_path: Path) -> None:
    """What landed before the recovery site was killed counts, what was lost with it and sent again counts once."""
    size = 192 * MIB
    chance = random.Random(6)
    with Pair(tmp_path, size=str(size)) as pair:
        with NbdClient(pair.exports()[0]) as client:
            for offset in range(0, size, MIB):
                client.pwrite(chance.randbytes(MIB), offset)
        command = pair.east.spawn("sync", pair.group)
        journals = (pair.west.data / "volumes").glob
        until(lambda: any(path.stat().st_size > 64 << 10 for path in journals("*/*.seed")), "a checkpoint is made", 60)
        pair.west.restart()
        assert pair.east.finished(command)["point"]["sequence"] == 1
        assert "sync_interrupted" in [event["code"] for event in pair.east.events()]
        assert [point["bytes"] for point in pair.points()] == [size]


def test_blocks_written_with_what_they_held_are_not_sent(tmp_path: Path) -> None:
    with Pair(tmp_path, size="64M") as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"a" * MIB, 0)
        first = pair.sync()
        client.pwrite(b"a" * MIB, 0)
        again = pair.sync()
        assert (again["bytes_sent"], again["point"]["id"]) == (0, first["point"]["id"])
        client.pwrite(b"b" * BLOCK, 8 * BLOCK)
        client.pwrite(b"a" * BLOCK, 9 * BLOCK)
        third = pair.sync()
        assert third["bytes_sent"] == BLOCK
        assert third["point"]["sequence"] == 2


def test_discarded_ranges_and_holes_stay_sparse_at_the_recovery_site(tmp_path: Path) -> None:
    with Pair(tmp_path, size="512M") as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"x" * 16 * MIB, 100 * MIB)
        pair.sync()
        client.trim(16 * MIB, 100 * MIB)
        done = pair.sync()
        assert done["bytes_wire"] < 8192
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.pread(MIB, 105 * MIB) == bytes(MIB)
        store = Path(pair.west.group(pair.group)["volumes"][0]["store"])
        assert store.stat().st_blocks * 512 <= 17 * MIB


def test_a_volume_whose_size_is_no_multiple_of_a_block_is_replicated_to_its_last_byte(tmp_path: Path) -> None:
    size = 5 * MIB + 1536
    with Pair(tmp_path, size=str(size)) as pair:
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(b"z" * 3000, size - 3000)
        pair.sync()
        with NbdClient(pair.exports()[0]) as client:
            client.pwrite(b"end", size - 3)
        pair.sync()
        with pair.snapshot() as exports, NbdClient(exports[0]) as look:
            assert look.size == size
            assert look.pread(3000, size - 3000) == b"z" * 2997 + b"end"


def test_only_the_points_to_keep_are_kept_and_the_newest_reads_right(tmp_path: Path) -> None:
    with Pair(tmp_path, size="64M", keep=3) as pair, NbdClient(pair.exports()[0]) as client:
        for number in range(1, 9):
            client.pwrite(bytes([number]) * 64 * BLOCK, number * 32 * BLOCK)
            pair.sync()
        pair.west.wait_for(pair.group, state="ok")
        points = _points_when(pair, 3)
        assert [point["sequence"] for point in points] == [8, 7, 6]
        with pair.snapshot(points[-1]["id"]) as exports, NbdClient(exports[0]) as look:
            assert look.pread(BLOCK, 6 * 32 * BLOCK) == b"\6" * BLOCK
            assert look.pread(BLOCK, 8 * 32 * BLOCK + 40 * BLOCK) == bytes(BLOCK), "written after that point"


def _points_when(pair: Pair, count: int) -> list[dict[str, object]]:
    until(lambda: len(pair.points()) == count, f"{count} points are left")
    return pair.points()


def test_a_snapshot_is_writable_while_replication_goes_on_and_leaves_no_trace(tmp_path: Path) -> None:
    with Pair(tmp_path, size="64M") as pair, NbdClient(pair.exports()[0]) as client:
        client.pwrite(b"1" * MIB, 0)
        pair.sync()
        with pair.snapshot() as exports:
            with NbdClient(exports[0]) as test:
                test.pwrite(b"test", 4094)
                test.flush()
                client.pwrite(b"2" * MIB, 0)
                pair.sync()
                assert test.pread(8, 4092) == b"11test11"
            pair.west.restart()
            with NbdClient(exports[0]) as test:
                assert test.pread(8, 4092) == b"11test11", "an acknowledged write to a snapshot survives a kill"
        with pair.snapshot(name="other") as exports, NbdClient(exports[0]) as look:
            assert look.pread(4, 4094) == b"2222"
        layers = pair.west.data / "volumes"
        until(lambda: not list(layers.glob("*/layers/*.data")), "the files of both are gone")


def test_the_image_on_a_mounted_recovery_copy_is_compared_as_a_file_system(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", seed=4, size_bytes=8 * MIB)
    build_ext4(tmp_path / "image", tree, 64 * MIB)
    with Pair(tmp_path, size="64M") as pair:
        copy(tmp_path / "image", pair.exports()[0])
        pair.sync()
        pair.east.kill()
        pair.west.run("promote", pair.group, "--force", "--yes")
        copy(pair.west.exports(pair.group)[0], tmp_path / "back")
    assert compare_image(tmp_path / "back", tree, tmp_path / "mnt") == []
    assert run("cmp", tmp_path / "image", tmp_path / "back") == ""
