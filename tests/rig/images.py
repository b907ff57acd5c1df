"""File-system images that hold a real directory tree, and the proof that an image still holds it.

tree = make_tree(tmp_path / "tree", seed)
build_ext4(image, tree, 256 << 20)      # e2fsprogs writes the tree into the image: no root, no mount
check_ext4(copy)                        # e2fsck -fn finds nothing
assert compare_trees(tree, extract_ext4(copy, tmp_path / "out")) == []
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import shutil
import stat
from pathlib import Path

from rig.loop import loop_device, mounted, run

UUID = "6ea9a6c5-3d9f-4b0a-9f0e-6c65657761ff"


def make_tree(folder: Path, seed: int, size_bytes: int = 48 << 20) -> Path:
    """A tree of about `size_bytes`: real text files of this Python, random and sparse files, links, deep folders."""
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    for package in (json, filecmp, shutil, random):
        source = Path(str(package.__file__))
        shutil.copy(source, folder / source.name)
    shutil.copytree(Path(str(json.__file__)).parent, folder / "json", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "empty").mkdir()
    (folder / "empty.file").touch()
    (folder / "a link").symlink_to("json/decoder.py")
    (folder / "ümläut ☂").write_text("names are bytes\n", encoding="utf-8")
    os.link(folder / "shutil.py", folder / "a second name")
    deep = folder.joinpath(*(f"level{n}" for n in range(12)))
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(chance.randbytes(5000))
    with (folder / "sparse").open("wb") as sparse:
        sparse.seek(4 << 20)
        sparse.write(chance.randbytes(10_000))
    number, left = 0, size_bytes
    while left > 0:
        content = _content(chance, min(left, int(2 ** chance.uniform(6, 22))))
        place = folder / f"part{number % 16:02}"
        place.mkdir(exist_ok=True)
        (place / f"file{number}").write_bytes(content)
        (place / f"file{number}").chmod(chance.choice((0o600, 0o644, 0o755)))
        number, left = number + 1, left - len(content)
    return folder


def _content(chance: random.Random, length: int) -> bytes:
    """Half of the files are noise, half are text that compresses."""
    if chance.random() < 0.5:
        return chance.randbytes(length)
    words = [b"%x " % chance.getrandbits(20) for _ in range(200)]
    line = b"".join(chance.choice(words) for _ in range(2000))
    return (line * (length // len(line) + 1))[:length]


def build_ext4(image: Path, tree: Path, size_bytes: int) -> None:
    """Make `image` an ext4 file system of `size_bytes` that holds `tree`."""
    with image.open("wb") as file:
        file.truncate(size_bytes)
    run("mke2fs", "-q", "-t", "ext4", "-U", UUID, "-E", "root_owner=0:0,lazy_itable_init=0", "-d", tree, image)


def build_xfs(device: Path, tree: Path, folder: Path) -> None:
    """Make an XFS file system on the block device and copy `tree` into it; `folder` is where it is mounted for that."""
    run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", device)
    with mounted(device, folder):
        shutil.copytree(tree, folder, symlinks=True, dirs_exist_ok=True)


def check_ext4(image: Path) -> None:
    """AssertionError unless `e2fsck -fn` finds the image clean."""
    run("e2fsck", "-f", "-n", image)


def check_xfs(device: Path) -> None:
    """AssertionError unless `xfs_repair -n` finds the device clean."""
    run("xfs_repair", "-n", device)


def extract_ext4(image: Path, folder: Path) -> Path:
    """Copy the tree out of the image into the new `folder`, without mounting it."""
    folder.mkdir(parents=True)
    run("debugfs", "-R", f'rdump / "{folder}"', image)
    (folder / "lost+found").rmdir()
    return folder


def compare_image(image: Path, tree: Path, folder: Path) -> list[str]:
    """Mount a file-system image read-only at `folder` and compare it with `tree`; the differences."""
    with loop_device(image, read_only=True) as device, mounted(device, folder, read_only=True):
        return compare_trees(tree, folder)


def compare_trees(expected: Path, found: Path) -> list[str]:
    """How `found` differs from `expected` in names, kinds, modes, link targets and bytes; empty: not at all."""
    here, there = _entries(expected), _entries(found)
    there.pop("lost+found", None)
    differences = [f"missing: {name}" for name in sorted(here.keys() - there.keys())]
    differences += [f"too much: {name}" for name in sorted(there.keys() - here.keys())]
    for name in sorted(here.keys() & there.keys()):
        if here[name] != there[name]:
            differences.append(f"{name}: {there[name]} instead of {here[name]}")
        elif here[name][0] == stat.S_IFREG and not filecmp.cmp(expected / name, found / name, shallow=False):
            differences.append(f"{name}: other bytes")
    return differences


def _entries(tree: Path) -> dict[str, tuple[int, int, int, str]]:
    """Every path below `tree`: (kind, mode, bytes, link target); size and mode only where they mean something."""
    entries = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        target = os.readlink(path) if kind == stat.S_IFLNK else ""
        mode = stat.S_IMODE(status.st_mode) if kind != stat.S_IFLNK else 0
        entries[str(path.relative_to(tree))] = (kind, mode, status.st_size if kind == stat.S_IFREG else 0, target)
    return entries
