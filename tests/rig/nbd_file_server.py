"""A process that serves plain files over the product's NBD server, without a daemon around it.

    python -m rig.nbd_file_server [--port N] PATH...

prints one URI a line for each file (exports `vol0`, `vol1`, ..., and read-only twins `vol0-ro`, ...), then
serves until its standard input ends. Reports go to standard error, one JSON document a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import uvloop

from engine.exports.nbd_server import NbdServer
from engine.pool import DiskPool
from rig.fileio import FileIO


def _report(level: str, code: str, message: str, details: dict[str, Any]) -> None:
    line = {"level": level, "code": code, "message": message, "details": details}
    print(json.dumps(line), file=sys.stderr, flush=True)


async def serve(paths: Sequence[str], port: int) -> None:
    """Serve `paths` until standard input ends."""
    pool = DiskPool()
    server = NbdServer(pool, report=_report)
    await server.start("127.0.0.1", port)
    files = []
    for number, path in enumerate(paths):
        io = FileIO(path)
        files.append(io)
        server.present(f"vol{number}", io, read_only=False, description=f"the file {path}")
        server.present(f"vol{number}-ro", io, read_only=True)
        print(server.uri(f"vol{number}"), flush=True)
    try:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await server.close()
        await pool.close()
        for io in files:
            io.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("paths", nargs="+")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.paths, arguments.port))


if __name__ == "__main__":
    main()
