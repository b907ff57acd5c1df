"""The clients that hosts really use, against the NBD server: nbdinfo, nbdcopy, qemu-img, qemu-io, fio, nbdkit."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rig.ports import free_port, wait_for_port
from rig.served import ServedFiles

MIB = 1024 * 1024


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFiles]:
    with ServedFiles(tmp_path) as served:
        yield served


def run(*command: str | Path) -> str:
    """Standard output of a command that must succeed."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, f"{command[0]} failed: {ran.stdout}{ran.stderr}"
    return ran.stdout


def sparse_image(path: Path, size_bytes: int, seed: int) -> Path:
    """Random runs of data of odd lengths at odd places, holes between them."""
    random_ = random.Random(seed)
    with path.open("wb") as image:
        image.truncate(size_bytes)
        for _ in range(40):
            image.seek(random_.randrange(size_bytes - 300_000))
            image.write(random_.randbytes(random_.randrange(1, 300_000)))
    return path


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def allocated_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_nbdinfo_lists_every_export_with_what_it_can_do(served: ServedFiles) -> None:
    served.add("vol", 10 * MIB)
    served.add("fixed", 5000, read_only=True)
    info = json.loads(run("nbdinfo", "--list", "--json", served.uri()))
    by_name: dict[str, dict[str, Any]] = {export["export-name"]: export for export in info["exports"]}
    assert info["protocol"] == "newstyle-fixed"
    assert info["structured"] is True
    assert list(by_name) == ["vol", "fixed"]
    vol, fixed = by_name["vol"], by_name["fixed"]
    assert vol["export-size"] == 10 * MIB
    assert vol["description"] == "file vol.img"
    assert vol["contexts"] == ["base:allocation"]
    able = {"can_flush", "can_fua", "can_multi_conn", "can_df", "can_trim", "can_zero"}
    assert {name for name in vol if name.startswith("can_") and vol[name]} == able
    assert {name for name in fixed if name.startswith("can_") and fixed[name]} == able - {"can_trim", "can_zero"}
    assert (vol["is_read_only"], fixed["is_read_only"]) == (False, True)
    sizes = [vol[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")]
    assert sizes == [1, 4096, 32 * MIB]


def test_nbdinfo_maps_data_and_holes(served: ServedFiles) -> None:
    served.add("vol", 4 * MIB, content=b"x" * 65536)
    extents = json.loads(run("nbdinfo", "--map", "--json", served.uri("vol")))
    assert [(e["offset"], e["length"], e["type"]) for e in extents] == [(0, 65536, 0), (65536, 4 * MIB - 65536, 3)]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--connections=1", "--requests=1"),
        ("--connections=8", "--requests=64"),
        ("--request-size=33554432",),
        ("--request-size=8192", "--no-extents"),
        ("--synchronous",),
    ],
)
def test_nbdcopy_both_ways_keeps_every_byte(
    served: ServedFiles, tmp_path: Path, seed: int, options: tuple[str]
) -> None:
    source, back = sparse_image(tmp_path / "source", 64 * MIB, seed), tmp_path / "back"
    served.add("vol", 64 * MIB)
    run("nbdcopy", *options, "--flush", source, served.uri("vol"))
    assert same(source, served.path("vol"))
    run("nbdcopy", *options, served.uri("vol"), back)
    assert same(source, back)
    assert not served.reports


def test_nbdcopy_keeps_holes(served: ServedFiles, tmp_path: Path, seed: int) -> None:
    source, back = sparse_image(tmp_path / "source", 256 * MIB, seed), tmp_path / "back"
    data = allocated_bytes(source)
    served.add("vol", 256 * MIB)
    run("nbdcopy", source, served.uri("vol"))
    run("nbdcopy", served.uri("vol"), back)
    assert same(source, back)
    assert allocated_bytes(served.path("vol")) <= data + 2 * MIB
    assert allocated_bytes(back) <= data + 2 * MIB


def test_nbdcopy_between_two_exports(served: ServedFiles, tmp_path: Path, seed: int) -> None:
    served.serve("source", sparse_image(tmp_path / "source.img", 64 * MIB, seed), read_only=True)
    served.add("target", 64 * MIB)
    run("nbdcopy", served.uri("source"), served.uri("target"))
    assert same(served.path("source"), served.path("target"))


def test_qemu_img_converts_both_ways_and_compares(served: ServedFiles, tmp_path: Path, seed: int) -> None:
    source, back = sparse_image(tmp_path / "source", 64 * MIB, seed), tmp_path / "back"
    served.add("vol", 64 * MIB)
    convert = ("qemu-img", "convert", "-f", "raw", "-O", "raw")
    run(*convert, "-n", "-W", "-m", "16", source, served.uri("vol"))
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, served.uri("vol"))
    run(*convert, served.uri("vol"), back)
    assert same(source, back)
    extents = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", served.uri("vol")))
    assert sum(extent["length"] for extent in extents) == 64 * MIB
    assert any(extent["zero"] for extent in extents)


def test_a_qcow2_image_lives_on_an_export(served: ServedFiles, tmp_path: Path) -> None:
    served.add("vol", 64 * MIB)
    run("qemu-img", "create", "-f", "qcow2", served.uri("vol"), "32M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 3M", "-c", "discard 2M 1M", served.uri("vol"))
    assert "No errors" in run("qemu-img", "check", "-f", "qcow2", served.uri("vol"))
    run("qemu-io", "-f", "qcow2", "-c", "read -P 7 1M 1M", "-c", "read -P 7 3M 1M", served.uri("vol"))


def qemu_io(uri: str, *commands: str) -> None:
    """Run commands, each write without FUA unless it says so; a pattern that does not match fails."""
    words = [word for command in commands for word in ("-c", command)]
    output = run("qemu-io", "-f", "raw", "-t", "writeback", "-d", "unmap", *words, uri)
    assert "failed" not in output, output


def test_qemu_io_patterns_zeroes_discards_and_flags_arrive_as_meant(served: ServedFiles) -> None:
    io = served.add("vol", 16 * MIB)
    io.keep_journal = True
    qemu_io(
        served.uri("vol"),
        "write -P 0xa5 0 4M",
        "read -P 0xa5 0 4M",
        "write -P 0x5a 512 512",
        "read -P 0x5a 512 512",
        "write -f -P 0x11 8M 4k",
        "write -z 1M 64k",
        "write -z -u 2M 64k",
        "write -z -f 3M 4k",
        "flush",
        "discard 4608 10240",
        "read -P 0 4608 10240",
        "read -P 0xa5 4096 512",
        "read -P 0xa5 14848 512",
        "read -P 0 1M 64k",
        "read -P 0 2M 64k",
        "read -P 0xa5 1114112 64k",
        "read -P 0x11 8M 4k",
        "aio_write -P 1 9M 64k",
        "aio_write -P 2 10M 64k",
        "aio_flush",
        "read -P 1 9M 64k",
        "read -P 2 10M 64k",
    )
    assert ("write", 8 * MIB, 4096, True) in io.journal
    assert ("zero_no_hole", MIB, 65536, False) in io.journal
    assert ("zero", 2 * MIB, 65536, False) in io.journal
    assert ("zero_no_hole", 3 * MIB, 4096, True) in io.journal
    assert ("discard", 4608, 10240, False) in io.journal
    assert any(entry[0] == "flush" for entry in io.journal)
    assert not served.reports


def test_qemu_io_is_told_that_a_read_only_export_takes_no_writes(served: ServedFiles) -> None:
    served.add("vol", MIB, read_only=True, content=b"\x07" * 4096)
    command = ["qemu-io", "-f", "raw", "-c", "write 0 4k", served.uri("vol")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode != 0
    assert "Permission denied" in ran.stderr
    run("qemu-io", "-r", "-f", "raw", "-c", "read -P 7 0 4k", served.uri("vol"))


def fio(uri: str, *options: str) -> dict[str, Any]:
    """The first job of fio's JSON; a verification that fails fails the run."""
    output = run(
        *("fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", "--thread", "--group_reporting"),
        *("--verify_fatal=1", "--randrepeat=1", "--output-format=json", *options),
    )
    job: dict[str, Any] = json.loads(output[output.index("{") :])["jobs"][0]
    assert job["error"] == 0
    return job


def test_fio_verifies_what_four_jobs_wrote_at_depth_sixteen(served: ServedFiles) -> None:
    served.add("vol", 64 * MIB)
    job = fio(
        served.uri("vol"),
        *("--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=0", "--blockalign=512", "--iodepth=16", "--numjobs=4"),
        *("--size=16m", "--offset_increment=16m", "--verify=crc32c", "--do_verify=1", "--verify_backlog=256"),
        *("--fsync=64",),
    )
    assert job["write"]["io_bytes"] >= 64 * MIB
    assert job["read"]["io_bytes"] > 0
    assert not served.reports


def test_fio_verifies_sequential_megabytes_and_mixed_trims(served: ServedFiles) -> None:
    served.add("vol", 64 * MIB)
    fio(served.uri("vol"), "--rw=write", "--bs=1m", "--iodepth=8", "--size=64m", "--verify=md5")
    fio(served.uri("vol"), "--rw=randtrimwrite", "--bs=4k", "--iodepth=32", "--size=16m")
    fio(served.uri("vol"), "--rw=randrw", "--bs=4k", "--iodepth=32", "--size=16m", "--verify=crc32c")
    assert not served.reports


def test_a_file_system_made_through_the_export_is_clean(served: ServedFiles, tmp_path: Path) -> None:
    served.add("vol", 64 * MIB)
    local = tmp_path / "local"
    local.write_bytes(bytes(64 * MIB))
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(50):
        (tree / f"file-{number}").write_bytes(os.urandom(number * 1000))
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, local)
    run("nbdcopy", "--destination-is-zero", local, served.uri("vol"))
    run("e2fsck", "-fn", served.path("vol"))
    assert same(local, served.path("vol"))


def test_nbdkit_in_front_passes_every_kind_of_request_on(served: ServedFiles, tmp_path: Path) -> None:
    """A second, independent client that is strict about replies; its log says what it sent."""
    io = served.add("vol", 16 * MIB)
    io.keep_journal = True
    port, log = free_port(), tmp_path / "log"
    command = ["nbdkit", "-f", "-p", str(port), "-i", "127.0.0.1", "--filter=log", "nbd", f"uri={served.uri('vol')}"]
    with subprocess.Popen([*command, f"logfile={log}"]) as nbdkit:
        try:
            wait_for_port(port)
            qemu_io(
                f"nbd://127.0.0.1:{port}/",
                *("write -P 3 0 1M", "write -f -P 4 1M 4k", "discard 64k 64k", "write -z 0 4k", "flush"),
                *("read -P 0 0 4k", "read -P 3 4k 4k", "read -P 0 64k 64k", "read -P 4 1M 4k"),
            )
        finally:
            nbdkit.terminate()
    assert {"write", "discard", "flush"} <= {entry[0] for entry in io.journal}
    assert ("write", MIB, 4096, True) in io.journal
    assert not served.reports
