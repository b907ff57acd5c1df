"""`leeward demo --drill`: the changes of roles, with real parts: test copy, move, disaster, split brain, failback.

Two daemons, two volumes, hosts that write through NBD. What every image must show is kept in a record of the drill's
own, a file a volume and site, written beside each write: after each step every image is read through NBD and
compared with it, byte for byte. It must never take a daemon's word for what an image holds.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from engine.cli.demo_record import Record, first_difference
from engine.cli.demo_site import (
    BLOCK,
    DemoFailed,
    DemoSite,
    Say,
    Stopwatch,
    Story,
    free_blocks,
    make_file_system,
    megabytes,
    perform,
    run_tool,
    write_blocks,
)

GROUP = "ships"
FILES, LOG = "files", "log"
FILES_MIB = 64
LOG_MIB = 16


def run(say: Say) -> int:
    """Tell the drill through `say`, one line at a time. Returns the exit status: 0, or 1 if a step failed."""
    return perform("drill", Drill, say)


class Drill(Story):
    """The steps in order, a method each."""

    def __init__(self, folder: Path, say: Say) -> None:
        super().__init__(folder, say)
        self.records = {name: Record(folder / f"record-{name}") for name in ("harbour", "lee")}
        self.lost = Record(folder / "record-lost")
        self.points = {name: Record(folder / f"point-{name}") for name in ("harbour", "lee")}
        self.dice = random.Random(11)
        self.places: dict[str, list[int]] = {}
        self.compared = 0
        self.sent = 0

    def tell(self) -> None:
        watch = Stopwatch()
        self.prepare()
        self.test_copy()
        self.planned_move()
        self.reprotect()
        self.disaster()
        token, blocks = self.split_brain()
        self.resolve(token, blocks)
        self.sync_after_resolution()
        self.failback()
        self.say(
            f"The drill is over, in {watch.seconds:.0f} s: {megabytes(self.sent)} moved on the wire,"
            f" {megabytes(self.compared)} of images compared, and every byte was what had been written."
        )

    # The steps

    def prepare(self) -> None:
        self.say(
            "Before: two sites, 'harbour' (protected) and 'lee' (recovery), a daemon each, on this host's loopback."
        )
        self.start_pair()
        record = self.records["harbour"]
        record.folder.mkdir()
        files = make_file_system(record.image(FILES), FILES_MIB)
        shutil.rmtree(record.image(FILES).with_suffix(".tree"))
        record.image(LOG).write_bytes(self.dice.randbytes(LOG_MIB << 20))
        self.places = {FILES: sorted(free_blocks(record.image(FILES))), LOG: list(range(LOG_MIB << 8))}
        watch = Stopwatch()
        exports = self.protect({name: record.image(name) for name in (FILES, LOG)})
        for name, export in zip((FILES, LOG), exports, strict=True):
            run_tool("nbdcopy", "--flush", str(record.image(name)), export)
        self.say(
            f"   One group of two volumes: an ext4 file system of {FILES_MIB} MiB with {files} files, and {LOG_MIB} MiB"
            f" of random data; written through NBD in {watch.seconds:.1f} s."
        )
        self.sync(self.harbour, what="First sync", everything=True)

    def test_copy(self) -> None:
        self.say("1. A test copy of the newest point, at 'lee', while replication goes on.")
        watch = Stopwatch()
        made = self.lee.command("snapshot", "create", GROUP, "--name", "test")
        exports = {volume["name"]: volume["export"] for volume in made["volumes"]}
        seconds = watch.seconds
        copy = Record(self.folder / "record-copy")
        copy.take_over(self.records["lee"])
        self.compare(exports, copy, "the test copy")
        count = self.write(exports, copy, 150)
        self.say(f"   Made in {seconds:.2f} s, the same as the point; then {_blocks(count)} are written to it.")
        self.hosts_write(self.harbour, 120)
        self.sync(self.harbour)
        self.compare(exports, copy, "the test copy after a sync")
        self.say("   The copy shows its point and what was written to it, nothing of that sync.")
        watch = Stopwatch()
        self.lee.command("snapshot", "delete", GROUP, "test")
        seconds = watch.seconds
        left = self.lee.command("status")["snapshots"]
        self.expect(not left, f"snapshots are left behind: {left}")
        self.say(f"   The copy is deleted, in {seconds:.2f} s.")
        self.check(self.harbour, self.lee)

    def planned_move(self) -> None:
        self.say("2. A planned move: the work goes to 'lee', and nothing is lost.")
        self.hosts_write(self.harbour, 100)
        self.move(self.harbour, self.lee)

    def reprotect(self) -> None:
        self.say("3. Protected again, the other way round.")
        self.reprotect_by(self.lee, old=self.harbour)

    def disaster(self) -> None:
        self.say("4. A disaster: 'lee' is killed, with writes that were never shipped.")
        self.hosts_write(self.lee, 90)
        self.check(self.lee)
        self.lee.kill()
        self.promote(self.harbour, "--force")
        self.hosts_write(self.harbour, 70)
        self.check(self.harbour)

    def split_brain(self) -> tuple[str, int]:
        """Both sites run, and both were written. Returns the token of the decision that 'lee' loses, and its blocks."""
        self.say("5. 'lee' comes back, and holds itself for protected too: a split brain.")
        watch = Stopwatch()
        self.lee.start()
        self.connect()
        for site in (self.harbour, self.lee):
            refusal = site.refused("sync", GROUP)
            self.say(f"   `leeward sync {GROUP}` at '{site.name}': {refusal['message']} [{refusal['code']}]")
            self.expect("both sites were written" in refusal["message"], "the refusal names no split brain")
        refusal = self.lee.refused("reverse", GROUP)
        self.expect(refusal["code"] == "would_discard", f"reverse was refused for another reason: {refusal['code']}")
        self.say(f"   `leeward reverse {GROUP}` at 'lee': {refusal['message']} [{refusal['code']}]")
        counted = {site.name: self.count_written(site) for site in (self.harbour, self.lee)}
        known = {name: len(record.written) for name, record in self.records.items()}
        self.expect(counted == known, f"the daemons count {counted}, and hosts wrote {known}")
        blocks = refusal["details"]["blocks"]
        self.expect(blocks == known["lee"], f"the refusal counts {blocks} blocks, and hosts wrote {known['lee']}")
        self.say(
            f"   Written since the common point: {_blocks(known['harbour'])} at 'harbour', {_blocks(known['lee'])} at"
            f" 'lee'; both daemons count the same. Refused in {watch.seconds:.1f} s, start of 'lee' included."
        )
        self.check(self.harbour, self.lee)
        self.say("   Nothing moved and nothing changed at either site.")
        return refusal["details"]["token"], blocks

    def resolve(self, token: str, blocks: int) -> None:
        self.say("6. The decision: 'harbour' goes on, 'lee' gives way, by the token of that refusal.")
        watch = Stopwatch()
        done = self.lee.command("reverse", GROUP, "--discard-local-changes", "--token", token)
        seconds = watch.seconds
        self.expect(done["role"] == "recovery", f"'lee' is {done['role']} after the reverse")
        self.expect(done["set_aside_blocks"] == blocks, f"{done['set_aside_blocks']} of {blocks} blocks are set aside")
        kept = self.set_asides()
        self.expect(kept == {done["set_aside"]: blocks * BLOCK}, f"the list of set-asides says {kept}")
        self.say(
            f"   In {seconds:.2f} s. What 'lee' alone had, {_blocks(blocks)}, is listed there as set-aside"
            f" '{done['set_aside']}', and kept until somebody drops it."
        )
        self.check(self.harbour, self.lee)
        self.say("   Until the next sync, 'lee' shows the newest point that it had received before it took over.")
        self.lost.take_over(self.records["lee"])
        self.look_at_loser(done["set_aside"])

    def look_at_loser(self, name: str) -> None:
        """The image that gave way is exported, and compared with what hosts saw there until then."""
        shown = self.lee.command("set-aside", "export", GROUP, name)
        exports = {volume["name"]: volume["export"] for volume in shown["volumes"]}
        images = self.compare(exports, self.lost, f"set-aside '{name}'")
        self.say(f"   '{name}' is exported read-only: {images} images, byte for byte what hosts saw there until then.")

    def sync_after_resolution(self) -> None:
        self.say("7. In step again: what changed at either site since the common point moves, and nothing else.")
        self.sync(self.harbour, also=self.records["lee"])
        self.say("   'lee' shows nothing any more of what it alone had.")

    def failback(self) -> None:
        self.say("8. Failback: the work returns to 'lee', where it was before the disaster.")
        kept = self.set_asides()
        self.hosts_write(self.harbour, 60)
        self.move(self.harbour, self.lee)
        self.reprotect_by(self.lee, old=self.harbour)
        self.expect(self.set_asides() == kept, "the set-aside did not outlive the failback")
        (name,) = kept
        self.say(f"   The set-aside of step 6 is still listed: {name}.")
        self.look_at_loser(name)
        self.lee.command("set-aside", "drop", GROUP, name)
        left = self.set_asides(), [export for export in self.lee.listing("export", "list") if export["read_only"]]
        self.expect(left == ({}, []), f"of '{name}' is left: {left}")
        self.say("   It is dropped, and its exports are gone.")
        self.check(self.lee)

    # What steps are made of

    def move(self, old: DemoSite, new: DemoSite) -> None:
        """Demote, last sync, promote; hosts go on at `new`."""
        watch = Stopwatch()
        role = old.command("demote", GROUP)["role"]
        self.say(f"   '{old.name}' is demoted in {watch.seconds:.2f} s and takes no more writes.")
        self.expect(role == "demoted" and not self.exports(old), f"'{old.name}' is {role}, and still has exports")
        self.sync(old, what="Last sync")
        self.promote(new)
        self.hosts_write(new, 80)
        self.check(new)

    def promote(self, site: DemoSite, *words: str) -> None:
        watch = Stopwatch()
        site.command("promote", GROUP, *words)
        self.say(f"   '{site.name}' is promoted in {watch.seconds:.2f} s, from metadata alone.")
        self.check(site)
        run_tool("e2fsck", "-fn", str(self.folder / f"read-{FILES}"))
        self.say("   e2fsck finds its file system clean.")

    def reprotect_by(self, source: DemoSite, *, old: DemoSite) -> None:
        """`old` becomes the recovery side of `source`, and is synced."""
        self.connect()
        watch = Stopwatch()
        done = old.command("reverse", GROUP)
        seconds = watch.seconds
        self.expect(done["role"] == "recovery", f"'{old.name}' is {done['role']} after the reverse")
        self.expect(done["set_aside"] is None, f"the reverse set something aside: {done['set_aside']}")
        self.say(f"   Reversed in {seconds:.2f} s: '{old.name}' is the recovery side, with nothing to discard.")
        self.sync(source, what="Sync back")

    def sync(
        self, source: DemoSite, *, what: str = "Sync", everything: bool = False, also: Record | None = None
    ) -> None:
        """Ship, and hold the daemon to the blocks that hosts wrote: not one less, and not one more.

        `everything`: the first copy, of all blocks. `also`: what the other side wrote and gave up. Blocks of zeros
        change like others, and are told as such: they have no content to send.
        """
        target = self.lee if source is self.harbour else self.harbour
        record = self.records[source.name]
        due = record.all_blocks() if everything else record.written | (also.written if also else set())
        filled = len(due) - record.count_zeros(due)
        self.connect()
        done = source.command("sync", GROUP)
        self.expect(done["point"] is not None, f"{what.lower()} sealed no recovery point")
        blocks = done["bytes_sent"] // BLOCK
        if not everything:
            changed = done["bytes_changed"] // BLOCK
            self.expect(changed == len(due), f"{len(due)} blocks had changed, and the sync says {changed}")
        self.expect(blocks == filled, f"{filled} blocks with content had changed, and {blocks} were sent")
        zeros = f" and {len(due) - filled} told as zeros" if len(due) > filled and not everything else ""
        self.sent += done["bytes_wire"]
        self.say(
            f"   {what}: {_blocks(blocks)} sent to '{target.name}'{zeros}, {done['bytes_wire']} bytes on the wire, in"
            f" {done['seconds']:.2f} s; recovery point {done['point']['sequence']} is sealed."
        )
        for shown in (self.records[target.name], self.points[target.name]):
            shown.take_over(record)
        for known in self.records.values():
            known.written.clear()
        self.check(*(site for site in (source, target) if site is target or self.exports(site)))

    def connect(self) -> None:
        self.harbour.wait_connected()
        self.lee.wait_connected()

    def exports(self, site: DemoSite) -> dict[str, str]:
        """The exports that hosts may write at a site, by volume."""
        volumes = self.group(site)["volumes"]
        return {volume["name"]: volume["export"] for volume in volumes if volume["export"]}

    def group(self, site: DemoSite) -> dict[str, Any]:
        (found,) = site.command("status")["groups"]
        assert isinstance(found, dict)
        return found

    def count_written(self, site: DemoSite) -> int:
        """Blocks that the site's daemon says were written since the newest common point."""
        return sum(int(volume["dirty_bytes"]) for volume in self.group(site)["volumes"]) // BLOCK

    def set_asides(self) -> dict[str, int]:
        """Name and bytes of each set-aside at 'lee'."""
        return {kept["name"]: kept["bytes"] for kept in self.lee.listing("set-aside", "list", GROUP)}

    def hosts_write(self, site: DemoSite, count: int) -> None:
        """Hosts write blocks at the protected site, and into the record of that site."""
        watch = Stopwatch()
        exports = self.exports(site)
        self.expect(set(exports) == {FILES, LOG}, f"'{site.name}' has no exports for hosts")
        written = self.write(exports, self.records[site.name], count)
        self.say(f"   Hosts write {_blocks(written)} at '{site.name}', in {watch.seconds:.1f} s.")

    def write(self, exports: dict[str, str], record: Record, count: int) -> int:
        """`count` scattered blocks of random bytes to each volume; returns how many in all.

        The file system is left whole: on its volume they go where it has no data.
        """
        for volume, export in exports.items():
            writes = []
            source = self.folder / "content"
            source.mkdir(exist_ok=True)
            for block in sorted(self.dice.sample(self.places[volume], count)):
                content = self.dice.randbytes(BLOCK)
                (source / str(block)).write_bytes(content)
                writes.append(f"-s {source / str(block)} {block * BLOCK} {BLOCK}")
                record.note(volume, block, content)
            write_blocks(export, writes)
            shutil.rmtree(source)
        return len(exports) * count

    def check(self, *sites: DemoSite) -> None:
        """Compare what hosts see at each site, or its newest point where they see nothing, with the record."""
        watch = Stopwatch()
        before = self.compared
        images = 0
        for site in sites:
            exports = self.exports(site)
            if exports:
                images += self.compare(exports, self.records[site.name], f"'{site.name}'")
                continue
            made = site.command("snapshot", "create", GROUP, "--name", "look")
            exports = {volume["name"]: volume["export"] for volume in made["volumes"]}
            images += self.compare(exports, self.points[site.name], f"the newest point at '{site.name}'")
            site.command("snapshot", "delete", GROUP, "look")
        where = " and ".join(f"'{site.name}'" for site in sites)
        self.say(
            f"   Compared at {where}: {images} images, {megabytes(self.compared - before)}, byte for byte what was"
            f" written; {watch.seconds:.1f} s."
        )

    def compare(self, exports: dict[str, str], record: Record, whose: str) -> int:
        """Read every export whole and compare it with the record; returns how many. Raises DemoFailed."""
        self.expect(set(exports) == {FILES, LOG}, f"{whose} shows only {sorted(exports)}")
        for volume, export in exports.items():
            copy = self.read_back(export, f"read-{volume}")
            self.compared += copy.stat().st_size
            at = first_difference(copy, record.image(volume))
            if at is not None:
                raise DemoFailed(f"volume {volume} of {whose} differs from what was written, first at byte {at}")
        return len(exports)


def _blocks(count: int) -> str:
    return f"{count} blocks ({megabytes(count * BLOCK)})"
