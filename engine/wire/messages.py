"""The messages of a link: one frozen struct each, as its header stands on the wire.

A header is a msgpack map whose keys are the field names below; docs/protocol.md describes every byte.
Ids are 16 bytes. Fields ending in `_us` are microseconds since 1970 UTC, `_bytes` are bytes, `blocks` are
blocks of 4 KiB. A later version may add fields with defaults and never renames or reorders any.
This module must never do anything with a message; what one means is told in `operations` and `transfer`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from engine.wire import limits

Id: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Digest: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
Proof: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS)]
Text: TypeAlias = Annotated[str, Meta(max_length=limits.TEXT_CHARS)]
Code: TypeAlias = Annotated[str, Meta(min_length=1, max_length=limits.CODE_CHARS)]
Words: TypeAlias = Annotated[tuple[Code, ...], Meta(max_length=limits.WORDS)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Number: TypeAlias = Annotated[int, Meta(ge=0)]
"""An unsigned integer of 64 bits."""
Index: TypeAlias = Annotated[int, Meta(ge=0, lt=limits.VOLUMES)]
Window: TypeAlias = Annotated[int, Meta(ge=0, le=limits.WINDOW_BYTES)]
RoleName: TypeAlias = Annotated[str, Meta(pattern="^(protected|demoted|recovery)$")]
Mode: TypeAlias = Literal["seed", "seed_delta", "delta"]
Codec: TypeAlias = Literal["plain", "lz4", "zstd"]
Packed32: TypeAlias = Annotated[bytes, Meta(max_length=4 * limits.PRESENCE_REGIONS)]
Packed64: TypeAlias = Annotated[bytes, Meta(max_length=8 * limits.PRESENCE_REGIONS)]


class Hello(Struct, frozen=True):
    """The first message of either side: who, and what it can do.

    `session` is new for every start of a daemon; `number` counts the HELLOs of that session, so that of two
    crossing connections both sides know the older. `fingerprint` is that of the sender's certificate: checked
    against TLS, and all there is on a plain link.
    """

    version: Annotated[int, Meta(ge=1, le=0xFFFF)]
    features: Words
    codecs: Words
    site_id: Id
    site_name: Name
    session: Id
    number: Count
    fingerprint: Annotated[str, Meta(max_length=limits.CODE_CHARS + 16)]
    software: Annotated[str, Meta(max_length=limits.CODE_CHARS)]


class Ping(Struct, frozen=True):
    """Answered with a PONG of the same number."""

    number: Number


class Pong(Struct, frozen=True):
    number: Number


class Refused(Struct, frozen=True):
    """No, with a catalogue code. Without `group` and `sync` it is about the link, which the sender then closes."""

    group: Id | None
    sync: Id | None
    code: Code
    message: Text
    remedy: Text
    details: Annotated[dict[Code, Text | int | float | bool | None], Meta(max_length=limits.WORDS)]


class Pair(Struct, frozen=True):
    """A stranger was invited (wire/invitation.py): the first and only message of its connection, over TLS.

    `address` is where its daemon is to be dialled; `proof` that of the joiner, for the certificates of both ends.
    """

    version: Annotated[int, Meta(ge=1, le=0xFFFF)]
    invitation: Id
    site_id: Id
    site_name: Name
    address: Name
    proof: Proof


class Paired(Struct, frozen=True):
    """The inviting site knows the other one from now on, durably. `proof` is that of the inviter."""

    invitation: Id
    site_id: Id
    site_name: Name
    proof: Proof


class VolumeOffer(Struct, frozen=True):
    """`seed`: the secret seed of the volume's block hashes; it never leaves the two sites."""

    id: Id
    name: Name
    size_bytes: Count
    seed: Number


class GroupOffer(Struct, frozen=True, omit_defaults=True):
    """The protected side made a group; the peer makes it too. `retain`: a schedule beside `keep`, absent if none."""

    group: Id
    name: Name
    term: Count
    keep: Count
    rpo_s: Count | None
    volumes: Annotated[tuple[VolumeOffer, ...], Meta(min_length=1, max_length=limits.VOLUMES)]
    retain: Text = ""


class GroupAccepted(Struct, frozen=True):
    group: Id
    volumes: Annotated[tuple[Id, ...], Meta(max_length=limits.VOLUMES)]


class GroupWithdrawn(Struct, frozen=True):
    group: Id


class Lineage(Struct, frozen=True):
    """How a group stands at the sender (lineage.md section 2). `reply`: it answers one; else it asks for one."""

    group: Id
    role: RoleName
    term: Count
    common: Id | None
    common_sequence: Count
    pending: Id | None
    resumable: bool
    incoming: Id | None
    changed_blocks: Count
    generation: Id | None
    seeded: bool
    reply: bool
    written: Count = 0
    rolled: Count = 0
    writes: Count = 0


class AskChanged(Struct, frozen=True):
    """Which blocks of this volume did the recovery side change since the common point? From `region` on."""

    group: Id
    volume_index: Index
    region: Number


class Changed(Struct, frozen=True):
    """Answers ASK_CHANGED: regions (u32 LE each, ascending), 128 bytes of bits for each, and where to ask on."""

    group: Id
    volume_index: Index
    regions: Annotated[bytes, Meta(max_length=4 * limits.CHANGED_REGIONS)]
    bits: Annotated[bytes, Meta(max_length=128 * limits.CHANGED_REGIONS)]
    next_region: Number | None


class AskYield(Struct, frozen=True):
    """Give way: become recovery, if nothing was written there.

    What was is set aside by the decision `token`, or whatever it is by then if the operator has said so (`confirmed`).
    """

    group: Id
    operation: Literal["reverse", "restore"]
    token: Code | None
    confirmed: bool = False


class Yielded(Struct, frozen=True):
    """It has. `set_aside` names what it keeps aside: `blocks`."""

    group: Id
    set_aside: Name | None
    blocks: Count


class AskHashes(Struct, frozen=True):
    """Digests of `count` blocks from `first` of the receiver's image of `point`, one for every `chunk` blocks."""

    group: Id
    point: Id
    volume_index: Index
    first: Number
    count: Annotated[int, Meta(ge=1, le=limits.HASHED_BLOCKS)]
    chunk: Annotated[int, Meta(ge=1, le=256)]
    key: Proof
    strong: bool


class Hashes(Struct, frozen=True):
    """Answers ASK_HASHES: 16 bytes each; none where the newest point is `point` and not the one asked for."""

    group: Id
    point: Id
    digests: Annotated[bytes, Meta(max_length=16 * limits.HASHES)]


class VolumePlan(Struct, frozen=True):
    volume: Id
    size_bytes: Count
    blocks: Count
    plan_digest: Digest


class Begin(Struct, frozen=True):
    """A sync begins, or goes on after a break. `volumes` in the group's order: DATA names them by index."""

    group: Id
    sync: Id
    point: Id
    sequence: Count
    builds_on: Id | None
    mode: Mode
    captured_us: Count
    generation: Id | None
    volumes: Annotated[tuple[VolumePlan, ...], Meta(min_length=1, max_length=limits.VOLUMES)]


class VolumePresence(Struct, frozen=True):
    """`regions`: u32 LE each, ascending. `digests`: as many u64 LE, or empty."""

    volume: Id
    regions: Packed32
    digests: Packed64


class Resume(Struct, frozen=True):
    """What of a sync has landed, and what of older syncs may be reused. `more`: another RESUME continues the lists."""

    group: Id
    sync: Id
    window_bytes: Window
    volumes: Annotated[tuple[VolumePresence, ...], Meta(max_length=limits.VOLUMES)]
    reusable: Annotated[tuple[VolumePresence, ...], Meta(max_length=limits.VOLUMES)]
    more: bool = False


class Data(Struct, frozen=True):
    """A frame of blocks travels in the payload: its head (`head_bytes`, never packed), then the blocks.

    `pieces` is empty for `plain`; else (stored, plain) bytes of each piece. A piece with both equal is stored as is.
    """

    sync: Id
    volume_index: Index
    codec: Codec
    head_bytes: Annotated[int, Meta(ge=limits.FRAME_HEAD_LEAST_BYTES, le=limits.FRAME_HEAD_BYTES)]
    pieces: Annotated[tuple[tuple[int, int], ...], Meta(max_length=limits.PIECES)] = ()


class Grant(Struct, frozen=True):
    """That many bytes of window are given back."""

    sync: Id
    bytes: Window


class Landed(Struct, frozen=True):
    """The first `frames` DATA frames of this volume in this session are durable."""

    sync: Id
    volume_index: Index
    frames: Count


class Retry(Struct, frozen=True):
    """Blocks of these regions (u32 LE each) did not match their hashes: send the regions again."""

    sync: Id
    volume_index: Index
    regions: Packed32


class Flush(Struct, frozen=True):
    """The seed pass ended: make all of it durable, then answer FLUSHED."""

    sync: Id


class Flushed(Struct, frozen=True):
    sync: Id


class VolumeSeal(Struct, frozen=True):
    volume: Id
    blocks: Count
    digest: Digest


class Seal(Struct, frozen=True):
    """Everything was sent: compare totals and digests, then seal all volumes in one transaction."""

    sync: Id
    captured_us: Count
    volumes: Annotated[tuple[VolumeSeal, ...], Meta(min_length=1, max_length=limits.VOLUMES)]


class Sealed(Struct, frozen=True):
    group: Id
    sync: Id
    point: Id
    sealed_us: Count


class Abort(Struct, frozen=True):
    """The sender gives this sync up."""

    sync: Id
    code: Code
    message: Text


class Equal(Struct, frozen=True):
    """Nothing changed: the image still equals `point` as of this time."""

    group: Id
    point: Id
    as_of_us: Count


class EqualNoted(Struct, frozen=True):
    group: Id


Message: TypeAlias = (
    Hello
    | Ping
    | Pong
    | Refused
    | Pair
    | Paired
    | GroupOffer
    | GroupAccepted
    | GroupWithdrawn
    | Lineage
    | AskChanged
    | Changed
    | AskYield
    | Yielded
    | AskHashes
    | Hashes
    | Begin
    | Resume
    | Data
    | Grant
    | Landed
    | Retry
    | Flush
    | Flushed
    | Seal
    | Sealed
    | Abort
    | Equal
    | EqualNoted
)

TYPES: Final[dict[int, type[Struct]]] = {
    1: Hello,
    2: Refused,
    3: Ping,
    4: Pong,
    5: Pair,
    6: Paired,
    16: GroupOffer,
    17: GroupAccepted,
    18: GroupWithdrawn,
    19: Lineage,
    20: AskChanged,
    21: Changed,
    22: AskYield,
    23: Yielded,
    24: AskHashes,
    25: Hashes,
    32: Begin,
    33: Resume,
    34: Data,
    35: Grant,
    36: Landed,
    37: Retry,
    38: Flush,
    39: Flushed,
    40: Seal,
    41: Sealed,
    42: Abort,
    48: Equal,
    49: EqualNoted,
}
"""Message class by the type number in a frame's prefix. Numbers are never used twice."""

NUMBERS: Final[dict[type[Struct], int]] = {kind: number for number, kind in TYPES.items()}
