"""FileIO: a `BlockIO` over one plain file, with nothing in between: what the NBD server is tested and measured on.

It acts inline and hands back steps where the product's write path does. It keeps no record of changes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading

from blockstore.disk import Disk, DiskFile
from blockstore.errors import WriteRefused
from blockstore.steps import Step, Wait
from blockstore.units import BLOCK, within

INLINE_BYTES = 1024 * 1024
"""From here on a write goes to the pool, as in the product."""


class FileIO:
    """Serves `path`. `journal` lists (call, offset, length, durable) of everything that changed the file."""

    def __init__(self, path: str, *, disk: Disk | None = None) -> None:
        self.file: DiskFile = (disk or Disk()).open(path)
        self.size_bytes = self.file.size()
        self.journal: list[tuple[str, int, int, bool]] = []
        self.keep_journal = False
        self.refusal: Exception | None = None
        """What every change fails with from now on; reads go on."""
        self.gate: threading.Event | None = None
        """If set, every step waits for it in its thread: a slow disk whose end the test decides."""

    def close(self) -> None:
        self.file.close()

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        if self.gate is None and self.file.read_cached(buffer, offset):
            return None

        def work() -> None:
            self._pass_gate()
            if self.file.read_into(buffer, offset) != len(buffer):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        return Step(work, final=True)

    def write(self, offset: int, data: memoryview, durable: bool) -> Wait | None:
        self._note("write", offset, len(data), durable)
        if not durable and len(data) < INLINE_BYTES and self.gate is None:
            self.file.write(data, offset)
            return None

        def work() -> None:
            self._pass_gate()
            self.file.write(data, offset, durable=durable)

        return Step(work, final=True)

    def zero(self, offset: int, length: int, durable: bool, may_punch: bool) -> Wait | None:
        self._note("zero" if may_punch else "zero_no_hole", offset, length, durable)
        return Step(lambda: self._clear(offset, length, durable, may_punch), final=True)

    def discard(self, offset: int, length: int, durable: bool) -> Wait | None:
        self._note("discard", offset, length, durable)
        return Step(lambda: self._clear(offset, length, durable, True), final=True)

    def flush(self) -> Wait | None:
        self._note("flush", 0, 0, True)

        def work() -> None:
            self._pass_gate()
            self.file.datasync()

        return Step(work, final=True)

    def allocated(self, offset: int, length: int) -> Step[list[tuple[int, int, bool]]]:
        return Step(lambda: list(self.file.data_ranges(offset, length)), final=True)

    def _note(self, call: str, offset: int, length: int, durable: bool) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self.keep_journal:
            self.journal.append((call, offset, length, durable))

    def _pass_gate(self) -> None:
        if self.gate is not None:
            self.gate.wait()

    def _clear(self, offset: int, length: int, durable: bool, punch: bool) -> None:
        self._pass_gate()
        inner = within(offset, length) if punch else None
        if inner is None or not inner.count:
            self._write_zeros(offset, offset + length)
        else:
            first, end = inner.first * BLOCK, (inner.first + inner.count) * BLOCK
            with contextlib.suppress(ValueError):
                self._write_zeros(offset, first)
                self._write_zeros(end, offset + length)
            self.file.punch(first, end - first)
        if durable:
            self.file.datasync()

    def _write_zeros(self, offset: int, end: int) -> None:
        zeros = bytes(min(1024 * 1024, max(0, end - offset)))
        while offset < end:
            part = memoryview(zeros)[: end - offset]
            self.file.write(part, offset)
            offset += len(part)


def refused(name: str) -> WriteRefused:
    """What the product's write path raises at a site that is not protected."""
    return WriteRefused(volume=name, reason="this site is not the protected one")
