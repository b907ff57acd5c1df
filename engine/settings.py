"""leeward.toml: what an operator edits. Everything made at run time lives in the records instead.

A missing key has its default; a key that is not known here, or a value that cannot be meant, is refused with
the file, the key and its line: a daemon that guesses is worse than one that does not start. This module must
never write the file again once it exists.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from blockstore.disk import Disk
from engine.errors import SettingsInvalid

FILE_NAME = "leeward.toml"

DEFAULT_LISTEN = "0.0.0.0:7450"
DEFAULT_NBD = "127.0.0.1:10809"
DEFAULT_API = "127.0.0.1:8443"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"([0-9]+)([KMGT]?)")
_LONGEST_NAME = 64


class Address(NamedTuple):
    """Where to listen. `host` is a name or an address without brackets; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What leeward.toml says, defaults filled in; folders are absolute paths."""

    name: str
    listen: Address
    nbd: Address
    api: Address
    store_dir: str
    store_limit_bytes: int | None
    live_dir: str


def parse_address(text: str) -> Address:
    """HOST:PORT, IPv6 addresses in brackets. Raises ValueError with what is wrong in words."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:7450")
    if not host or any(character.isspace() for character in text):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{port!r} is no port between 0 and 65535")
    return Address(host, int(port))


def parse_size(text: str) -> int:
    """Bytes: a number, or one followed by K, M, G or T (powers of 1024). Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no size such as 500G")
    return int(match[1]) * _UNITS[match[2]]


def load(data: str, environ: dict[str, str] | None = None, disk: Disk | None = None) -> Settings:
    """The settings of the data directory `data`. Raises SettingsInvalid, also when the file is missing. Blocking."""
    path = os.path.join(data, FILE_NAME)
    text, table = _read(path, disk or Disk())
    found: dict[str, Any] = {}
    for key, value in table.items():
        try:
            found[key] = _parse(key, value)
        except ValueError as error:
            raise SettingsInvalid(path=path, key=key, reason=f"{error}{_line(text, key)}") from error
    if "name" not in found:
        raise SettingsInvalid(path=path, key="name", reason="it is missing; every site has a name")
    return Settings(
        name=found["name"],
        listen=found.get("listen", parse_address(DEFAULT_LISTEN)),
        nbd=found.get("nbd", parse_address(DEFAULT_NBD)),
        api=found.get("api", parse_address(DEFAULT_API)),
        store_dir=os.path.abspath(os.path.join(data, found.get("store_dir") or "stores")),
        store_limit_bytes=found.get("store_limit"),
        live_dir=found.get("live_dir") or default_live_dir(data, dict(os.environ) if environ is None else environ),
    )


def default_live_dir(data: str, environ: dict[str, str]) -> str:
    """Where live maps lie: /run/leeward, without root in the user's own runtime folder.

    Where there is none either, a folder in DATA: no tmpfs, so the maps are kept in memory only.
    """
    if os.geteuid() == 0:
        return "/run/leeward"
    runtime = environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "leeward") if runtime else os.path.join(os.path.abspath(data), "live")


def write_default(
    data: str,
    name: str,
    *,
    listen: str = DEFAULT_LISTEN,
    nbd: str = DEFAULT_NBD,
    api: str = DEFAULT_API,
    disk: Disk | None = None,
) -> Settings:
    """Write leeward.toml with every key explained, durably; returns what it says. Blocking.

    Raises SettingsInvalid (then nothing was written), FileExistsError.
    """
    disk = disk or Disk()
    path = os.path.join(data, FILE_NAME)
    given = {"name": name, "listen": listen, "nbd": nbd, "api": api}
    for key, value in given.items():
        try:
            _parse(key, value)
        except ValueError as error:
            raise SettingsInvalid(path=path, key=key, reason=str(error)) from error
    content = _TEMPLATE.format(**{key: _quoted(value) for key, value in given.items()})
    file = disk.open(path, create=True)
    try:
        file.write(content.encode(), 0)
        file.sync()
    finally:
        file.close()
    disk.sync_dir(data)
    return load(data, disk=disk)


def _read(path: str, disk: Disk) -> tuple[str, dict[str, Any]]:
    try:
        file = disk.open(path, write=False)
    except OSError as error:
        raise SettingsInvalid(path=path, key="file", reason=f"it cannot be read ({error.strerror})") from error
    try:
        text = file.read(file.size(), 0).decode()
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise SettingsInvalid(path=path, key="syntax", reason="it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(path=path, key="syntax", reason=str(error)) from error
    finally:
        file.close()


def _parse(key: str, value: object) -> object:
    """The value of one key as `Settings` has it. Raises ValueError with what is wrong in words."""
    parser = _KEYS.get(key)
    if parser is None:
        raise ValueError(f"there is no such setting; there are {', '.join(_KEYS)}")
    if key == "store_limit" and type(value) is int and value >= 0:
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text in quotes")
    return parser(value)


def _parse_name(text: str) -> str:
    if not text.strip() or len(text) > _LONGEST_NAME or not text.isprintable():
        raise ValueError(f"{text!r} is no name of 1 to {_LONGEST_NAME} printable characters")
    return text


def _parse_limit(text: str) -> int | None:
    return parse_size(text) if text else None


def _parse_live_dir(text: str) -> str:
    if text and not os.path.isabs(text):
        raise ValueError(f"{text!r} is not an absolute path")
    return text


_KEYS: dict[str, Callable[[str], object]] = {
    "name": _parse_name,
    "listen": parse_address,
    "nbd": parse_address,
    "api": parse_address,
    "store_dir": str,
    "store_limit": _parse_limit,
    "live_dir": _parse_live_dir,
}


def _line(text: str, key: str) -> str:
    """Where the key stands, for a person; empty where it is written in an unusual way."""
    wanted = re.compile(rf"\s*[\"'\[]?{re.escape(key)}\b")
    for number, line in enumerate(text.splitlines(), 1):
        if wanted.match(line):
            return f" (line {number})"
    return ""


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)


_TEMPLATE = """\
# Settings of this Leeward site. Read when the daemon starts: restart it after a change.
# A line that starts with "#" says nothing to Leeward; the values shown there are the defaults.

# The name of this site, as its peers and its status show it.
name = {name}

# HOST:PORT where peers connect. TLS with pinned certificates; must be reachable from the peer.
listen = {listen}

# HOST:PORT where hosts reach volumes and snapshots by NBD. NBD has no passwords: keep it on loopback or on a
# network where every host may write these volumes.
nbd = {nbd}

# HOST:PORT of the management API over TLS. The command line uses a socket in this directory instead.
api = {api}

# Where stores are made for groups of a peer whose volumes were not prepared here. A relative path counts from
# this directory.
# store_dir = "stores"

# The most bytes that such stores may have together: a number, or one with K, M, G or T (powers of 1024).
# Empty: no limit but the disk.
# store_limit = ""

# Where the maps of running volumes lie. A tmpfs, or they are kept in memory only and a killed daemon compares
# more blocks when it starts again. Empty: /run/leeward, without root $XDG_RUNTIME_DIR/leeward.
# live_dir = ""
"""
