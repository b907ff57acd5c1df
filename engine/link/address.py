"""Addresses of links: HOST:PORT as operators write them, and what counts as this host.

This module must never look a name up.
"""

from __future__ import annotations

import ipaddress

from engine.errors import BadValue, PlainBeyondLoopback


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises BadValue."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadValue(what="address", value=text, reason="an IPv6 address stands in brackets")
    if not colon or not host:
        raise BadValue(what="address", value=text, reason="HOST:PORT is wanted")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise BadValue(what="address", value=text, reason="a port is a number up to 65535")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """`HOST:PORT`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether this numeric address, as a socket names it, is this host talking to itself."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_any(host: str) -> bool:
    """Whether this host of an address to listen on stands for all of them, so that nobody can dial it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def require_loopback(*hosts: str) -> None:
    """Both ends of a link without TLS are on this host. Raises PlainBeyondLoopback."""
    for host in hosts:
        if not is_loopback(host):
            raise PlainBeyondLoopback(address=host)
