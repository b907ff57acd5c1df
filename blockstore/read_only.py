"""ReadOnly: block I/O over an image that nobody may change, for what is shown but not used.

Whoever presents it also says that it is read only, so that hosts are told before they try. This module must never
let a byte through the other way.
"""

from __future__ import annotations

import errno
from typing import NoReturn

from blockstore.image import Image
from blockstore.layer import Allocation, Layer
from blockstore.steps import Step, Wait


class ReadOnly:
    """As `BlockIO`; every change is refused with EROFS."""

    def __init__(self, image: Image) -> None:
        self.size_bytes = image.size_bytes
        self._image = image

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the image, which must stay open."""
        return self._image.layers

    def read_into(self, offset: int, buffer: memoryview) -> Wait | None:
        """As BlockIO.read_into."""
        return self._image.read_into(offset, buffer)

    def allocated(self, offset: int, length: int) -> Step[Allocation]:
        """As BlockIO.allocated."""
        return self._image.allocated(offset, length)

    def flush(self) -> Wait | None:
        """There is nothing to flush."""
        return None

    def write(self, offset: int, data: memoryview, durable: bool) -> NoReturn:
        """Raises OSError EROFS."""
        _refuse()

    def zero(self, offset: int, length: int, durable: bool, may_punch: bool) -> NoReturn:
        """Raises OSError EROFS."""
        _refuse()

    def discard(self, offset: int, length: int, durable: bool) -> NoReturn:
        """Raises OSError EROFS."""
        _refuse()


def _refuse() -> NoReturn:
    raise OSError(errno.EROFS, "this image can only be read")
