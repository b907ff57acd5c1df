"""What must be true, in plain dictionaries: what hosts wrote where and when, and so what every image must show.

A block's content is a number that no other write has, or eight of them where sectors of two writes are mixed; what a
crash leaves open is a set of contents, until somebody looks. The model knows points by the instant that the product
says it captured them at, and works out from the writes what they hold; it never asks the product for an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from blockstore.units import BLOCKS_PER_REGION

SECTORS = 8
TAIL = BLOCKS_PER_REGION + 8
"""The last block of each volume, of one sector."""
Content = tuple[int, ...]
"""The number in each of a block's sectors."""
Key = tuple[int, int]
"""(volume, block)."""
Image = dict[Key, frozenset[Content]]
"""What each block may hold; one that is not named holds zeros."""

ZEROS: Content = (0,) * SECTORS
NOTHING = frozenset({ZEROS})


class Violation(AssertionError):
    """The product broke a promise."""


def content_of(key: Key, number: int) -> Content:
    """What a block holds that was written whole; of the volume's last block only one sector is there."""
    return (number,) + (0,) * (SECTORS - 1) if key[1] == TAIL else (number,) * SECTORS


def fits(found: Content, allowed: frozenset[Content]) -> bool:
    """Whether each sector is of one of the allowed contents."""
    return found in allowed or all(
        any(found[sector] == content[sector] for content in allowed) for sector in range(SECTORS)
    )


@dataclass(eq=False)
class Write:
    """One block that a host wrote, or that a crash left as one of `contents`: when it began and when it was done."""

    contents: frozenset[Content]
    began: int
    ended: int | None = None
    """None: it was not answered, or not yet."""
    is_over: bool = False
    """Answered, failed or cut off: nothing of it happens any more."""
    is_crash: bool = False
    is_durable: bool = False
    """No power cut takes it back."""


@dataclass
class Surface:
    """What hosts see at one place, over time. Times are microseconds that never come twice."""

    base: Image = field(default_factory=dict)
    writes: dict[Key, list[Write]] = field(default_factory=dict)
    flushed_at: int = 0
    """Writes answered before this are durable."""
    since: int = 0
    """When it began to show `base`."""

    def begin(self, key: Key, number: int, now: int) -> Write:
        write = Write(frozenset({content_of(key, number)}), now)
        self.writes.setdefault(key, []).append(write)
        return write

    def is_writing(self, key: Key) -> bool:
        return any(not write.is_over for write in self.writes.get(key, ())[-1:])

    def answered(self) -> int:
        """How many writes were answered since it shows this base."""
        return sum(
            write.ended is not None and not write.is_crash for writes in self.writes.values() for write in writes
        )

    def at(self, key: Key, when: int) -> frozenset[Content]:
        """What the block may hold at that moment."""
        return self._allowed(key, when, when)

    def durable(self, key: Key, now: int) -> frozenset[Content]:
        """What the block may hold after a power cut."""
        return self._allowed(key, now, self.flushed_at)

    def _allowed(self, key: Key, when: int, settled: int) -> frozenset[Content]:
        allowed = self.base.get(key, NOTHING)
        for write in self.writes.get(key, ()):
            if write.began > when:
                break
            if write.is_durable or (write.ended is not None and write.ended < settled):
                allowed = write.contents
            else:
                allowed = allowed | write.contents
        return allowed

    def image_at(self, when: int) -> Image:
        return {key: self.at(key, when) for key in {*self.base, *self.writes}}

    def crash(self, now: int, *, power: bool) -> None:
        """What was under way is over, each block is one of what it may have been, and nobody has looked yet."""
        for writes in self.writes.values():
            for write in writes:
                write.is_over = True
        for key, writes in self.writes.items():
            left = self.durable(key, now) if power else self.at(key, now)
            writes.append(Write(left, now, now, is_over=True, is_crash=True, is_durable=power))

    def observed(self, key: Key, content: Content) -> None:
        """Somebody looked after a crash."""
        for write in self.writes.get(key, ())[-1:]:
            if write.is_crash:
                write.contents = frozenset({content})

    def rebase(self, image: Image, now: int) -> None:
        """It shows another image from now on."""
        self.base, self.writes, self.flushed_at, self.since = dict(image), {}, now, now


def check_image(what: str, image: Image, keys: Iterable[Key], read: Callable[[Key], Content]) -> None:
    """Raises Violation where a block holds what it must not."""
    for key in keys:
        found, allowed = read(key), image.get(key, NOTHING)
        if not fits(found, allowed):
            raise Violation(f"{what}: volume {key[0]} block {key[1]} holds {found}, not {sorted(allowed)}")
