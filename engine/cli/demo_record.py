"""The drill's own record of what each image must show: files beside the daemons, written beside each write.

This module must never read an image through a daemon.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from engine.cli.demo_site import BLOCK

PIECE = 4 << 20
"""Bytes compared at a time."""


@dataclass(slots=True)
class Record:
    """What an image of the group must show: a file a volume, and the blocks that hosts wrote since the last sync."""

    folder: Path
    written: set[tuple[str, int]] = field(default_factory=set)

    def image(self, volume: str) -> Path:
        return self.folder / volume

    def take_over(self, other: Record) -> None:
        """Show what `other` shows."""
        self.folder.mkdir(exist_ok=True)
        for image in other.folder.iterdir():
            shutil.copyfile(image, self.folder / image.name)

    def all_blocks(self) -> set[tuple[str, int]]:
        return {
            (image.name, block) for image in self.folder.iterdir() for block in range(image.stat().st_size // BLOCK)
        }

    def count_zeros(self, blocks: set[tuple[str, int]]) -> int:
        """How many of these blocks are all zeros."""
        images = {image.name: image.read_bytes() for image in self.folder.iterdir()}
        return sum(not any(images[volume][block * BLOCK : (block + 1) * BLOCK]) for volume, block in blocks)

    def note(self, volume: str, block: int, content: bytes) -> None:
        with self.image(volume).open("r+b") as file:
            os.pwrite(file.fileno(), content, block * BLOCK)
        self.written.add((volume, block))


def first_difference(one: Path, other: Path) -> int | None:
    """Offset of the first byte in which two files differ, or the length of the shorter one; None if they are equal."""
    with one.open("rb") as ours, other.open("rb") as theirs:
        at = 0
        while True:
            left, right = ours.read(PIECE), theirs.read(PIECE)
            if left != right:
                shorter = min(len(left), len(right))
                return at + next((n for n in range(shorter) if left[n] != right[n]), shorter)
            if not left:
                return None
            at += len(left)
