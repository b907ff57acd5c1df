"""The first copy, straight into a store: what the journal names is in the base, whatever fails in between."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from plans import (
    GIVEN_BACK,
    LAYER,
    SEED,
    VOLUME,
    ZEROED,
    BufferedPowerDisk,
    Content,
    Plan,
    admit,
    bytes_of,
    content,
    random_plan,
    take,
    wire,
)

from blockstore.disk import Disk
from blockstore.errors import BlockMismatch, FrameDamaged, LayerDamaged
from blockstore.frame import frame_regions, hash_blocks, parse_head, zero_hash
from blockstore.hashes import HashTable
from blockstore.redo import RedoPack
from blockstore.seed import SeedBase, journal_path
from blockstore.stores.base import BlockStore
from blockstore.stores.kinds import make_store, open_store
from blockstore.units import BLOCK

IMAGE = 6 * 1024 * BLOCK + 1000
TAIL = 6 * 1024
SYNC, DELTA = LAYER, b"d" * 16
IDS = {"volume_id": VOLUME, "owner": LAYER, "image_bytes": IMAGE, "hash_seed": SEED}


def store_at(folder: Path, disk: Disk) -> BlockStore:
    path = f"{folder}/store"
    if not disk.exists(path):
        make_store(disk, path, IMAGE)
    return open_store(disk, path)


def begin(folder: Path, disk: Disk, sync: bytes = SYNC) -> tuple[SeedBase, BlockStore]:
    store = store_at(folder, disk)
    seed = SeedBase.create(disk, store, str(folder), **IDS)  # type: ignore[arg-type]
    seed.begin_session(sync)
    return seed, store


def go_on(folder: Path, disk: Disk, sync: bytes = SYNC) -> tuple[SeedBase, BlockStore]:
    store = store_at(folder, disk)
    seed = SeedBase.recover(disk, store, str(folder), **IDS)  # type: ignore[arg-type]
    seed.begin_session(sync)
    return seed, store


def block(store: BlockStore, number: int) -> bytes:
    buffer = memoryview(bytearray(BLOCK))
    store.read_into(buffer, number * BLOCK)
    return bytes(buffer)


def checkpoint(seed: SeedBase) -> None:
    step = seed.checkpoint()
    assert step is not None
    step.run()


def digests(plan: Plan) -> dict[int, bytes]:
    head = parse_head(memoryview(wire(plan)[0]), filled=False)
    return {region: digest for region, _, digest in frame_regions(head, SEED)}


def padded_tail(number: int) -> bytes:
    """The short last block of the image as it travels."""
    return content(number)[:1000] + bytes(BLOCK - 1000)


@pytest.mark.parametrize("is_direct", [True, False])
def test_blocks_land_at_their_own_places(tmp_path: Path, is_direct: bool) -> None:
    disk = Disk() if is_direct else BufferedPowerDisk()
    seed, store = begin(tmp_path, disk)
    assert (seed._direct is not None and seed._direct.direct) == is_direct
    plan = {5: content(1), 6: content(2), 9: ZEROED, 10: GIVEN_BACK, TAIL - 1: content(3), TAIL: padded_tail(4)}
    store.write(content(9), 9 * BLOCK)
    store.write(content(9), 10 * BLOCK)
    store.flush()
    take(seed, plan)
    seed.seal().run()
    for number, value in plan.items():
        assert block(store, number) == bytes_of(value), number
    assert (tmp_path / "store").stat().st_size == IMAGE
    assert block(store, 7) == bytes(BLOCK)


def test_a_short_last_block_alone_in_its_run_is_written(tmp_path: Path) -> None:
    seed, store = begin(tmp_path, Disk())
    take(seed, {TAIL: padded_tail(4)})
    assert block(store, TAIL) == padded_tail(4)


def test_a_checkpoint_syncs_the_base_before_the_journal_names_anything(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, _ = begin(live, disk)
    take(seed, {5: content(1)})
    disk.syncs.clear()
    order: list[str] = []
    disk.hooks["sync"] = lambda path: order.append(f"sync {Path(path).name}")
    disk.hooks["write"] = lambda path: order.append(f"write {Path(path).name}")
    checkpoint(seed)
    journal = f"{LAYER.hex()}.seed"
    assert order == ["sync store", f"write {journal}", f"sync {journal}"]
    assert seed.durable_frames == 1
    assert seed.checkpoint() is None


def test_what_a_checkpoint_named_is_present_after_a_restart_and_the_rest_is_not(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, _ = begin(live, disk)
    first, second = {5: content(1)}, {1024: content(2)}
    take(seed, first)
    checkpoint(seed)
    take(seed, second)
    disk.kill()
    seed, store = go_on(live, disk)
    assert seed.presence() == digests(first)
    take(seed, second)
    assert seed.presence() == digests({**first, **second})
    assert block(store, 5) == content(1)


def test_a_new_session_makes_durable_what_is_complete_and_forgets_the_rest(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, _ = begin(live, disk)
    take(seed, {5: content(1)})
    lost, behind = admit(seed, {1024: content(2)}), admit(seed, {2048: content(3)})
    seed.store(behind)
    seed.landed(behind)
    seed.begin_session(SYNC)
    assert seed.presence() == digests({5: content(1)})
    seed.landed(lost)
    assert seed.complete_frames == 0
    disk.kill()
    assert go_on(live, disk)[0].presence() == digests({5: content(1)})


def test_the_delta_has_a_presence_of_its_own(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, _ = begin(live, disk)
    take(seed, {5: content(1), 6: content(2)})
    seed.begin_session(DELTA)
    assert seed.presence() == {}
    assert seed.reusable() == {}
    take(seed, {6: content(3)})
    assert seed.presence() == digests({6: content(3)})


def test_nothing_can_be_kept_in_a_base(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, _ = begin(live, disk)
    take(seed, {5: content(1)})
    seed.begin_session(DELTA)
    with pytest.raises(FrameDamaged):
        admit(seed, {}, kept=[(0, 1024)])


def test_a_wrong_block_never_reaches_the_base(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, store = begin(live, disk)
    slot = admit(seed, {5: content(1), 6: content(2)})
    slot.buffer[slot.head.padded_bytes + BLOCK + 9] ^= 1
    with pytest.raises(BlockMismatch):
        seed.store(slot)
    assert block(store, 5) == bytes(BLOCK)


def test_the_digest_of_the_delta_is_the_senders(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, _ = begin(live, disk)
    take(seed, {5: content(1), 1024: content(2)})
    seed.begin_session(DELTA)
    delta = {5: content(3), 7: ZEROED}
    take(seed, delta)
    receipt = seed.seal().run()
    redo = RedoPack.create(
        disk,
        f"{live}/redo",
        volume_id=VOLUME,
        sync_id=DELTA,
        builds_on=bytes(16),
        image_bytes=IMAGE,
        hash_seed=SEED,
    )
    redo.append(wire(delta)[0])
    assert receipt.digest == redo.seal().digest
    assert (receipt.blocks, receipt.payload_bytes, receipt.length_bytes) == (2, BLOCK, 0)


def test_the_hashes_are_those_of_the_newest_frames(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, _ = begin(live, disk)
    take(seed, {5: content(1), 6: content(2), 8: content(7)})
    seed.begin_session(DELTA)
    take(seed, {5: content(3), 8: ZEROED})
    seed.seal().run()
    hashes = HashTable.open(disk, f"{live}/hashes", volume_id=VOLUME, hash_seed=SEED, size_bytes=IMAGE)
    seed.apply_hashes(hashes)
    new = hash_blocks(memoryview(content(3) + content(2)), SEED).tolist()
    assert hashes.lookup(5, 4).tolist() == [*new, 0, zero_hash(SEED)]


def test_a_journal_of_another_copy_is_refused(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, store = begin(live, disk)
    take(seed, {5: content(1)})
    seed.seal().run()
    seed.close()
    path = Path(journal_path(str(live), LAYER))
    other = b"o" * 16
    path.rename(journal_path(str(live), other))
    with pytest.raises(LayerDamaged):
        SeedBase.recover(Disk(), store, str(live), **{**IDS, "owner": other})  # type: ignore[arg-type]


def test_dropping_it_removes_the_journal_and_leaves_the_store(live: Path) -> None:
    disk = BufferedPowerDisk()
    seed, store = begin(live, disk)
    take(seed, {5: content(1)})
    seed.drop()
    assert not Path(journal_path(str(live), LAYER)).exists()
    assert block(store, 5) == content(1)


class SeedStory:
    """A first copy under a seed: frames in any order, checkpoints, breaks, kills, power cuts."""

    def __init__(self, root: Path, random: Random) -> None:
        self.root, self.random, self.boot = root, random, 0
        self.disk = BufferedPowerDisk()
        self.folder.mkdir()
        self.plan: dict[int, dict[int, Content]] = {
            region: random_plan(random, [region], range(4), 1) for region in range(6)
        }
        self.sync, self.told = SYNC, set[int]()
        self.seed, self.store = begin(self.folder, self.disk)
        self.resume()

    @property
    def folder(self) -> Path:
        return self.root / str(self.boot)

    def resume(self) -> None:
        present = self.seed.presence()
        assert self.told <= set(present), "what the source was told of is gone"
        self.told |= set(present)
        for region in present:
            for number, value in self.plan[region].items():
                assert block(self.store, number) == bytes_of(value), "the journal names what is not in the base"
        self.todo = [region for region in self.plan if region not in present]
        self.in_flight: list = []
        self.sent: dict[int, int] = {}
        self.step = None

    def act(self) -> None:
        choice = self.random.random()
        if choice < 0.07:
            self.crash()
        elif choice < 0.12:
            self.seed.begin_session(self.sync)
            self.resume()
        elif choice < 0.3:
            self.checkpoint()
        elif self.todo and choice < 0.65:
            region = self.todo.pop(self.random.randrange(len(self.todo)))
            slot = admit(self.seed, self.plan[region])
            self.sent[slot.number] = region
            self.in_flight.append(slot)
        elif self.in_flight:
            slot = self.in_flight.pop(self.random.randrange(len(self.in_flight)))
            self.seed.store(slot)
            self.seed.landed(slot)

    def checkpoint(self) -> None:
        if self.step is None:
            self.step = self.seed.checkpoint()
            if self.step is not None:
                self.step.start()()
            return
        self.step.complete(None)
        self.step = None
        self.told |= {region for number, region in self.sent.items() if number <= self.seed.durable_frames}

    def crash(self) -> None:
        if self.random.random() < 0.4:
            self.disk.kill()
        else:
            before = self.folder
            self.boot += 1
            self.folder.mkdir()
            plain = self.disk.cut_power(self.random, str(before), str(self.folder))
            self.disk = BufferedPowerDisk()
            self.disk.files = plain.files
        self.seed, self.store = go_on(self.folder, self.disk, self.sync)
        self.resume()

    def finish(self) -> None:
        for _ in range(1000):
            self.act()
            if not self.todo and not self.in_flight and self.step is None:
                return
        raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("number", range(40))
def test_no_history_of_a_first_copy_names_what_is_not_there(live: Path, seed: int, number: int) -> None:
    story = SeedStory(live, Random(f"{seed}-{number}"))
    story.finish()
    whole = {at: value for plan in story.plan.values() for at, value in plan.items()}
    story.sync, story.told = DELTA, set()
    story.plan = {region: random_plan(story.random, [region], range(4), 2) for region in (1, 4)}
    story.seed.begin_session(DELTA)
    story.resume()
    story.finish()
    story.seed.seal().run()
    whole.update({at: value for plan in story.plan.values() for at, value in plan.items()})
    story.told.clear()
    story.crash()
    for at, value in whole.items():
        assert block(story.store, at) == bytes_of(value)
