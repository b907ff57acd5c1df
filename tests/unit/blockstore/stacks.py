"""A base, packs on it, and the bytes that must be read: a model that knows nothing of slots, maps or files."""

from __future__ import annotations

from pathlib import Path
from random import Random

from plans import GIVEN_BACK, POINT, SEED, VOLUME, ZEROED, Content, Plan, bytes_of, content, take

from blockstore.disk import Disk
from blockstore.hashes import HashTable
from blockstore.pack import OpenPack
from blockstore.pack_read import SealedPack
from blockstore.stores.base import BlockStore
from blockstore.stores.kinds import make_store, open_store
from blockstore.units import BLOCK, BLOCKS_PER_REGION, blocks_in

REGIONS = 3


class Stack:
    """A store of three regions (the last one short by an odd number of bytes) and the packs above it."""

    def __init__(self, folder: Path, random: Random) -> None:
        self.disk = Disk()
        self.folder = folder
        self.random = random
        self.size = REGIONS * BLOCKS_PER_REGION * BLOCK - 3 * BLOCK - 1000
        make_store(self.disk, str(folder / "base"), self.size)
        self.base: BlockStore = open_store(self.disk, str(folder / "base"))
        self.model = bytearray(self.size)
        for block in random.sample(range(blocks_in(self.size)), 200):
            data = content(block)[: self.size - block * BLOCK]
            self.base.write(data, block * BLOCK)
            self.model[block * BLOCK : block * BLOCK + len(data)] = data
        self.packs: list[SealedPack] = []
        self.images = [bytes(self.model)]

    def add_pack(self) -> None:
        """Another layer: blocks, zeros and discards, clustered and scattered."""
        number = len(self.packs) + 1
        start = self.random.randrange(blocks_in(self.size) - 40)
        blocks = sorted({*range(start, start + 40), *self.random.sample(range(blocks_in(self.size)), 120)})
        plan: Plan = {block: self._content(10_000 * number + block, block) for block in blocks}
        self.packs.append(self._sealed(number, plan))
        for block, value in plan.items():
            data = bytes_of(value)[: self.size - block * BLOCK]
            self.model[block * BLOCK : block * BLOCK + len(data)] = data
        self.images.append(bytes(self.model))

    def _content(self, number: int, block: int) -> Content:
        kind = self.random.random()
        data = content(number)
        if (block + 1) * BLOCK > self.size:  # the short last block travels padded with zeros
            data = data[: self.size - block * BLOCK].ljust(BLOCK, b"\0")
        return ZEROED if kind < 0.2 else GIVEN_BACK if kind < 0.3 else data

    def _sealed(self, number: int, plan: Plan) -> SealedPack:
        path, layer = str(self.folder / f"{number}.pack"), bytes([number]) * 16
        names = {"volume_id": VOLUME, "layer_id": layer, "hash_seed": SEED, "image_bytes": self.size}
        pack = OpenPack.create(self.disk, path, builds_on=POINT, **names)  # type: ignore[arg-type]
        pack.begin_session(b"S" * 16)
        take(pack, plan)
        receipt = pack.seal().run()
        pack.close()
        return SealedPack.open(self.disk, path, receipt=receipt, **names)  # type: ignore[arg-type]

    def hashes(self) -> HashTable:
        """The hash table of the base."""
        path = str(self.folder / "hashes")
        return HashTable.open(self.disk, path, volume_id=VOLUME, hash_seed=SEED, size_bytes=self.size)

    def ranges(self, count: int) -> list[tuple[int, int]]:
        """Byte ranges of all kinds: within a block, across blocks, across regions, to the very end."""
        picked = [(0, self.size), (self.size - 700, 700), (BLOCKS_PER_REGION * BLOCK - 10, 20)]
        for _ in range(count):
            offset = self.random.randrange(self.size)
            picked.append((offset, min(self.size - offset, self.random.choice([1, 512, 4096, 5000, 70_000, 300_000]))))
        return picked
