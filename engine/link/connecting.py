"""A connection to an address that was told: found by name, TCP first, then TLS over it.

This module must never believe who answers: its caller compares the fingerprint before it says a word.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from engine.link.address import require_loopback, split_address
from engine.link.candidate import Candidate
from engine.link.sockets import tune
from engine.link.timing import Timing


async def connect(address: str, timing: Timing, *, plain: bool = False) -> socket.socket:
    """TCP with the first address that answers. Raises OSError, of the look-up too, PlainBeyondLoopback, BadValue."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, found in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if plain:
            require_loopback(str(found[0]))
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            tune(connection, timing.user_timeout_s)
            await loop.sock_connect(connection, found)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


async def secure(candidate: Candidate, connection: socket.socket, tls: ssl.SSLContext, timing: Timing) -> None:
    """Give the connection to the candidate, with TLS. Raises OSError (ssl.SSLError)."""
    await asyncio.get_running_loop().create_connection(
        lambda: candidate.transport,
        sock=connection,
        ssl=tls,
        server_hostname="",
        ssl_handshake_timeout=timing.attempt_s,
        ssl_shutdown_timeout=timing.linger_s,
    )
