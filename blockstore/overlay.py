"""Overlay: a layer that hosts write, as a sparse file at native offsets and a bitmap of the blocks that it has.

Data before its presence bit, always: a bit before data would read what was there before as if it were written. A
killed process leaves the bits in the live map, a power cut those in the paged bitmap; blocks without a bit fall
back to what lies below. Bits are only ever set, so bits from both are simply joined. A partly written block is
first copied up whole. Format: `docs/formats.md`, "Overlay". This module must never touch the layers below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from blockstore.disk import Disk, DiskFile
from blockstore.errors import LayerDamaged, StoreFlushFailed
from blockstore.steps import Step
from blockstore.tracking.bitmap import LiveMap, LiveName
from blockstore.tracking.pmap import KIND_PRESENCE, REGIONS_PER_PAGE, PagedBitmap, Staged
from blockstore.units import REGION_BITS_BYTES, regions_in


class Overlay:
    """The files of one overlay. `create`, `open`, `remove` and `close` are blocking, the rest is for the loop."""

    def __init__(self, disk: Disk, data: DiskFile, pages: PagedBitmap, bits: LiveMap, layer_id: bytes) -> None:
        self.layer_id = layer_id
        self.data = data
        self.bits = bits
        self._disk = disk
        self._pages = pages
        self._new_pages: set[int] = set()
        self._flushing: Step[None] | None = None
        self.failure: StoreFlushFailed | None = None
        """A flush that failed: nothing is written or flushed any more, and what was not flushed before may be gone."""
        self.on_failure: Callable[[StoreFlushFailed], None] = lambda failure: None
        """Told on the loop when that happens."""

    @classmethod
    def create(
        cls,
        disk: Disk,
        folder: str,
        *,
        layer_id: bytes,
        volume_id: bytes,
        image_bytes: int,
        live_folder: str | None,
    ) -> Overlay:
        """Make its files, durable. Raises FileExistsError; OSError ENOSPC; StoreFlushFailed."""
        data_path, pages_path = _paths(folder, layer_id)
        regions = regions_in(image_bytes)
        data = disk.open(data_path, create=True)
        try:
            data.truncate(image_bytes)
            data.sync()
            pages = PagedBitmap.create(
                disk,
                pages_path,
                kind=KIND_PRESENCE,
                volume_id=volume_id,
                owner=layer_id,
                regions=regions,
                allocate=False,
            )
            disk.sync_dir(folder)
        except BaseException:
            data.close()
            raise
        live = _new_map(disk, live_folder, LiveName(volume_id, layer_id, 0, layer_id), regions)
        live.set_ready()
        return cls(disk, data, pages, live, layer_id)

    @classmethod
    def open(
        cls,
        disk: Disk,
        folder: str,
        *,
        layer_id: bytes,
        volume_id: bytes,
        image_bytes: int,
        live_folder: str | None,
    ) -> Overlay:
        """Open what a process left; what it acknowledged is there. Raises LayerDamaged, OSError, StoreFlushFailed."""
        data_path, pages_path = _paths(folder, layer_id)
        regions = regions_in(image_bytes)
        try:
            data = disk.open(data_path)
        except FileNotFoundError as error:
            raise LayerDamaged(path=data_path, reason="the file is missing") from error
        try:
            if data.size() != image_bytes:
                raise LayerDamaged(path=data_path, reason=f"it has {data.size()} bytes, not {image_bytes}")
            data.datasync()
            pages = PagedBitmap.open(
                disk, pages_path, kind=KIND_PRESENCE, volume_id=volume_id, owner=layer_id, regions=regions
            )
            overlay = cls(disk, data, pages, _renewed_map(disk, live_folder, volume_id, layer_id, regions), layer_id)
            overlay._load_pages(pages_path)
        except BaseException:
            data.close()
            raise
        overlay.bits.set_ready()
        _remove_older(disk, live_folder, overlay.bits)
        overlay.flush().run()
        return overlay

    @staticmethod
    def remove(disk: Disk, folder: str, layer_id: bytes, live_folder: str | None) -> None:
        """Remove the files of an overlay that is closed, durably. Missing ones are no error."""
        for path in _paths(folder, layer_id):
            disk.unlink(path)
        for path in _live_paths(disk, live_folder, layer_id):
            disk.unlink(path)
        disk.sync_dir(folder)

    @property
    def is_kept(self) -> bool:
        """True if the bits outlive a kill; else what is written must be flushed before it is acknowledged."""
        return self.bits.path is not None

    def touch(self, first_region: int, last_region: int) -> None:
        """Memory for the bits of these regions, before data is written. Raises OSError ENOSPC."""
        for region in range(first_region, last_region + 1):
            self.bits.touch(region)

    def written(self, first: int, count: int) -> None:
        """These whole blocks are in the data file. After `touch`."""
        self.bits.mark(first, count)
        first_page = first // 1024 // REGIONS_PER_PAGE
        last_page = (first + count - 1) // 1024 // REGIONS_PER_PAGE
        self._new_pages.update(range(first_page, last_page + 1))

    @property
    def flushing(self) -> Step[None] | None:
        """The flush that runs."""
        return self._flushing

    def flush(self) -> Step[None]:
        """What was written before this call is durable after it: data, then the pages of its bits. One at a time.

        By the step: StoreFlushFailed, then for ever; OSError ENOSPC, then it may be tried again.
        """
        if self.failure is not None:
            raise self.failure
        assert self._flushing is None, "a flush that comes while another runs waits for a new one"
        touched, self._new_pages = self._new_pages, set()
        staged: list[Staged] = [self._pages.stage(page, self._rows(page)) for page in sorted(touched)]

        def work() -> None:
            self.data.datasync()
            if staged:
                self._pages.write(staged)

        def settle(_: None) -> None:
            self._flushing = None
            self._pages.landed(staged)

        def failed(error: Exception) -> None:
            self._flushing = None
            if not isinstance(error, StoreFlushFailed):
                self._pages.not_landed(staged)
                self._new_pages |= touched
                return
            self.failure = error
            self.bits.poison()
            self.on_failure(error)

        self._flushing = Step(work, settle, failed, final=True)
        return self._flushing

    def close(self) -> None:
        """Close the files; the live map stays for the next run."""
        self.data.close()
        self._pages.close()
        self.bits.close()

    def _rows(self, page: int) -> bytes:
        """The bits of a page, without touching memory that nobody stored to."""
        rows = bytearray(REGIONS_PER_PAGE * REGION_BITS_BYTES)
        regions = len(self.bits.touched)
        for index in range(REGIONS_PER_PAGE):
            region = page * REGIONS_PER_PAGE + index
            if region < regions and (bits := self.bits.bits(region)):
                at = index * REGION_BITS_BYTES
                rows[at : at + REGION_BITS_BYTES] = bits.to_bytes(REGION_BITS_BYTES, "little")
        return bytes(rows)

    def _load_pages(self, path: str) -> None:
        """Join the bits that are on the disk to those of the live map; pages that differ are flushed again."""
        for page, rows in self._pages.load():
            if rows is None:
                raise LayerDamaged(path=path, reason=f"page {page} of its bitmap is damaged")
            for index in range(REGIONS_PER_PAGE):
                at = index * REGION_BITS_BYTES
                bits = int.from_bytes(rows[at : at + REGION_BITS_BYTES], "little")
                if bits:
                    self.bits.add(page * REGIONS_PER_PAGE + index, bits)
        self._new_pages.update(region // REGIONS_PER_PAGE for region, _ in self.bits.regions())


def _paths(folder: str, layer_id: bytes) -> tuple[str, str]:
    return f"{folder}/{layer_id.hex()}.data", f"{folder}/{layer_id.hex()}.pmap"


def _live_paths(disk: Disk, live_folder: str | None, layer_id: bytes) -> Iterator[str]:
    if live_folder is not None:
        for name in disk.list(live_folder):
            if name.startswith(f"{layer_id.hex()}.") and name.endswith(".live"):
                yield f"{live_folder}/{name}"


def _new_map(disk: Disk, live_folder: str | None, name: LiveName, regions: int) -> LiveMap:
    if live_folder is not None:
        disk.make_dir(live_folder)
    return LiveMap.create(disk, live_folder, name, regions)


def _renewed_map(disk: Disk, live_folder: str | None, volume_id: bytes, layer_id: bytes, regions: int) -> LiveMap:
    """A new map with the bits of every trusted older one; the older ones stay until it is ready."""
    older = [
        LiveMap.open(disk, path, regions, volume_id, layer_id) for path in _live_paths(disk, live_folder, layer_id)
    ]
    found = [live for live in older if live is not None]
    epoch = 1 + max((live.name.epoch for live in found), default=0)
    fresh = _new_map(disk, live_folder, LiveName(volume_id, layer_id, epoch, layer_id), regions)
    for live in found:
        if live.is_trusted:
            fresh.merge(live)
        live.close()
    return fresh


def _remove_older(disk: Disk, live_folder: str | None, mine: LiveMap) -> None:
    for path in _live_paths(disk, live_folder, mine.name.owner):
        if path != mine.path:
            disk.unlink(path)
