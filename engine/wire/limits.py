"""Every size that a peer may send. Checked before a byte is allocated or awaited.

Sizes are bytes unless a name says otherwise. Nothing else may bound what arrives on a link: the decoder
refuses what is above these numbers, whoever sent it. This module must never import anything but units.
"""

from __future__ import annotations

from blockstore.units import BLOCK, BLOCKS_PER_REGION

PREFIX_BYTES = 32
"""The fixed part in front of every frame."""

HELLO_HEADER_BYTES = 4096
"""Header of anything that a peer sends before both HELLOs agreed: it may be a stranger."""

HEADER_BYTES = 256 * 1024
"""Header of an ordinary message of a known peer."""

PRESENCE_HEADER_BYTES = 1024 * 1024
"""Header of RESUME and RETRY, which name regions. Not more: msgpack makes up to 64 bytes of one hostile byte."""

PRESENCE_REGIONS = 64 * 1024
"""Regions that one RESUME or RETRY names, all volumes and both lists together, at 4 or 12 bytes each: 256 GiB."""

PRESENCE_REGIONS_JOINED = 16 * 1024 * 1024
"""Regions that a row of RESUMEs names before it ends: 64 TiB, 192 MiB of lists."""

DATA_HEADER_BYTES = 4096
"""Header of DATA: two ids, a codec and the lengths of its pieces."""

FRAME_HEAD_BYTES = 28 * 1024
"""The head of a frame of blocks, unpadded as it travels (docs/formats.md)."""

FRAME_HEAD_LEAST_BYTES = 128
"""The fixed part of such a head."""

BLOCKS_BYTES = BLOCKS_PER_REGION * BLOCK
"""The blocks of one DATA frame, unpacked: 4 MiB."""

PIECE_BYTES = 1024 * 1024
"""Input of one compressed piece."""

PIECES = 64
"""Compressed pieces of one DATA frame."""

PAYLOAD_BYTES = FRAME_HEAD_BYTES + BLOCKS_BYTES
"""The payload of one DATA frame, whatever its codec: a compressed piece is never longer than its input."""

CHANGED_REGIONS = 1024
"""Regions of one CHANGED, at 4 bytes and 128 bytes of bits each."""

HASHED_BLOCKS = 16 * 1024
"""Blocks of one ASK_HASHES: 64 MiB, read in one go."""

HASHES = 1024
"""Digests of one HASHES, 16 bytes each."""

VOLUMES = 256
"""Volumes of one group."""

NAME_CHARS = 255
"""A name of a site, group or volume. What names may look like is said where they are given."""

TEXT_CHARS = 2000
"""A message, a remedy or a reason meant for a person."""

CODE_CHARS = 64
"""An error code, a feature or a codec name."""

WORDS = 64
"""Features or codecs in one HELLO; facts in one REFUSED."""

WINDOW_BYTES = 1 << 30
"""The largest window that a receiver may open at once."""

CONTAINER_ITEMS = 4096
"""Items of any one msgpack array or map in a header."""
