"""Make and open files of frames: creation that is durable with its name, direct I/O where it can be, the directory.

Used by everything that keeps frames: packs, redo packs, seed journals. This module must never decide which
frames count.
"""

from __future__ import annotations

import errno
import os

from blockstore.disk import Disk, DiskFile, aligned_buffer
from blockstore.errors import LayerSpace
from blockstore.layer import SealReceipt
from blockstore.pack_format import HEADER_BYTES, FoundHeader, Mark, PackHeader, build_directory, parse_header
from blockstore.pack_regions import RegionTable
from blockstore.pack_walk import FrameFile

SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write that only more space cures."""


def create_file(disk: Disk, path: str, header: PackHeader, *, direct: bool = False) -> tuple[DiskFile, int]:
    """Make a file of frames, durable with its name; returns it and the check of its header. Blocking.

    Raises LayerSpace, FileExistsError, OSError, StoreFlushFailed; then the file is gone again.
    """
    file = disk.open(path, create=True)
    try:
        other = open_direct(disk, path) if direct else None
        if other is not None:
            file.close()
            file = other
        buffer = aligned_buffer(HEADER_BYTES)
        buffer[:] = raw = header.to_bytes()
        file.write(buffer, 0)
        file.sync()
        disk.sync_dir(os.path.dirname(path))
    except BaseException as error:
        file.close()
        disk.unlink(path)  # nothing names it yet
        if isinstance(error, OSError) and error.errno in SPACE:
            raise LayerSpace(path=path) from error
        raise
    return file, parse_header(raw, path, header).check


def open_direct(disk: Disk, path: str) -> DiskFile | None:
    """The file for direct reads and writes; None where the file system has none. Raises OSError."""
    try:
        return disk.open(path, direct=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def read_header(file: DiskFile, header: PackHeader) -> FoundHeader:
    """The header of an open file of frames. Blocking. Raises LayerDamaged, OSError."""
    buffer = aligned_buffer(HEADER_BYTES)
    return parse_header(buffer[: file.read_into(buffer, 0)], file.path, header)


def write_directory(frames: FrameFile, table: RegionTable, end: Mark, sync_id: bytes, durable: int) -> SealReceipt:
    """Put the directory of what `sync_id` confirmed at `end`, make it the end of the file, sync. Blocking."""
    raw, check = build_directory(
        table.directory(sync_id),
        end,
        owner=frames.owner,
        sync_id=sync_id,
        durable=durable,
        hash_seed=frames.hash_seed,
    )
    buffer = aligned_buffer(len(raw))
    buffer[:] = raw
    length = end.offset + len(raw)
    frames.file.write(buffer, end.offset)
    frames.file.truncate(length)
    frames.file.sync()
    return table.receipt(sync_id, length=length, directory_offset=end.offset, directory_check=check)
