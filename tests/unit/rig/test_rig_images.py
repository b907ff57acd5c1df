"""The images hold the tree that they were made of, and a difference is found."""

from __future__ import annotations

from pathlib import Path

import pytest

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
from rig.loop import loop_device, loops, mounted, run

MIB = 1 << 20


@pytest.fixture
def tree(tmp_path: Path, seed: int) -> Path:
    return make_tree(tmp_path / "tree", seed, 8 * MIB)


def test_an_ext4_image_is_clean_and_holds_the_tree(tmp_path: Path, tree: Path) -> None:
    image = tmp_path / "image"
    build_ext4(image, tree, 64 * MIB)
    check_ext4(image)
    assert image.stat().st_size == 64 * MIB
    assert compare_trees(tree, extract_ext4(image, tmp_path / "out")) == []
    assert compare_image(image, tree, tmp_path / "mnt") == []


def test_a_damaged_file_and_a_damaged_file_system_are_found(tmp_path: Path, tree: Path) -> None:
    image = tmp_path / "image"
    build_ext4(image, tree, 64 * MIB)
    (tree / "json" / "decoder.py").write_text("something else")
    (tree / "level0").chmod(0o700)
    (tree / "empty").rmdir()
    found = "\n".join(compare_image(image, tree, tmp_path / "mnt"))
    assert "json/decoder.py: " in found
    assert "level0: " in found
    assert "too much: empty" in found
    with image.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * MIB)
    with pytest.raises(AssertionError, match="e2fsck"):
        check_ext4(image)


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_xfs_on_a_loop_device_holds_the_tree(tmp_path: Path, tree: Path, sector_bytes: int) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    with loop_device(image, sector_bytes=sector_bytes) as device:
        assert loops()[device] == image
        assert run("blockdev", "--getss", device).strip() == str(sector_bytes)
        build_xfs(device, tree, tmp_path / "mnt")
        check_xfs(device)
        with mounted(device, tmp_path / "mnt", read_only=True) as folder:
            assert compare_trees(tree, folder) == []
    assert image not in loops().values()
