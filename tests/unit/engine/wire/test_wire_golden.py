"""One golden frame for every message: what is on the wire stays what it was.

A frame that changes on purpose needs a new protocol version or a new field with a default. Then write the files anew,
from the project's root:

    python tests/unit/engine/wire/test_wire_golden.py

and look at the difference before committing it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.wire import messages as m
from engine.wire.codec import Decoder, encode

FRAMES = Path(__file__).parents[3] / "golden" / "frames"


def id_of(digit: int) -> bytes:
    return bytes([digit]) * 16


GROUP, SYNC, POINT, PARENT = id_of(1), id_of(2), id_of(3), id_of(4)
VOLUME, OTHER_VOLUME, GENERATION, SITE = id_of(5), id_of(6), id_of(7), id_of(8)
NOW_US = 1_795_521_600_000_000
PRESENCE = m.VolumePresence(VOLUME, bytes.fromhex("0000000001000000ffff0000"), bytes(range(24)))

SAMPLES: list[m.Message] = [
    m.Hello(1, (), ("plain", "lz4", "zstd"), SITE, "berlin", id_of(9), 3, "SHA256:" + "ab" * 32, "leeward 0.1.0"),
    m.Refused(None, None, "unknown_peer", "Site paris is no peer here.", "Add it.", {"site": "paris", "limit": 4}),
    m.Ping(7),
    m.Pong(7),
    m.Pair(1, id_of(12), id_of(13), "west", "west.example:7450", bytes(range(32))),
    m.Paired(id_of(12), SITE, "berlin", bytes(range(32, 64))),
    m.GroupOffer(GROUP, "mail", 1, 24, 300, (m.VolumeOffer(VOLUME, "disk", 10 << 30, (1 << 64) - 1),)),
    m.GroupAccepted(GROUP, (VOLUME, OTHER_VOLUME)),
    m.GroupWithdrawn(GROUP),
    m.Lineage(GROUP, "protected", 1, PARENT, 11, POINT, True, None, 5120, GENERATION, True, False, 5000, 120, 77),
    m.AskChanged(GROUP, 0, 4096),
    m.Changed(GROUP, 0, bytes.fromhex("0500000007000000"), bytes(range(256)), 9),
    m.AskYield(GROUP, "restore", "0123456789abcdef", True),
    m.Yielded(GROUP, "set-aside-1", 5),
    m.AskHashes(GROUP, POINT, 0, 16384, 1000, 256, bytes(range(32)), True),
    m.Hashes(GROUP, POINT, bytes(range(64))),
    m.Begin(
        GROUP, SYNC, POINT, 12, PARENT, "delta", NOW_US, GENERATION, (m.VolumePlan(VOLUME, 10 << 30, 5120, id_of(10)),)
    ),
    m.Resume(GROUP, SYNC, 32 << 20, (PRESENCE,), (m.VolumePresence(OTHER_VOLUME, b"", b""),)),
    m.Data(SYNC, 0, "zstd", 152, ((1000, 8192), (4096, 4096))),
    m.Grant(SYNC, (4 << 20) + (32 << 10)),
    m.Landed(SYNC, 0, 17),
    m.Retry(SYNC, 0, bytes.fromhex("05000000")),
    m.Flush(SYNC),
    m.Flushed(SYNC),
    m.Seal(SYNC, NOW_US, (m.VolumeSeal(VOLUME, 5120, id_of(11)),)),
    m.Sealed(GROUP, SYNC, POINT, NOW_US + 1),
    m.Abort(SYNC, "capture_failed", "There was no space for the capture."),
    m.Equal(GROUP, POINT, NOW_US),
    m.EqualNoted(GROUP),
]


def payload_of(message: m.Message) -> bytes:
    """The payload that the golden DATA carries: a head and two pieces, as far as the codec looks at them."""
    if not isinstance(message, m.Data):
        return b""
    return bytes(i & 0xFF for i in range(message.head_bytes + sum(stored for stored, _ in message.pieces)))


def frame_of(message: m.Message) -> bytes:
    payload = payload_of(message)
    return encode(message, len(payload)) + payload


def file_of(message: m.Message) -> Path:
    return FRAMES / f"{m.NUMBERS[type(message)]:02d}-{type(message).__name__}.bin"


def test_every_message_has_a_golden_frame() -> None:
    assert {type(sample) for sample in SAMPLES} == set(m.NUMBERS)
    assert {path.name for path in FRAMES.iterdir()} == {file_of(sample).name for sample in SAMPLES}


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_is_written_as_its_golden_frame(message: m.Message) -> None:
    assert frame_of(message) == file_of(message).read_bytes(), __doc__


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_golden_frame_is_read_as_its_message(message: m.Message) -> None:
    payload = bytearray(len(payload_of(message)))
    decoder = Decoder(lambda data, length: [memoryview(payload)])
    decoder.greeted = True
    assert list(decoder.feed(file_of(message).read_bytes())) == [message]
    assert bytes(payload) == payload_of(message)
    assert decoder.is_between_frames


if __name__ == "__main__":
    FRAMES.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        file_of(sample).write_bytes(frame_of(sample))
        sys.stdout.write(f"{file_of(sample)}\n")
