"""Odd things through libnbd, its own checks of requests switched off, so that the server's are what is seen.

The binding belongs to Debian's Python: each test sends a few lines to /usr/bin/python3, where `h` is a handle
connected to the export, and reads the value of `result` back as JSON.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rig.fileio import refused
from rig.served import ServedFiles
from rig.until import until

MIB = 1024 * 1024

PREPARE = """
import json, sys, nbd

MIB = 1024 * 1024
uri = sys.argv[1]

def connect(prepare=lambda h: None):
    h = nbd.NBD()
    h.set_strict_mode(0)
    prepare(h)
    h.connect_uri(uri)
    return h

def error(call):
    try:
        call()
    except nbd.Error as problem:
        return problem.errno
    return None

def status(h, length, offset, flags=0):
    found = []
    h.block_status(length, offset, lambda context, at, entries, err: found.extend(entries) or 0, flags)
    return found

def with_status(h):
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedFiles]:
    with ServedFiles(tmp_path) as served:
        yield served


def libnbd(uri: str, code: str) -> Any:
    program = PREPARE + textwrap.dedent(code) + "\nprint(json.dumps(result))\n"
    command = ["/usr/bin/python3", "-c", program, uri]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_beyond_the_end_is_refused_and_the_connection_goes_on(served: ServedFiles) -> None:
    io = served.add("vol", MIB + 5)
    io.keep_journal = True
    result = libnbd(
        served.uri("vol"),
        """
        h = connect(with_status)
        end = h.get_size()
        result = [
            error(lambda: h.pread(1, end)),
            error(lambda: h.pread(512, end - 511)),
            error(lambda: h.pwrite(b"x" * 512, end - 511)),
            error(lambda: h.pwrite(b"x" * 100_000, end + 4096)),
            error(lambda: h.trim(512, end - 511)),
            error(lambda: h.zero(512, end - 511)),
            error(lambda: status(h, 512, end - 511)),
            error(lambda: h.pread(0, 0)),
            error(lambda: h.cache(512, 0)),
            h.pread(5, end - 5) == bytes(5),
        ]
        """,
    )
    assert result == ["EINVAL", "EINVAL", "ENOSPC", "ENOSPC", "EINVAL", "ENOSPC", "EINVAL", "EINVAL", "EINVAL", True]
    assert io.journal == []


def test_unaligned_requests_touch_exactly_their_bytes(served: ServedFiles) -> None:
    served.add("vol", MIB + 5, content=b"\xff" * (MIB + 5))
    result = libnbd(
        served.uri("vol"),
        """
        h = connect()
        model = bytearray(b"\\xff" * h.get_size())
        for offset, length in ((1, 1), (4095, 2), (511, 9000), (MIB - 3, 8), (70_001, 70_001), (200_000, 300_001)):
            data = bytes((offset + n) % 251 for n in range(length))
            h.pwrite(data, offset)
            model[offset:offset + length] = data
        for offset, length in ((4097, 1), (8191, 4098), (100_000, 12_345), (MIB + 3, 2)):
            h.zero(length, offset)
            model[offset:offset + length] = bytes(length)
        for offset, length in ((513, 511), (300_001, 65_537), (MIB, 1)):
            h.trim(length, offset)
            model[offset:offset + length] = bytes(length)
        for offset, length in ((600_001, 10_000),):
            h.zero(length, offset, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
            model[offset:offset + length] = bytes(length)
        result = bytes(h.pread(h.get_size(), 0)) == bytes(model)
        """,
    )
    assert result is True


def test_a_write_that_is_too_long_is_swallowed(served: ServedFiles) -> None:
    served.add("vol", 64 * MIB)
    result = libnbd(
        served.uri("vol"),
        """
        h = connect()
        result = [error(lambda: h.pwrite(bytes(33 * MIB), 0)), error(lambda: h.pread(33 * MIB, 0))]
        h.pwrite(b"z" * 32 * MIB, 1)
        result += [h.pread(32 * MIB, 1) == b"z" * 32 * MIB, h.pread(1, 0) == bytes(1)]
        """,
    )
    assert result == ["EINVAL", "EINVAL", True, True]


def test_without_structured_replies_everything_but_block_status_works(served: ServedFiles) -> None:
    served.add("vol", 64 * MIB)
    result = libnbd(
        served.uri("vol"),
        """
        h = connect(lambda h: h.set_request_structured_replies(False))
        h.pwrite(b"a" * 40_000_00, 7)
        result = [
            h.get_structured_replies_negotiated(), h.can_df(), h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION),
            h.pread(40_000_00, 7) == b"a" * 40_000_00,
            error(lambda: h.pread(4096, 0, nbd.CMD_FLAG_DF)),
            error(lambda: h.flush()),
            error(lambda: h.pwrite(b"x", h.get_size())),
        ]
        """,
    )
    assert result == [False, False, False, True, "EINVAL", None, "ENOSPC"]


def test_chunks_of_a_long_read_cover_it_once_and_unfragmented_ones_are_single(served: ServedFiles) -> None:
    served.add("vol", 40 * MIB)
    result = libnbd(
        served.uri("vol"),
        """
        h = connect()
        def chunks(length, offset, flags=0):
            seen = []
            h.pread_structured(length, offset, lambda data, at, status, err: seen.append((at, len(data))) or 0, flags)
            return sorted(seen)
        def gapless(seen, offset, length):
            for at, size in seen:
                if at != offset:
                    return False
                offset, length = offset + size, length - size
            return length == 0
        result = [gapless(chunks(l, o), o, l) for l, o in ((1, 0), (MIB, 1), (5 * MIB, 4097), (32 * MIB, 13))]
        result += [len(chunks(32 * MIB, 13, nbd.CMD_FLAG_DF)), len(chunks(32 * MIB, 13)) > 1]
        """,
    )
    assert result == [True, True, True, True, 1, True]


def test_block_status_tells_what_writing_zeroing_and_trimming_left(served: ServedFiles) -> None:
    served.add("vol", 16 * MIB)
    result = libnbd(
        served.uri("vol"),
        """
        h = connect(with_status)
        h.pwrite(b"d" * 65536, MIB)
        h.pwrite(b"d" * 65536, 4 * MIB)
        h.pwrite(b"d" * 65536, 8 * MIB)
        h.trim(65536, 4 * MIB)
        h.zero(65536, 8 * MIB, nbd.CMD_FLAG_NO_HOLE)
        h.flush()
        result = [
            status(h, 16 * MIB, 0),
            status(h, 16 * MIB, 0, nbd.CMD_FLAG_REQ_ONE),
            status(h, 100, MIB + 65536 - 50),
            status(h, 10, MIB + 5, nbd.CMD_FLAG_REQ_ONE),
        ]
        """,
    )
    whole = [MIB, 3, 65536, 0, 7 * MIB - 65536, 3, 65536, 0, 8 * MIB - 65536, 3]
    assert result == [whole, [MIB, 3], [50, 0, 50, 3], [10, 0]]


def test_a_range_that_another_export_was_asked_about_is_not_told(served: ServedFiles) -> None:
    served.add("vol", MIB)
    result = libnbd(
        served.uri("vol"),
        """
        h = connect()
        result = error(lambda: status(h, 4096, 0))
        """,
    )
    assert result in ("EINVAL", "ENOTSUP")


def test_options_can_be_haggled_over_before_the_choice(served: ServedFiles) -> None:
    served.add("vol", MIB)
    served.add("second", 2 * MIB, read_only=True)
    result = libnbd(
        served.uri("vol"),
        """
        h = connect(lambda h: h.set_opt_mode(True))
        names = []
        h.opt_list(lambda name, description: names.append([name, description]) or 0)
        h.set_export_name("no such")
        unknown = error(h.opt_info)
        h.set_export_name("second")
        h.opt_info()
        second = [h.get_size(), h.is_read_only()]
        contexts = []
        h.opt_list_meta_context(lambda name: contexts.append(name) or 0)
        h.set_export_name("vol")
        h.opt_go()
        result = [names, unknown, second, contexts, h.get_size(), h.is_read_only()]
        """,
    )
    assert result == [
        [["vol", "file vol.img"], ["second", "file second.img"]],
        "ENOENT",
        [2 * MIB, True],
        ["base:allocation"],
        MIB,
        False,
    ]


def test_sixty_four_requests_in_flight_on_one_connection_all_come_back(served: ServedFiles) -> None:
    served.add("vol", 64 * MIB)
    result = libnbd(
        served.uri("vol"),
        """
        h = connect()
        sizes = (512, 4096, 70_000, 262_144, 2 * MIB)
        buffers = [nbd.Buffer.from_bytearray(bytearray([n + 1]) * sizes[n % 5]) for n in range(64)]
        flags = (0, nbd.CMD_FLAG_FUA)
        cookies = [h.aio_pwrite(b, n * MIB % (60 * MIB), flags=flags[n % 2]) for n, b in enumerate(buffers) if n < 28]
        cookies += [h.aio_flush(), h.aio_trim(4096, 61 * MIB), h.aio_zero(8192, 62 * MIB)]
        while cookies:
            h.poll(-1)
            cookies = [cookie for cookie in cookies if not h.aio_command_completed(cookie)]
        back = [nbd.Buffer(sizes[n % 5]) for n in range(28)]
        cookies = [h.aio_pread(b, n * MIB) for n, b in enumerate(back)]
        while cookies:
            h.poll(-1)
            cookies = [cookie for cookie in cookies if not h.aio_command_completed(cookie)]
        # A write of 2 MiB reaches over the start of the next one: look at what nobody else wrote.
        result = [n for n, b in enumerate(back) if n % 5 != 0 and bytes(b.to_bytearray()[:512]) != bytes([n + 1]) * 512]
        """,
    )
    assert result == []


def test_a_flush_on_one_connection_covers_what_another_was_answered(served: ServedFiles) -> None:
    io = served.add("vol", 16 * MIB)
    io.keep_journal = True
    result = libnbd(
        served.uri("vol"),
        """
        writers, flusher = [connect() for _ in range(4)], connect()
        for n, h in enumerate(writers):
            h.pwrite(bytes([n + 1]) * 100_000, n * MIB)
        flusher.flush()
        writers[0].pwrite(b"fua", 8 * MIB, nbd.CMD_FLAG_FUA)
        result = [flusher.can_multi_conn()]
        result += [flusher.pread(100_000, n * MIB) == bytes([n + 1]) * 100_000 for n in range(4)]
        """,
    )
    assert result == [True] * 5
    writes = [("write", n * MIB, 100_000, False) for n in range(4)]
    assert io.journal == [*writes, ("flush", 0, 0, True), ("write", 8 * MIB, 3, True)]


def test_a_flush_is_answered_only_when_the_disk_has_done_it(served: ServedFiles) -> None:
    io = served.add("vol", MIB)
    io.gate = threading.Event()
    code = PREPARE + "h = connect()\nh.flush()\nprint('flushed')\n"
    command = ["/usr/bin/python3", "-c", code, served.uri("vol")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        connections = served.server.table.by_name["vol"].connections
        until(lambda: any(c._exchange and c._exchange.in_flight for c in tuple(connections)), "the flush is in flight")
        assert client.poll() is None
        io.gate.set()
        assert client.stdout is not None
        assert client.stdout.read() == "flushed\n"


def test_the_wrong_role_is_not_permitted_in_words(served: ServedFiles) -> None:
    io = served.add("vol", MIB)
    io.refusal = refused("vol")
    result = libnbd(
        served.uri("vol"),
        """
        h = connect()
        result = [error(lambda: h.pwrite(b"x" * n, 0)) for n in (1, 4096, 200_000)]
        result += [error(lambda: h.trim(4096, 0)), error(lambda: h.zero(4096, 0)), h.pread(1, 0) == bytes(1)]
        """,
    )
    assert result == ["EPERM"] * 5 + [True]
    assert served.codes() == ["write_refused"]
