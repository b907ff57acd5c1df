"""The product's NBD server on an event loop in a thread of this process, serving plain files.

So a test sees the server's journal, reports and buffers while real clients, blocking ones too, talk to it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from engine.exports.nbd_server import NbdServer
from engine.pool import DiskPool
from rig.fileio import FileIO

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reported:
    level: str
    code: str
    message: str
    details: dict[str, Any]


class ServedFiles:
    """Use as a context manager. `add` makes and serves files; all are closed at the end."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.reports: list[Reported] = []
        self.loop = uvloop.new_event_loop()
        self._options = options
        self._files: list[FileIO] = []
        self._thread = threading.Thread(target=self.loop.run_forever, name="served files")
        self.server: NbdServer
        self.pool: DiskPool
        self.port = 0

    def __enter__(self) -> ServedFiles:
        self._thread.start()
        self.call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            if file.gate is not None:
                file.gate.set()  # a test that failed left its slow disk waiting
        try:
            self.call(self._stop())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
            for file in self._files:
                file.close()

    def add(self, name: str, size_bytes: int, *, read_only: bool = False, content: bytes = b"") -> FileIO:
        """Serve a new file of that size, sparse behind `content`, as `name`; its BlockIO."""
        path = self.folder / f"{name}.img"
        with path.open("wb") as file:
            file.write(content)
            file.truncate(size_bytes)
        return self.serve(name, path, read_only=read_only)

    def serve(self, name: str, path: Path, *, read_only: bool = False) -> FileIO:
        """Serve a file that is there."""
        io = FileIO(str(path))
        self._files.append(io)
        self.on_loop(lambda: self.server.present(name, io, read_only=read_only, description=f"file {path.name}"))
        return io

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.img"

    def uri(self, name: str = "") -> str:
        """The URI of an export; without a name, of the server, as --list wants it."""
        return self.server.uri(name) if name else f"nbd://127.0.0.1:{self.port}"

    def call(self, work: Coroutine[Any, Any, T], timeout_s: float = 30) -> T:
        """Run a coroutine on the server's loop and return what it does."""
        return self.begin(work).result(timeout_s)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def on_loop(self, function: Callable[[], T]) -> T:
        """Call a function on the server's loop and return what it does."""

        async def work() -> T:
            return function()

        return self.call(work())

    def codes(self) -> list[str]:
        """The codes of the reports so far."""
        return self.on_loop(lambda: [report.code for report in self.reports])

    async def _start(self) -> None:
        self.pool = DiskPool()
        self.server = NbdServer(self.pool, report=self._report, **self._options)
        self.port = await self.server.start("127.0.0.1", 0)

    async def _stop(self) -> None:
        await self.server.close()
        await self.pool.close()

    def _report(self, level: str, code: str, message: str, details: dict[str, Any]) -> None:
        self.reports.append(Reported(level, code, message, details))
