"""What may be done in one place only: disk order, SQL, clocks, output. Faults and simulated time enter there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rig.source import Module, product

CLOCKS = (
    "time.",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
)
FLUSHES = ("os.fsync", "os.fdatasync", "os.sync")
OPENS = ("open", "io.open", "os.open", "os.fdopen")
TOUCHES = ("os.", "mmap.", "fcntl.", "ctypes.", "shutil.")
HARMLESS = ("os.path", "os.fspath", "os.fsencode", "os.fsdecode", "os.SEEK_", "os.major", "os.minor", "os.stat_")
NOT_BLOCKS = ("blockstore/disk.py", "engine/", "sra_frontend/")

Mentions = Iterator[tuple[str, int]]


def found(what: Callable[[Module], Mentions], unwanted: Callable[[str], bool], *allowed: str) -> list[str]:
    """Where the product does something `unwanted`, outside the files and folders that are `allowed` to."""
    return [
        f"{module.path}:{line} {name}"
        for module in product()
        if not module.path.startswith(allowed)
        for name, line in what(module)
        if unwanted(name)
    ]


def test_only_the_disk_flushes_files() -> None:
    # The records hold the ballast file and the lock beside the database.
    assert not found(Module.uses, lambda name: name in FLUSHES, "blockstore/disk.py", "engine/records/")


def test_the_block_store_touches_files_only_through_the_disk() -> None:
    assert not found(Module.uses, lambda n: n.startswith(TOUCHES) and not n.startswith(HARMLESS), *NOT_BLOCKS)
    assert not found(Module.calls, lambda name: name in OPENS, *NOT_BLOCKS)


def test_only_records_know_sql() -> None:
    assert not found(Module.imports, lambda name: name.split(".")[0] == "sqlite3", "engine/records/")


def test_only_the_clock_reads_the_time() -> None:
    # The demo is a program of its own, which measures what it shows.
    assert not found(Module.uses, lambda name: name.startswith(CLOCKS), "engine/clock.py", "engine/cli/demo")


def test_only_the_output_of_the_commands_prints() -> None:
    assert not found(Module.calls, lambda name: name == "print", "engine/cli/output.py", "engine/cli/demo")


def test_nothing_is_left_for_later() -> None:
    def unwanted(line: str) -> bool:
        return any(word in line for word in ("NotImplementedError", "TODO", "FIXME", "XXX", "unittest.mock"))

    left = [
        f"{module.path}:{number} {line.strip()}"
        for module in product()
        for number, line in enumerate(module.text.splitlines(), 1)
        if unwanted(line)
    ]
    assert not left
