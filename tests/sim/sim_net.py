"""The network between the sites: sockets of the product's own shape, over links that can be cut, slow, and dead silent.

Bytes of one connection keep their order; connections do not wait for each other. While a link is cut nothing arrives,
and what was under way arrives when it heals, unless an end gave up before. Nobody hears of a host that lost its power.
"""

from __future__ import annotations

import asyncio
import socket as real_socket
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from types import SimpleNamespace
from typing import Any

from sim_loop import ProcessLoop, Scheduler

HOST = "127.0.0.1"
"""Every site is at this address, on a port of its own: a plain link is for one host only."""


class Network:
    """Who listens where, what connections there are, and how the link between the sites is."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.random = Random(0)
        self.listeners: dict[int, Socket] = {}
        self.connections: list[End] = []
        self.is_cut = False
        self.delay_s = 0.0005
        self._next_port = 40000

    def delay(self) -> float:
        return self.delay_s * self.random.choice((0.5, 1, 1, 3))

    def port(self) -> int:
        self._next_port += 1
        return self._next_port

    def cut(self) -> None:
        self.is_cut = True

    def heal(self) -> None:
        """What waited arrives."""
        self.is_cut = False
        for end in self.connections:
            end.pump()

    def reset_all(self) -> None:
        """A box in between forgets every connection: both ends are told at their next word."""
        for end in list(self.connections):
            end.reset()

    def died(self, process: Any, *, silently: bool) -> None:
        """The sockets of a process go with it: its kernel says so, unless that went too."""
        self.listeners = {port: one for port, one in self.listeners.items() if one.loop.process is not process}
        for end in list(self.connections):
            if end.loop.process is process:
                end.vanish(silently=silently)


class Socket:
    """What `socket.socket` is to the product's dialer and listener."""

    network: Network

    def __init__(self, family: Any = 2, kind: Any = 1, protocol: Any = 0) -> None:
        self.loop: Any = asyncio.get_running_loop()
        self.end: End | None = None
        self.port = 0
        self._queue: deque[End] = deque()
        self._watcher: Callable[[], None] | None = None

    def setblocking(self, _: bool) -> None:
        pass

    def setsockopt(self, *_: Any) -> None:
        pass

    def getsockopt(self, *_: Any) -> bytes:
        raise OSError("no kernel is asked here")

    def getsockname(self) -> tuple[str, int]:
        return HOST, self.port

    def getpeername(self) -> tuple[str, int]:
        return HOST, self.port

    def bind(self, address: tuple[str, int]) -> None:
        self.port = address[1]

    def listen(self, _: int) -> None:
        self.network.listeners[self.port] = self

    def accept(self) -> tuple[Socket, tuple[str, int]]:
        if not self._queue:
            raise BlockingIOError
        accepted = Socket()
        accepted.end = self._queue.popleft()
        accepted.port = self.network.port()
        accepted.end.owner = accepted
        return accepted, (HOST, accepted.port)

    def recv(self, count: int, _flags: int) -> bytes:
        """With MSG_PEEK."""
        assert self.end is not None
        return self.end.peek(count)

    def shutdown(self, _: int) -> None:
        self.close()

    def close(self) -> None:
        if self.network.listeners.get(self.port) is self:
            del self.network.listeners[self.port]
        if self.end is not None and self.end.protocol is None:
            self.end.close_after_sending()

    def watch(self, watcher: Callable[[], None] | None) -> None:
        self._watcher = watcher
        if watcher is not None and (self._queue or (self.end is not None and self.end.is_readable)):
            watcher()

    def readable(self) -> None:
        if self._watcher is not None:
            self._watcher()

    async def connect(self, address: tuple[str, int]) -> None:
        """Raises ConnectionRefusedError; waits as long as the caller does while the link is cut."""
        network = self.network
        answered: asyncio.Future[None] = self.loop.create_future()

        def arrive() -> None:
            if network.is_cut:
                network.scheduler.call_later(1.0, arrive)
                return
            if answered.done() or self.loop not in network.scheduler.loops:
                return
            listening = network.listeners.get(address[1])
            if listening is None:
                answered.set_exception(ConnectionRefusedError(111, "Connection refused"))
                return
            here, there = End(network, self.loop), End(network, listening.loop)
            here.other, there.other = there, here
            network.connections += [here, there]
            self.end, here.owner = here, self
            listening._queue.append(there)
            listening.readable()
            answered.set_result(None)

        network.scheduler.call_later(network.delay(), arrive)
        self.port = network.port()
        await answered

    def attach(self, protocol: Any) -> tuple[Any, Any]:
        assert self.end is not None
        return self.end.attach(protocol), protocol


class End(asyncio.Transport):
    """One end of a connection. What is written stays the writer's memory until it arrives."""

    def __init__(self, network: Network, loop: ProcessLoop) -> None:
        super().__init__()
        self.network = network
        self.loop = loop
        self.other: End = self
        self.owner: Any = None
        self.protocol: Any = None
        self._outgoing: deque[memoryview | None] = deque()
        """None: the end of the stream."""
        self._waiting = 0
        self._early = bytearray()
        self._ended_early = False
        self._is_paused = False
        self._is_pumping = False
        self._is_closing = False
        self._is_gone = False

    # The transport of the product's protocol

    def attach(self, protocol: Any) -> End:
        self.protocol = protocol
        protocol.connection_made(self)
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            self._call(lambda: self._feed(early))
        if self._ended_early:
            self._call(self._eof)
        if self._is_gone:
            self.loop.call_soon(protocol.connection_lost, ConnectionResetError(104, "Connection reset by peer"))
        return self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"socket": self.owner, "peername": (HOST, 0)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self._waiting

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: Any) -> None:
        if self._is_closing:
            return
        view = memoryview(data).cast("B")
        if view:
            self._outgoing.append(view)
            self._waiting += len(view)
            if not self._is_paused and self.protocol is not None:
                self._is_paused = True
                self.protocol.pause_writing()
            self.pump()

    def writelines(self, pieces: Iterable[Any]) -> None:
        for piece in pieces:
            self.write(piece)

    def close(self) -> None:
        self.close_after_sending()

    def close_after_sending(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._outgoing.append(None)
            self.pump()

    def abort(self) -> None:
        if not self._is_gone:
            self._is_closing = True
            self._lose(None)
            self._tell_other()

    # The wire

    def pump(self) -> None:
        """Something is on its way while there is something to send."""
        if self._outgoing and not self._is_pumping and not self.network.is_cut and not self._is_gone:
            self._is_pumping = True
            self.network.scheduler.call_later(self.network.delay(), self._arrive)

    def _arrive(self) -> None:
        self._is_pumping = False
        if self.network.is_cut or self._is_gone or not self._outgoing:
            return
        if self.other._is_gone:
            self.reset()  # the other end's kernel knows nothing of this connection
            return
        piece = self._outgoing.popleft()
        if piece is None:
            self.other._call(self.other._eof)
            self._lose(None)
            return
        cut = self.network.random.choice((len(piece), len(piece), max(1, len(piece) // 3)))
        if cut < len(piece):
            self._outgoing.appendleft(piece[cut:])
        raw = bytes(piece[:cut])
        self._waiting -= cut
        self.other._call(lambda: self.other._feed(raw))
        if not self._waiting and self._is_paused:
            self._is_paused = False
            self._call(self.protocol.resume_writing)
        self.pump()

    def _feed(self, raw: bytes) -> None:
        if self._is_gone:
            return
        if self.protocol is None:
            self._early += raw
            if self.owner is not None:
                self.owner.readable()
            return
        view = memoryview(raw)
        while view and not self._is_gone:
            buffer = self.protocol.get_buffer(len(view))
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            view = view[count:]
            self.protocol.buffer_updated(count)

    def _eof(self) -> None:
        if self._is_gone:
            return
        if self.protocol is None:
            self._ended_early = True
            if self.owner is not None:
                self.owner.readable()
        elif not self.protocol.eof_received():
            self.close_after_sending()

    @property
    def is_readable(self) -> bool:
        return bool(self._early) or self._ended_early or self._is_gone

    def peek(self, count: int) -> bytes:
        return bytes(self._early[:count])

    # The end

    def reset(self) -> None:
        """This end is told that the connection is no more."""
        self._lose(ConnectionResetError(104, "Connection reset by peer"))

    def vanish(self, *, silently: bool) -> None:
        """The process of this end is gone."""
        self._is_gone = True
        self._forget()
        if not silently:
            self._tell_other()

    def _tell_other(self) -> None:
        def arrive() -> None:
            if self.network.is_cut:
                self.network.scheduler.call_later(1.0, arrive)
            elif not self.other._is_gone:
                self.other.reset()

        self.network.scheduler.call_later(self.network.delay(), arrive)

    def _lose(self, error: Exception | None) -> None:
        if self._is_gone:
            return
        self._is_gone = True
        self._is_closing = True
        self._outgoing.clear()
        self._forget()
        if self.protocol is not None:
            self._call(lambda: self.protocol.connection_lost(error))
        elif self.owner is not None:
            self.owner.readable()

    def _forget(self) -> None:
        if self in self.network.connections:
            self.network.connections.remove(self)

    def _call(self, call: Callable[[], None]) -> None:
        if self.loop in self.network.scheduler.loops:
            self.loop.call_soon(call)


def socket_module(network: Network) -> Any:
    """What stands for the module `socket` where the product opens connections."""
    kind = type("SimSocket", (Socket,), {"network": network})
    Socket.network = network
    names = {name: getattr(real_socket, name) for name in dir(real_socket) if name.isupper()}
    return SimpleNamespace(**names, socket=kind)
