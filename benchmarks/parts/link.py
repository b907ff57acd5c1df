"""What a link carries: DATA of 4 MiB from one process to another over loopback, plain and with TLS.

    python -m benchmarks.parts.link [GIB] [ROUNDS]

Two processes, as two daemons are. The sender sends one buffer again and again, each time after `send` gave it back;
the receiver places every payload in one of eight aligned buffers. Nothing is hashed, read or written: this is the
ceiling that the wire alone leaves for the copy path (hot-path.md e: 3.5-3.8 GB/s plain, 1.15 with TLS).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from blockstore.disk import aligned_buffer
from engine.clock import SystemClock
from engine.link import identity
from engine.link.peer import Links
from engine.link.peer_link import PeerLink
from engine.model import Peer, Site, SiteId
from engine.wire.messages import Data, Landed, Message

SYNC = bytes(16)
HEAD_BYTES = 8320
BLOCKS_BYTES = 4 << 20
BLOCKS_AT = 12288


class End:
    """The handler of either process."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.complete = 0
        self.landed = asyncio.Event()
        self._buffers = [aligned_buffer(BLOCKS_AT + BLOCKS_BYTES) for _ in range(8)]

    def connected(self, link: PeerLink) -> None: ...
    def disconnected(self, link: PeerLink) -> None: ...

    def message(self, link: PeerLink, message: Message) -> None:
        self.landed.set()

    def place(self, link: PeerLink, data: Data, payload_length: int) -> Sequence[memoryview]:
        buffer = self._buffers[self.complete % len(self._buffers)]
        return [buffer[: data.head_bytes], buffer[BLOCKS_AT : BLOCKS_AT + payload_length - data.head_bytes]]

    def data(self, link: PeerLink, data: Data) -> None:
        self.complete += 1
        if self.complete % self.frames == 0:
            link.post(Landed(SYNC, 0, self.frames))


def cpu_s() -> float:
    """What this process has used so far, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def links_of(number: int, folder: Path, handler: End) -> Links:
    return Links(
        site=Site(SiteId(bytes([number]) * 16), str(number)),
        identity=identity.load(folder),
        listen=("127.0.0.1", 0),
        handler=handler,
        report=lambda level, code, message, details: None,
        clock=SystemClock(),
    )


async def receive(folder: Path, peer: Peer, frames: int) -> None:
    """The child: says its port, receives until its link ends, says what it cost."""
    links = links_of(2, folder, End(frames))
    await links.start()
    links.set_peers([peer])
    sys.stdout.write(f"{links.port}\n")
    sys.stdout.flush()
    link = await links.wait(peer.name, 30)
    used_before_s = cpu_s()
    await link.closed.wait()
    await links.close()
    sys.stdout.write(json.dumps({"cpu_s": cpu_s() - used_before_s}))


async def send(folders: Sequence[Path], *, plain: bool, frames: int, rounds: int) -> None:
    """The parent: sends `frames` frames `rounds` times and prints the best round."""
    sender, receiver = (identity.load(folder) for folder in folders)
    handler = End(frames)
    links = links_of(1, folders[0], handler)
    await links.start()
    there = ["127.0.0.1:1", sender.fingerprint, str(int(plain)), str(frames)]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.parts.link", "--receive", str(folders[1]), *there),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    port = int(await child.stdout.readline())
    links.set_peers([Peer("2", f"127.0.0.1:{port}", receiver.fingerprint, plain, None)])
    link = await links.wait("2", 30)
    memory = aligned_buffer(BLOCKS_BYTES)
    used_before_s = cpu_s()
    memory[:] = os.urandom(BLOCKS_BYTES)
    data, head = Data(SYNC, 0, "plain", HEAD_BYTES), bytes(HEAD_BYTES)
    seconds = []
    for _ in range(rounds):
        handler.landed.clear()
        began = time.perf_counter()
        for _ in range(frames):
            await link.send(data, (head, memory))
        await handler.landed.wait()
        seconds.append(time.perf_counter() - began)
    await links.close()
    used_s = cpu_s() - used_before_s
    told, _ = await child.communicate()
    moved, gib = frames * BLOCKS_BYTES, frames * rounds * BLOCKS_BYTES / (1 << 30)
    rates = sorted(moved / each / 1e9 for each in seconds)
    sys.stdout.write(
        f"{'plain' if plain else 'TLS':5}  best {rates[-1]:.2f} GB/s  median {rates[len(rates) // 2]:.2f}"
        f"  CPU s/GiB: sender {used_s / gib:.2f}, receiver {json.loads(told)['cpu_s'] / gib:.2f}\n"
    )


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["--receive"]:
        home, address, fingerprint, plain_flag, count = arguments[1:]
        peer = Peer("1", address, fingerprint, bool(int(plain_flag)), None)
        uvloop.run(receive(Path(home), peer, int(count)))
        return
    frames = int(float(arguments[0] if arguments else 2) * 256)
    rounds = int(arguments[1]) if len(arguments) > 1 else 3
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / "1", Path(scratch) / "2"]
        for folder in folders:
            identity.create(folder, folder.name)
        for plain in (True, False):
            uvloop.run(send(folders, plain=plain, frames=frames, rounds=rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
