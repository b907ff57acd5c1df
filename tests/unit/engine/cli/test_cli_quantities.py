"""Claims about sizes and durations as they are typed."""

from __future__ import annotations

import pytest

from engine.cli import quantities, words


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("4096", 4096), ("1K", 1024), ("512M", 512 << 20), ("10G", 10 << 30), ("64T", 64 << 40), ("007", 7)],
)
def test_a_size_is_a_whole_number_with_a_power_of_1024(text: str, count: int) -> None:
    assert quantities.size(text) == count


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400)])
def test_a_duration_is_a_whole_number_with_a_unit_of_time(text: str, seconds: int) -> None:
    assert quantities.duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0G",
        "G",
        "-1",
        "+1",
        "1.5G",
        "1e9",
        "10 G",
        " 10G",
        "10G\n",
        "10g",
        "10GB",
        "10KiB",
        "0x10",
        "1_000",
        "١٠",
        "10P",
        "9223372036854775808",
        "9999999999999T",
        "1" * 5000,
    ],
)
def test_no_other_size_is_taken(text: str) -> None:
    with pytest.raises(ValueError, match="such as 10G"):
        quantities.size(text)


@pytest.mark.parametrize("text", ["", "0", "0s", "m", "-5m", "5M", "5 m", "1h30m", "5min", "1.5h", "5w"])
def test_no_other_duration_is_taken(text: str) -> None:
    with pytest.raises(ValueError, match="such as 5m"):
        quantities.duration(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB"), (5 << 50, "5120.0 TiB")]
)
def test_a_size_is_shown_in_a_unit_that_leaves_a_whole_part(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.25, "0.2 s"),
        (59.9, "59.9 s"),
        (60, "1 min"),
        (303, "5 min 3 s"),
        (7260, "2 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_is_shown_in_at_most_two_units(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text
