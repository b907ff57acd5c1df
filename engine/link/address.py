"""Addresses of links: HOST:PORT as operators write them, and what counts as this host.

This module must never look a name up.
"""

from __future__ import annotations

import ipaddress

from engine.errors import BadValue


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


def may_be_loopback(host: str) -> bool:
    """Whether `host`, as an operator wrote it, may name this host: a name is judged when it was looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return is_loopback(host)
