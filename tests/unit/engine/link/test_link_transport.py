"""The transport: memory is the caller's again when `send` returns, and nothing is lost or mixed on the way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

import pytest
import uvloop

from engine.link import identity
from engine.link.tls import client_context, server_context
from engine.link.transport import Transport
from engine.wire import messages as m
from engine.wire.codec import encode

SYNC = b"s" * 16
BLOCKS = 4 << 20


def pytest_asyncio_loop_factories(config, item):  # type: ignore[no-untyped-def]
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Owner:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.transport = Transport(self)
        self.transport.greeted()
        self.messages: list[m.Message] = []
        self.payloads: list[bytes] = []
        self.memory = memoryview(bytearray(BLOCKS + 8192))
        self.over = asyncio.Event()
        self.error: Exception | None = None
        self.heard = asyncio.Condition()
        self.length = 0

    def place(self, data: m.Data, payload_bytes: int) -> Sequence[memoryview]:
        self.length = payload_bytes
        return [self.memory[:128], self.memory[128:payload_bytes]]

    def received(self, message: m.Message) -> None:
        self.messages.append(message)
        if isinstance(message, m.Data):
            self.payloads.append(bytes(self.memory[: self.length]))

    def ended(self, error: Exception | None) -> None:
        self.error = error
        self.over.set()


@pytest.fixture(params=["tls", "plain"])
async def ends(request, tmp_path):  # type: ignore[no-untyped-def]
    """A connected pair of owners."""
    loop = asyncio.get_running_loop()
    who = identity.create(tmp_path / "who", "who")
    server_tls: ssl.SSLContext | None = server_context(who) if request.param == "tls" else None
    client_tls = client_context(who) if request.param == "tls" else None
    owners: asyncio.Queue[Owner] = asyncio.Queue()

    def accept() -> Transport:
        owner = Owner()
        owners.put_nowait(owner)
        return owner.transport

    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    near = Owner()
    await loop.create_connection(
        lambda: near.transport, "127.0.0.1", port, ssl=client_tls, server_hostname="" if client_tls else None
    )
    far = await owners.get()
    for owner in (near, far):
        owner.transport.greeted()
    yield near, far
    for owner in (near, far):
        owner.transport.abort()
    server.close()


async def test_memory_may_be_used_again_as_soon_as_send_returns(ends) -> None:
    near, far = ends
    memory = bytearray(128 + BLOCKS)
    for number in range(12):
        memory[:] = bytes([number]) * len(memory)
        view = memoryview(memory)
        await near.transport.send(m.Data(SYNC, number, "plain", 128), [view[:128], view[128:]])
        memory[:] = b"\xee" * len(memory)
    near.transport.close()
    await far.over.wait()
    assert [message.volume_index for message in far.messages] == list(range(12))
    for number, payload in enumerate(far.payloads):
        assert payload == bytes([number]) * (128 + BLOCKS)


async def test_small_messages_posted_during_a_payload_do_not_break_it(ends) -> None:
    near, far = ends
    payload = [bytes(128), bytes(BLOCKS)]

    async def bulk() -> None:
        for number in range(8):
            await near.transport.send(m.Data(SYNC, number, "plain", 128), payload)

    async def chatter() -> None:
        for number in range(300):
            near.transport.post(m.Landed(SYNC, 0, number))
            await asyncio.sleep(0)

    await asyncio.gather(bulk(), bulk(), chatter())
    near.transport.close()
    await far.over.wait()
    assert far.error is None
    assert [found.frames for found in far.messages if isinstance(found, m.Landed)] == list(range(300))
    assert sum(isinstance(found, m.Data) for found in far.messages) == 16


async def test_send_waits_while_the_peer_does_not_read(ends) -> None:
    near, far = ends
    far.transport.asyncio_transport.pause_reading()
    payload = [bytes(128), bytes(BLOCKS)]
    done = 0

    async def bulk() -> None:
        nonlocal done
        for _ in range(16):
            await near.transport.send(m.Data(SYNC, 0, "plain", 128), payload)
            done += 1

    task = asyncio.ensure_future(bulk())
    await asyncio.wait({task}, timeout=0.3)
    assert done < 16, "64 MiB do not fit into the kernel"
    assert near.transport.asyncio_transport.get_write_buffer_size() < 2 * BLOCKS
    far.transport.asyncio_transport.resume_reading()
    await task
    near.transport.close()
    await far.over.wait()
    assert len(far.payloads) == 16


async def test_a_cancelled_send_returns_when_its_frame_is_out(ends) -> None:
    near, far = ends
    far.transport.asyncio_transport.pause_reading()
    memory = bytearray(b"a" * (128 + BLOCKS))

    async def bulk() -> None:
        for _ in range(16):
            await near.transport.send(m.Data(SYNC, 0, "plain", 128), [memory])

    task = asyncio.ensure_future(bulk())
    await asyncio.wait({task}, timeout=0.3)
    task.cancel()
    await asyncio.wait({task}, timeout=0.05)
    assert not task.done(), "its memory is still in use"
    far.transport.asyncio_transport.resume_reading()
    with pytest.raises(asyncio.CancelledError):
        await task
    memory[:] = b"b" * len(memory)
    await near.transport.send(m.Flush(SYNC))
    near.transport.close()
    await far.over.wait()
    assert far.messages[-1] == m.Flush(SYNC)
    assert set(b"".join(far.payloads)) == {ord("a")}


async def test_a_connection_that_ends_frees_a_send_that_waits(ends) -> None:
    near, far = ends
    far.transport.asyncio_transport.pause_reading()

    async def bulk() -> None:
        while True:
            await near.transport.send(m.Data(SYNC, 0, "plain", 128), [bytes(128), bytes(BLOCKS)])

    task = asyncio.ensure_future(bulk())
    await asyncio.wait({task}, timeout=0.2)
    assert not task.done()
    near.transport.abort()
    with pytest.raises(ConnectionError):
        await task
    with pytest.raises(ConnectionError):
        await near.transport.send(m.Flush(SYNC))


async def test_an_end_in_mid_frame_is_an_error_and_memory_is_let_go(ends) -> None:
    near, far = ends
    frame = encode(m.Data(SYNC, 0, "plain", 128), 128 + 4096) + bytes(1000)
    near.transport.asyncio_transport.write(frame)
    near.transport.asyncio_transport.close()
    await far.over.wait()
    assert "mid-frame" in str(far.error)
    assert far.transport.get_buffer(-1).obj is not far.memory.obj


async def test_a_failure_in_the_owner_ends_the_connection(ends) -> None:
    near, far = ends
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))

    def broken(message: m.Message) -> None:
        raise RuntimeError("a bug")

    far.received = broken
    await near.transport.send(m.Flush(SYNC))
    await far.over.wait()
    assert isinstance(far.error, RuntimeError)
    await near.over.wait()
    await far.transport.gone.wait()
