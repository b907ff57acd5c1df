"""leeward.toml: what is written is what is read; anything that cannot be meant is refused with file, key and line."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from engine import settings
from engine.errors import EXIT_USAGE, SettingsInvalid
from engine.settings import Address, Settings


def load(folder: Path, text: str | bytes) -> Settings:
    (folder / "leeward.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return settings.load(str(folder), {"XDG_RUNTIME_DIR": "/run/user/7"})


def refusal(folder: Path, text: str | bytes) -> SettingsInvalid:
    with pytest.raises(SettingsInvalid) as caught:
        load(folder, text)
    assert caught.value.path == str(folder / "leeward.toml")
    assert caught.value.path in caught.value.message
    assert caught.value.exit_status == EXIT_USAGE
    return caught.value


def test_a_name_is_enough_and_the_rest_has_defaults(tmp_path: Path) -> None:
    found = load(tmp_path, 'name = "north"\n')
    assert found == Settings(
        name="north",
        listen=Address("0.0.0.0", 7450),
        nbd=Address("127.0.0.1", 10809),
        api=Address("127.0.0.1", 8443),
        store_dir=str(tmp_path / "stores"),
        store_limit_bytes=None,
        live_dir=found.live_dir,
    )


def test_the_written_file_says_what_was_given_and_explains_every_key(tmp_path: Path) -> None:
    written = settings.write_default(str(tmp_path), "north", listen="[::1]:0", nbd="host-a:1", api="127.0.0.1:65535")
    assert written == settings.load(str(tmp_path))
    assert (written.listen, written.nbd, written.api) == (
        Address("::1", 0),
        Address("host-a", 1),
        Address("127.0.0.1", 65535),
    )
    text = (tmp_path / "leeward.toml").read_text()
    lines = text.splitlines()
    for key in settings._KEYS:
        at = next(n for n, line in enumerate(lines) if re.match(rf"(# )?{key} = ", line))
        assert lines[at - 1].startswith("# "), f"{key} is not explained"


def test_the_defaults_shown_in_comments_are_the_defaults(tmp_path: Path) -> None:
    settings.write_default(str(tmp_path), "north")
    as_written = settings.load(str(tmp_path))
    text = (tmp_path / "leeward.toml").read_text()
    (tmp_path / "leeward.toml").write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert tomllib.loads((tmp_path / "leeward.toml").read_text()).keys() == settings._KEYS.keys()
    assert settings.load(str(tmp_path)) == as_written


def test_nobody_else_may_read_the_written_file(tmp_path: Path) -> None:
    settings.write_default(str(tmp_path), "north")
    assert os.stat(tmp_path / "leeward.toml").st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "ünïcode 北", "#", "a=b", "{name}", "'"])
def test_unusual_names_come_back_as_they_were_given(tmp_path: Path, name: str) -> None:
    settings.write_default(str(tmp_path), name)
    assert settings.load(str(tmp_path)).name == name


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"listen": "nowhere"}, "listen"),
        ({"nbd": "127.0.0.1:65536"}, "nbd"),
        ({"api": ":1"}, "api"),
    ],
)
def test_nothing_is_written_when_a_given_value_is_bad(tmp_path: Path, given: dict[str, str], key: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        settings.write_default(str(tmp_path), **{"name": "north", **given})
    assert caught.value.key == key
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "leeward.toml").write_text("mine")
    with pytest.raises(FileExistsError):
        settings.write_default(str(tmp_path), "north")
    assert (tmp_path / "leeward.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:10809", Address("127.0.0.1", 10809)),
        ("localhost:0", Address("localhost", 0)),
        ("[fe80::1%eth0]:7450", Address("fe80::1%eth0", 7450)),
    ],
)
def test_addresses_are_a_host_and_a_port(text: str, address: Address) -> None:
    assert settings.parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:", ":1", "[]:1", "::1:7450", "h:65536", "h:-1", "h:٣", "h h:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        settings.parse_address(text)


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("512", 512), ("3K", 3072), ("10G", 10 << 30), ("2T", 2 << 40)])
def test_sizes_count_in_powers_of_1024(tmp_path: Path, text: str, size: int) -> None:
    assert load(tmp_path, f'name = "n"\nstore_limit = "{text}"\n').store_limit_bytes == size


def test_a_limit_may_be_a_plain_number_or_empty(tmp_path: Path) -> None:
    assert load(tmp_path, 'name = "n"\nstore_limit = 4096\n').store_limit_bytes == 4096
    assert load(tmp_path, 'name = "n"\nstore_limit = ""\n').store_limit_bytes is None


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('lisen = "h:1"', "lisen"),
        ('listen = "h"', "listen"),
        ("nbd = 10809", "nbd"),
        ('store_limit = "10 GB"', "store_limit"),
        ("store_limit = -1", "store_limit"),
        ("store_limit = true", "store_limit"),
        ('live_dir = "run/leeward"', "live_dir"),
        ("store_dir = []", "store_dir"),
        ('[tls]\nkey = "x"', "tls"),
    ],
)
def test_a_bad_key_is_named_with_its_line(tmp_path: Path, line: str, key: str) -> None:
    error = refusal(tmp_path, f'# a comment\nname = "north"\n\n{line}\n')
    assert error.key == key
    assert "(line 4)" in error.message
    assert key in error.message


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, 'nbd = "h:1"\n').key == "name"


@pytest.mark.parametrize("text", ['name = "north', "name\n", b'name = "\xff"', 'name = "a"\nname = "b"\n'])
def test_what_is_no_toml_is_refused(tmp_path: Path, text: str | bytes) -> None:
    assert refusal(tmp_path, text).key == "syntax"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        settings.load(str(tmp_path))


def test_relative_folders_count_from_the_data_directory(tmp_path: Path) -> None:
    assert load(tmp_path, 'name = "n"\nstore_dir = "../s"\n').store_dir == str(tmp_path.parent / "s")
    assert load(tmp_path, 'name = "n"\nstore_dir = "/s"\n').store_dir == "/s"


def test_live_maps_lie_where_the_user_may_keep_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path, 'name = "n"\nlive_dir = "/dev/shm/lw"\n').live_dir == "/dev/shm/lw"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert settings.default_live_dir("/d", {"XDG_RUNTIME_DIR": "/run/user/7"}) == "/run/leeward"
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert settings.default_live_dir("/d", {"XDG_RUNTIME_DIR": "/run/user/7"}) == "/run/user/7/leeward"
    assert settings.default_live_dir("/d", {}) == "/d/live"
