"""Packs for tests: made, found again, sealed and read; and their histories under a seed.

A history keeps its own record of what the source planned and of what it was told; frames are written in any order,
checkpoints overlap with writes, sessions break, sources die, processes are killed and power is cut.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from plans import (
    GIVEN_BACK,
    LAYER,
    POINT,
    SEED,
    VOLUME,
    ZEROED,
    BufferedPowerDisk,
    Content,
    Plan,
    admit,
    random_plan,
    wire,
)

from blockstore.disk import Disk
from blockstore.frame import frame_regions, parse_head
from blockstore.layer import SLOT_ABSENT, SLOT_ZERO, SealReceipt, Slot
from blockstore.pack import OpenPack
from blockstore.pack_read import SealedPack
from blockstore.steps import Step
from blockstore.units import BLOCK

IMAGE = 9 * 1024 * BLOCK + 1000
SYNC = b"s" * 16
IDS = {"volume_id": VOLUME, "layer_id": LAYER, "builds_on": POINT, "image_bytes": IMAGE, "hash_seed": SEED}


def create(folder: Path, disk: Disk | None = None, sync: bytes = SYNC) -> OpenPack:
    pack = OpenPack.create(disk or Disk(), f"{folder}/layer.pack", **IDS)
    pack.begin_session(sync)
    return pack


def recover(folder: Path, disk: Disk | None = None) -> OpenPack:
    return OpenPack.recover(disk or Disk(), f"{folder}/layer.pack", **IDS)


def open_sealed(folder: Path, receipt: SealReceipt | None, disk: Disk | None = None) -> SealedPack:
    return SealedPack.open(
        disk or Disk(),
        f"{folder}/layer.pack",
        volume_id=VOLUME,
        layer_id=LAYER,
        hash_seed=SEED,
        image_bytes=IMAGE,
        receipt=receipt,
    )


def digests(*plans: Plan) -> dict[int, bytes]:
    found = {}
    for plan in plans:
        head = parse_head(memoryview(wire(plan)[0]), filled=False)
        found.update({region: digest for region, _, digest in frame_regions(head, SEED)})
    return found


def read_all(pack: SealedPack) -> dict[int, Content]:
    """Every block that the layer has; zeros are ZEROED, whether they were written or given back."""
    found: dict[int, Content] = {}
    for region in pack.regions():
        for block, slot in enumerate(pack.slots(region).tolist()):
            if slot == SLOT_ZERO:
                found[region * 1024 + block] = ZEROED
            elif slot != SLOT_ABSENT:
                found[region * 1024 + block] = pack.file.read(BLOCK, slot * BLOCK)
    return found


def seen(plan: Plan) -> dict[int, Content]:
    return {block: ZEROED if value == GIVEN_BACK else value for block, value in plan.items()}


class Wrong(AssertionError):
    """The history shows what must never be."""


class Story:
    """One pack under a seed."""

    def __init__(self, folder: Path, random: Random) -> None:
        self.random = random
        self.root, self.boot = folder, 0
        self.disk = BufferedPowerDisk()
        self.number = 0
        self.plan: dict[int, dict[int, Content]] = {}
        self.told: set[int] = set()
        self.step: Step[None] | None = None
        self.folder.mkdir()
        self.pack = OpenPack.create(self.disk, f"{self.folder}/layer.pack", **IDS)
        self.capture()

    @property
    def folder(self) -> Path:
        return self.root / str(self.boot)

    def capture(self) -> None:
        """A new source: some regions with new content, some as they were, some gone."""
        self.number += 1
        old, self.plan = self.plan, {}
        for region in range(5):
            choice = self.random.random()
            if choice < 0.4 and region in old:
                self.plan[region] = old[region]
            elif choice < 0.8:
                self.plan[region] = random_plan(self.random, [region], range(3), self.number)
        self.told.clear()
        self.begin()

    def begin(self) -> None:
        """A session: what was told must be there, as it is planned now."""
        self.step = None
        self.pack.begin_session(self.number.to_bytes(16, "little"))
        present = self.pack.presence()
        if not self.told <= set(present):
            raise Wrong("what the source was told of is gone")
        if not set(present) <= set(self.plan) or present != digests(*(self.plan[region] for region in present)):
            raise Wrong("what is said to be present is not what is planned")
        self.told |= set(present)
        self.reuse = self.pack.reusable()
        self.todo = [region for region in self.plan if region not in present]
        self.in_flight: list[Slot] = []
        self.sent: dict[int, int] = {}

    def send(self) -> None:
        region = self.todo.pop(self.random.randrange(len(self.todo)))
        if self.reuse.get(region) == digests(self.plan[region])[region]:
            slot = admit(self.pack, {}, kept=[(region * 1024, 1024)])
        else:
            slot = admit(self.pack, self.plan[region])
        self.sent[slot.number] = region
        self.in_flight.append(slot)

    def write(self) -> None:
        slot = self.in_flight.pop(self.random.randrange(len(self.in_flight)))
        self.pack.store(slot)
        self.pack.landed(slot)

    def checkpoint(self) -> None:
        """Begin one, or end the one that runs: what lands in between is not covered."""
        if self.step is None:
            self.step = self.pack.checkpoint()
            if self.step is not None:
                self.step.start()()
            return
        self.step.complete(None)
        self.step = None
        self.told |= {region for number, region in self.sent.items() if number <= self.pack.durable_frames}

    def crash(self) -> None:
        if self.random.random() < 0.5:
            self.disk.kill()
        else:
            self.lose_power()
        self.pack = OpenPack.recover(self.disk, f"{self.folder}/layer.pack", **IDS)
        self.begin()

    def lose_power(self) -> None:
        before = self.folder
        self.boot += 1
        self.folder.mkdir()
        plain = self.disk.cut_power(self.random, str(before), str(self.folder))
        self.disk = BufferedPowerDisk()
        self.disk.files = plain.files

    def act(self) -> None:
        choice = self.random.random()
        if choice < 0.06:
            self.crash()
        elif choice < 0.1:
            self.begin()
        elif choice < 0.13:
            self.capture()
        elif choice < 0.3:
            self.checkpoint()
        elif self.todo and len(self.in_flight) < 4 and choice < 0.7:
            self.send()
        elif self.in_flight:
            self.write()

    def seal(self) -> None:
        """To the end: the layer is the plan, also after the power went right then."""
        while self.todo or self.in_flight:
            (self.send if self.todo else self.write)()
        receipt = self.pack.seal().run()
        self.pack.close()
        self.check(receipt)
        self.lose_power()
        self.check(receipt)

    def check(self, receipt: SealReceipt) -> None:
        expected: dict[int, Content] = {}
        for plan in self.plan.values():
            expected.update(seen(plan))
        sealed = open_sealed(self.folder, receipt, self.disk)
        if read_all(sealed) != expected:
            raise Wrong("the sealed layer is not what was planned")
        sealed.close()


def tell(folder: Path, random: Random, actions: int) -> None:
    """One history from beginning to seal. Raises Wrong, or what the pack raises."""
    story = Story(folder, random)
    for _ in range(actions):
        story.act()
    story.seal()
