"""The management API on its unix socket: uvicorn inside the daemon's own loop.

The socket is made here with mode 0600, so that only the daemon's user can ask; signals belong to serve.py.
This module must never know what an answer means.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import uvicorn

from engine.api import address
from engine.api.routes import Closing, make_app
from engine.api.service import Service

BACKLOG = 64
GRACE_S = 3
"""How long a client may take to read its last answer when the daemon stops."""


class ApiServer:
    """A server that runs; `close` ends it. Made by `serve_api`."""

    def __init__(self, server: uvicorn.Server, closing: Closing, path: Path, listener: socket.socket) -> None:
        self._server = server
        self._closing = closing
        self._path = path
        self._listener = listener
        self._ticking = asyncio.create_task(server.main_loop(), name="api")

    async def close(self) -> None:
        """Takes no more questions, lets those under way end (long polls at once), and takes the socket away."""
        self._path.unlink(missing_ok=True)
        self._closing.set()
        self._server.should_exit = True
        await self._ticking
        await self._server.shutdown(sockets=[self._listener])


async def serve_api(service: Service, socket_path: Path) -> ApiServer:
    """Answers on `socket_path` when it returns; what an earlier daemon left there is replaced.

    The caller holds the lock of the data directory, so a socket that stands there is nobody's. Raises OSError.
    """
    closing = Closing()
    config = uvicorn.Config(
        make_app(service, closing),
        loop="none",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listener = _listen(socket_path)
    # The three phases of Server.serve() one by one: serve() itself would take SIGTERM and SIGINT from the daemon.
    await server.startup(sockets=[listener])
    return ApiServer(server, closing, socket_path, listener)


def _listen(path: Path) -> socket.socket:
    """A listening socket that answers from now on: connections wait in its backlog until uvicorn takes them."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address.socket_name(path) as name:
            listener.bind(name)
        path.chmod(0o600)  # before listen: until then nobody can connect
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
