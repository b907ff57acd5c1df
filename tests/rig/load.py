"""Seeded writers: threads that write numbered blocks through NBD exports and keep the record of it.

    with Load(record, [uri, ...], seed=seed) as load:
        ... syncs, kills, whatever is to be tested under it
    assert load.writes > 0

Each thread holds a connection to every volume, so that the record's one counter spans the group.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

from rig.blocks import BLOCK, Record, Write, block_content
from rig.nbd import NbdClient


class Load:
    """Random requests to the exports `uris` from `threads` threads until `stop`.

    Most are writes of 1 to `longest` blocks; some carry FUA, some are zeroes or trims, some flushes. `pace_s`
    is the longest pause between two requests of a thread. A connection that breaks ends its thread: what was in
    flight is recorded as lost. Anything else that goes wrong in a thread is raised by `stop`.
    """

    def __init__(
        self,
        record: Record,
        uris: Sequence[str],
        *,
        seed: int,
        threads: int = 4,
        longest: int = 8,
        blocks: Sequence[int] | None = None,
        may_break: bool = False,
    ) -> None:
        assert len(uris) == record.volumes, "one export a volume of the record"
        self.record = record
        self.writes = 0
        self._uris = uris
        self._longest = longest
        self._blocks = blocks if blocks is not None else range(record.blocks)
        self._may_break = may_break
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._written = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed}/{n}"),), name=f"load-{n}")
            for n in range(threads)
        ]

    def start(self) -> None:
        """Start the threads; each one connects first."""
        for thread in self._threads:
            thread.start()

    @property
    def is_broken(self) -> bool:
        """True once a thread has failed."""
        return bool(self._errors)

    def stop(self) -> None:
        """Let every thread finish what it has in flight, then raise what went wrong in the first that failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def wait_for(self, writes: int, timeout_s: float = 60) -> None:
        """Return when `writes` more requests were answered. TimeoutError if they are not in time."""
        with self._written:
            wanted = self.writes + writes
            if not self._written.wait_for(lambda: self.writes >= wanted or self._is_over(), timeout_s):
                raise TimeoutError(f"{writes} requests were not answered in {timeout_s} s")
        assert self.writes >= wanted, f"the load ended before its time: {self._errors}"

    def _is_over(self) -> bool:
        return bool(self._errors) or not any(thread.is_alive() for thread in self._threads)

    def _run(self, chance: random.Random) -> None:
        clients: list[NbdClient] = []
        try:
            clients += [NbdClient(uri) for uri in self._uris]
            while not self._stop.is_set():
                self._request(chance, clients)
        except (ConnectionError, TimeoutError) as error:
            if not self._may_break:
                self._errors.append(error)
        except BaseException as error:
            self._errors.append(error)
        finally:
            for client in clients:
                client.close()
            with self._written:
                self._written.notify_all()

    def _request(self, chance: random.Random, clients: list[NbdClient]) -> None:
        """One request and its answer."""
        volume = chance.randrange(len(clients))
        kind = chance.random()
        if kind < 0.01:
            clients[volume].flush()
            return
        first = self._blocks[chance.randrange(len(self._blocks))]
        count = min(chance.choice((1, 1, 1, 2, self._longest)), self.record.blocks - first)
        write = self.record.ask(volume, first, count, zeros=kind > 0.95)
        if write is None:
            return
        try:
            self._carry_out(chance, clients[volume], write)
        except BaseException:
            self.record.lose(write)
            raise
        self.record.answer(write)
        with self._written:
            self.writes += 1
            self._written.notify_all()

    @staticmethod
    def _carry_out(chance: random.Random, client: NbdClient, write: Write) -> None:
        offset, fua = write.first * BLOCK, chance.random() < 0.05
        if not write.zeros:
            client.pwrite(block_content(write.volume, write.first, write.count, write.number), offset, fua=fua)
        elif chance.random() < 0.5:
            client.zero(write.count * BLOCK, offset, fua=fua, may_trim=chance.random() < 0.5)
        else:
            client.trim(write.count * BLOCK, offset, fua=fua)

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
