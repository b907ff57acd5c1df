"""The root of every error of the product, and the failures of storage on one host.

The class is the catalogue entry: code, meaning, remedy and exit status stand on it, the facts of one
occurrence are its fields. Raise where it is known, translate once at an edge, never parse a message.
This module must never import anything outside the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_REFUSED = 4

CATALOGUE: dict[str, type[LeewardError]] = {}
"""Every error class of the product by its code."""


class LeewardError(Exception):
    """A failure with a catalogue entry. Subclasses are dataclasses whose fields fill `meaning`."""

    code: ClassVar[str] = "internal"
    meaning: ClassVar[str] = "Something failed inside Leeward."
    remedy: ClassVar[str] = "Report it with what `leeward events` and the daemon's log say."
    exit_status: ClassVar[int] = EXIT_FAILED

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            other = CATALOGUE.get(cls.code)
            # dataclass(slots=True) builds a class twice; the same qualified name is the same entry.
            assert other is None or other.__qualname__ == cls.__qualname__, f"two errors with code {cls.code}"
            CATALOGUE[cls.code] = cls

    @property
    def message(self) -> str:
        """One line for a person, made of the meaning and the facts."""
        return self.meaning.format(**self.details())

    @property
    def advice(self) -> str:
        """One line that says what to do: the remedy with the facts filled in."""
        return self.remedy.format(**self.details())

    def details(self) -> dict[str, Any]:
        """The facts of this occurrence by field name; every value is JSON-ready (str, int, float, bool, None)."""
        names: list[str] = [field.name for field in fields(self)] if is_dataclass(self) else []
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return self.message


@dataclass(eq=False)
class StoreMissing(LeewardError):
    path: str
    code: ClassVar[str] = "store_missing"
    meaning: ClassVar[str] = "The store {path} does not exist."
    remedy: ClassVar[str] = "Check the path, or give --size to make a new file there."
    exit_status: ClassVar[int] = EXIT_FAILED


@dataclass(eq=False)
class StoreKindRefused(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "store_kind_refused"
    meaning: ClassVar[str] = "{path} cannot be used as a store: {reason}."
    remedy: ClassVar[str] = "Use a regular file on a local file system, or a block device."


@dataclass(eq=False)
class StoreExists(LeewardError):
    path: str
    code: ClassVar[str] = "store_exists"
    meaning: ClassVar[str] = "A store cannot be made at {path}: something is there already."
    remedy: ClassVar[str] = "Leave --size out to use what is there, or give another path."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class StoreNotAllowed(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "store_not_allowed"
    meaning: ClassVar[str] = "The store {path} cannot be opened for reading and writing: {reason}."
    remedy: ClassVar[str] = "Give the daemon's user read and write access to it."


@dataclass(eq=False)
class StoreInUse(LeewardError):
    path: str
    holder: str
    code: ClassVar[str] = "store_in_use"
    meaning: ClassVar[str] = "The store {path} is in use by {holder}."
    remedy: ClassVar[str] = "Stop what uses it (unmount it, shut the virtual machine down), then try again."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class StoreTooSmall(LeewardError):
    path: str
    size_bytes: int
    needed_bytes: int
    code: ClassVar[str] = "store_too_small"
    meaning: ClassVar[str] = "The store {path} has {size_bytes} bytes; {needed_bytes} are needed."
    remedy: ClassVar[str] = "Use a larger store, or a smaller --size."


@dataclass(eq=False)
class StoreSizeChanged(LeewardError):
    path: str
    size_bytes: int
    expected_bytes: int
    code: ClassVar[str] = "store_size_changed"
    meaning: ClassVar[str] = "The store {path} has {size_bytes} bytes; the volume was made with {expected_bytes}."
    remedy: ClassVar[str] = "Put the original store back, then run `leeward volume reopen`."


@dataclass(eq=False)
class StoreFlushFailed(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "store_flush_failed"
    meaning: ClassVar[str] = "A flush of {path} failed ({reason}): what it should have made durable is uncertain."
    remedy: ClassVar[str] = "Repair the disk, then run `leeward volume reopen`, which compares the whole volume."


@dataclass(eq=False)
class TrackingFailed(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "tracking_failed"
    meaning: ClassVar[str] = "Change tracking in {path} could not be made durable ({reason}); the volume is stopped."
    remedy: ClassVar[str] = "Repair the disk under the data directory, then run `leeward volume reopen`."


@dataclass(eq=False)
class TrackingLost(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "tracking_lost"
    meaning: ClassVar[str] = "The record of changes in {path} is unusable ({reason}): every block counts as changed."
    remedy: ClassVar[str] = "Nothing: the next sync compares the whole volume by hash and sends what differs."


@dataclass(eq=False)
class VolumeFailed(LeewardError):
    volume: str
    reason: str
    code: ClassVar[str] = "volume_failed"
    meaning: ClassVar[str] = "Volume {volume} is failed: {reason}."
    remedy: ClassVar[str] = "Repair what the reason names, then run `leeward volume reopen {volume}`."


@dataclass(eq=False)
class WriteRefused(LeewardError):
    volume: str
    reason: str
    code: ClassVar[str] = "write_refused"
    meaning: ClassVar[str] = "A write to {volume} was refused: {reason}."
    remedy: ClassVar[str] = "Write at the protected site, or promote this one first."
    exit_status: ClassVar[int] = EXIT_REFUSED


@dataclass(eq=False)
class CaptureFailed(LeewardError):
    reason: str
    code: ClassVar[str] = "capture_failed"
    meaning: ClassVar[str] = "The capture could not keep its frozen image: {reason}."
    remedy: ClassVar[str] = "Free space in the data directory; the next sync makes a new capture."


@dataclass(eq=False)
class LayerSpace(LeewardError):
    path: str
    code: ClassVar[str] = "layer_space"
    meaning: ClassVar[str] = "There is no space left to stage changes in {path}."
    remedy: ClassVar[str] = "Free space in the data directory; the sync resumes from what has landed."


@dataclass(eq=False)
class LayerDamaged(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "layer_damaged"
    meaning: ClassVar[str] = "The layer {path} is damaged: {reason}."
    remedy: ClassVar[str] = (
        "Points that need it cannot be promoted: repair the disk, `leeward group remove` it on both sites, create it "
        "again and sync."
    )


@dataclass(eq=False)
class LayerFailed(LeewardError):
    path: str
    reason: str
    code: ClassVar[str] = "layer_failed"
    meaning: ClassVar[str] = "Writing the layer {path} failed: {reason}."
    remedy: ClassVar[str] = "Repair the disk under the data directory, then sync again."


@dataclass(eq=False)
class BlockMismatch(LeewardError):
    first: int
    blocks: int
    code: ClassVar[str] = "block_mismatch"
    meaning: ClassVar[str] = "{blocks} blocks from block {first} on did not match the hashes that came with them."
    remedy: ClassVar[str] = "They are asked for again; if it goes on, test the memory and the network of both hosts."


@dataclass(eq=False)
class FrameDamaged(LeewardError):
    reason: str
    code: ClassVar[str] = "frame_damaged"
    meaning: ClassVar[str] = "A frame of blocks is not valid: {reason}."
    remedy: ClassVar[str] = "The link is made anew; if it goes on, test the memory and the network of both hosts."
