"""What happens when SQLite or the disk fails: full disks, commits that fail, processes that are killed.

Every failure is a real one, in a process of its own: a file system of a few MiB in a private mount namespace,
a limit on the size of files, SIGKILL at random moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from records_build import GROUP, NOW, SITE, SMALL_BALLAST, Records, add_group, begin, fail_on, prepare, receive

from blockstore.disk import Disk
from engine.errors import MetadataUnreadable
from engine.model import Event, Role
from engine.records import events, groups, peers
from engine.records.ballast import Ballast
from engine.records.database import EXIT_UNCERTAIN, Database

PRELUDE = """
import json, os, sys
from datetime import UTC, datetime
from engine.errors import LeewardError
from engine.model import Site, SiteId
from engine.records import events
from engine.records.database import Database

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SITE = Site(SiteId(b"S" * 16), "north")

def add(conn, message="m", size=0):
    return events.append(conn, at=NOW, level="info", code="c", message=message, details="x" * size).sequence
"""

FULL_DISK = """
data, report = sys.argv[1], {}
assert os.path.ismount(data), "only a file system of our own may be filled"
assert os.statvfs(data).f_blocks * os.statvfs(data).f_frsize < 64 << 20
database = Database.create(data, SITE, NOW, ballast_bytes=2 << 20)
report["ballast_at_first"] = database.has_ballast
database.transact_now(lambda conn: add(conn, "before"))
with open(f"{data}/filler", "wb", buffering=0) as filler:
    try:
        while filler.write(b"f" * 4096):
            pass
    except OSError as error:
        report["filled"] = error.errno
report["free_when_full"] = os.statvfs(data).f_bavail
kept, sizes = 0, []
for number in range(5000):
    try:
        # Some are bigger than the page cache of the connection: those fail before their COMMIT.
        database.transact_now(lambda conn: [add(conn, "more", 4000) for _ in range(1 + number % 7)])
        kept += 1 + number % 7
    except LeewardError as error:
        report["error"] = {"code": error.code, "message": error.message}
        break
report["kept"] = kept
report["ballast_then"] = database.has_ballast
report["ballast_file"] = os.path.exists(f"{data}/ballast")
report["seen"] = len(database.read_now(lambda conn: events.after(conn, 0, 100000)))
report["next"] = database.transact_now(lambda conn: add(conn, "after"))
database.close()
database = Database.open(data, ballast_bytes=2 << 20)
found = database.read_now(lambda conn: events.after(conn, 0, 100000))
report["after_restart"] = [found[0].message, len(found), found[-1].message]
report["ballast_while_full"] = database.has_ballast
os.unlink(f"{data}/filler")
import asyncio
report["ballast_restored"] = asyncio.run(database.restore_ballast())
database.close()
print(json.dumps(report))
"""

HUGE = """
data = sys.argv[1]
assert os.path.ismount(data)
database = Database.create(data, SITE, NOW, ballast_bytes=1 << 20)
try:
    database.transact_now(lambda conn: [add(conn, "huge", 1 << 20) for _ in range(64)])
    code = ""
except LeewardError as error:
    code = error.code
print(json.dumps({
    "code": code,
    "seen": len(database.read_now(lambda conn: events.after(conn, 0, 1000))),
    "next": database.transact_now(add),
    "ballast": database.has_ballast,
}))
database.close()
"""

NO_ROOM = """
data = sys.argv[1]
assert os.path.ismount(data)
with open(f"{data}/filler", "wb", buffering=0) as filler:
    try:
        while filler.write(b"f" * 4096):
            pass
    except OSError:
        pass
try:
    Database.create(data, SITE, NOW)
except LeewardError as error:
    code = error.code
left = sorted(os.listdir(data))
os.unlink(f"{data}/filler")
Database.create(data, SITE, NOW).close()
print(json.dumps({"code": code, "left": left}))
"""

FAILED_COMMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
data = sys.argv[1]
hook = sys.argv[2] == "hook"
seen = []
database = Database.open(data, **({"on_uncertain": seen.append} if hook else {}))
size = os.stat(f"{data}/meta.db-wal").st_size if os.path.exists(f"{data}/meta.db-wal") else 0
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 6000, resource.RLIM_INFINITY))
print("limited", flush=True)
codes = []
for attempt in range(2):
    try:
        database.transact_now(lambda conn: add(conn, "uncertain", 20000))
    except LeewardError as error:
        codes.append(error.code)
try:
    database.read_now(lambda conn: None)
except LeewardError as error:
    codes.append(error.code)
print(json.dumps({"codes": codes, "seen": [error.code for error in seen]}), flush=True)
os._exit(0)
"""

WRITER = """
import random
data, chance = sys.argv[1], random.Random(int(sys.argv[2]))
database = Database.open(data, ballast_bytes=65536)
number = len(database.read_now(lambda conn: events.after(conn, 0, 100000)))
print("open", number, flush=True)
while True:
    def pair(conn):
        add(conn, str(number), chance.randrange(9000))
        add(conn, str(number + 1), chance.randrange(9000))
    database.transact_now(pair)
    number += 2
    print(number, flush=True)
"""


MAKER = """
print("go", flush=True)
Database.create(sys.argv[1], SITE, NOW, ballast_bytes=65536)
print("made", flush=True)
sys.stdin.read()
"""


PROMOTER = """
import signal
sys.path.insert(0, sys.argv[2])
from records_build import GROUP, NONCES
from engine.model import PointId
from engine.records import groups, promote
left = int(sys.argv[3])

def at_statement(sql):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def commit(conn):
    conn.set_trace_callback(at_statement)
    found = groups.by_id(conn, GROUP)
    promote.commit(conn, GROUP, found.common.id, NONCES, term=2, expects=found.version)

database = Database.open(sys.argv[1], ballast_bytes=65536)
database.transact_now(commit)
"""


def run(program: str, *arguments: object, own_mount: str = "") -> subprocess.CompletedProcess[str]:
    """Run `program` in a process of its own; `own_mount`: a command that mounts on the first argument, for it alone."""
    command = [sys.executable, "-c", PRELUDE + program, *map(str, arguments)]
    if own_mount:
        namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
        command = [*namespace, "sh", "-ec", f'{own_mount}; exec "$@"', "sh", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def report(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def tmpfs(folder: Path, size: str) -> str:
    return f"mount -t tmpfs -o size={size} leeward-test {folder}"


def check_full_disk(found: dict[str, object]) -> None:
    assert found["ballast_at_first"] is True
    error = found["error"]
    assert isinstance(error, dict)
    assert error["code"] == "metadata_space"
    assert "meta.db" in error["message"]
    assert (found["ballast_then"], found["ballast_file"]) == (False, False)
    kept = found["kept"]
    assert isinstance(kept, int)
    # Nothing of the change that found no room, all of those before, and the next one has the ballast's room.
    assert found["seen"] == kept + 1
    assert found["after_restart"] == ["before", kept + 2, "after"]
    assert found["ballast_while_full"] is False
    assert found["ballast_restored"] is True


def test_a_full_disk_gives_the_ballast_up_and_the_next_commit_works(tmp_path: Path) -> None:
    check_full_disk(report(run(FULL_DISK, tmp_path, own_mount=tmpfs(tmp_path, "8m"))))
    assert list(tmp_path.iterdir()) == []  # it was a file system of its own


def test_a_full_ext4_gives_the_ballast_up_and_the_next_commit_works(tmp_path: Path) -> None:
    image, folder = tmp_path / "image", tmp_path / "folder"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, capture_output=True)
    check_full_disk(report(run(FULL_DISK, folder, own_mount=f"mount -o loop {image} {folder}")))
    assert list(folder.iterdir()) == []


def test_a_transaction_larger_than_the_disk_is_undone_before_its_commit(tmp_path: Path) -> None:
    found = report(run(HUGE, tmp_path, own_mount=tmpfs(tmp_path, "8m")))
    assert (found["code"], found["seen"], found["ballast"]) == ("metadata_space", 0, False)
    assert found["next"] == 1


def test_records_that_found_no_room_leave_nothing_and_can_be_made_later(tmp_path: Path) -> None:
    found = report(run(NO_ROOM, tmp_path, own_mount=tmpfs(tmp_path, "1m")))
    assert (found["code"], found["left"]) == ("metadata_space", ["filler"])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Records with one event, closed."""
    database = Database.create(str(tmp_path), SITE, NOW, ballast_bytes=SMALL_BALLAST)
    database.transact_now(lambda conn: events.append(conn, at=NOW, level="info", code="c", message="before"))
    database.close()
    return tmp_path


def found_events(data: Path) -> list[Event]:
    database = Database.open(str(data), ballast_bytes=SMALL_BALLAST, on_uncertain=fail_on)
    found = database.read_now(lambda conn: events.after(conn, 0, 1_000_000))
    database.close()
    return list(found)


def test_a_commit_that_fails_ends_the_process_at_once(made: Path) -> None:
    done = run(FAILED_COMMIT, made, "exit")
    assert done.returncode == EXIT_UNCERTAIN
    assert done.stdout == "limited\n"
    assert "may or may not be recorded" in done.stderr
    assert [event.message for event in found_events(made)] in (["before"], ["before", "uncertain"])


def test_after_a_failed_commit_nothing_is_answered_any_more(made: Path) -> None:
    found = report(run(FAILED_COMMIT, made, "hook"))
    assert found["codes"] == ["metadata_uncertain"] * 3
    assert found["seen"] == ["metadata_uncertain"]  # told once


def test_a_kill_leaves_every_confirmed_commit_and_no_half_of_any(made: Path, seed: int) -> None:
    chance = random.Random(seed)
    confirmed = 1
    for attempt in range(6):
        command = [sys.executable, "-c", PRELUDE + WRITER, str(made), str(seed + attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == f"open {confirmed}\n"
            for _ in range(chance.randrange(1, 60)):
                confirmed = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                if line.endswith("\n"):
                    confirmed = int(line)
        found = found_events(made)
        assert [event.message for event in found[1:]] == [str(number) for number in range(1, len(found))]
        # The last pair may have been committed and not confirmed; never one of the two.
        assert len(found) in (confirmed, confirmed + 2)
        confirmed = len(found)


def test_a_kill_at_any_statement_of_a_promotion_leaves_the_group_as_it_was(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records(add_group)
    records(receive)
    newest = records(receive)
    records(begin)
    records(prepare, newest)
    before = records.everything()
    for statement in range(1, 1000, 6):
        records.database.close()
        done = run(PROMOTER, tmp_path, Path(__file__).parent, statement)
        records.reopen()
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert records.everything() == before
    assert statement > 30, "a promotion has more statements"
    assert records(groups.by_id, GROUP).role is Role.PROTECTED
    records.database.close()


def test_a_kill_while_records_are_made_leaves_none_that_count(tmp_path: Path) -> None:
    whole = 0
    for attempt in range(12):
        data = tmp_path / str(attempt)
        data.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", PRELUDE + MAKER, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as maker:
            assert maker.stdout is not None
            assert maker.stdout.readline() == "go\n"
            while not (data / "meta.db").exists():
                assert maker.poll() is None
            maker.kill()
            whole += "made" in maker.stdout.read()
        try:
            database = Database.open(str(data), ballast_bytes=SMALL_BALLAST, on_uncertain=fail_on)
        except MetadataUnreadable:
            continue
        else:
            assert database.read_now(peers.all) == ()
            database.close()
    assert whole < 12, "no attempt was killed while it worked"


def test_the_ballast_is_really_allocated(tmp_path: Path) -> None:
    ballast = Ballast(Disk(), str(tmp_path), 1 << 20)
    assert ballast.take()
    status = (tmp_path / "ballast").stat()
    assert (status.st_size, status.st_blocks * 512 >= 1 << 20) == (1 << 20, True)
    assert ballast.take()
    assert ballast.give_up()
    assert not ballast.give_up()
    assert not ballast.is_there
    assert list(tmp_path.iterdir()) == []


def test_half_a_ballast_is_completed(tmp_path: Path) -> None:
    (tmp_path / "ballast").write_bytes(b"x" * 4096)
    assert Ballast(Disk(), str(tmp_path), 1 << 20).take()
    assert (tmp_path / "ballast").stat().st_size == 1 << 20


class NarrowDisk(Disk):
    """Has this much room, it says, whatever the host has."""

    def __init__(self, free: int) -> None:
        self.free = free

    def free_bytes(self, path: str) -> int:
        return self.free


def test_no_ballast_is_taken_from_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    assert not Ballast(NarrowDisk((2 << 20) - 1), str(tmp_path), 1 << 20).take()
    assert list(tmp_path.iterdir()) == []
    assert Ballast(NarrowDisk(2 << 20), str(tmp_path), 1 << 20).take()
