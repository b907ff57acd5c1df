"""A peer's names become paths and exports here: they are checked before anything is looked up or made."""

from __future__ import annotations

from typing import Any, cast

import pytest

from engine.errors import BadValue
from engine.operations.announce import make_offered
from engine.wire.messages import GroupOffer, VolumeOffer


def offer(group: str, volume: str) -> GroupOffer:
    volumes = (VolumeOffer(id=b"v" * 16, name=volume, size_bytes=4096, seed=1),)
    return GroupOffer(group=b"g" * 16, name=group, term=1, keep=1, rpo_s=None, volumes=volumes)


NAMES = [("g", "../../etc/x"), ("g", "a/b"), ("../g", "v"), ("g", ".hidden"), ("g", "v@s")]


@pytest.mark.parametrize(("group", "volume"), NAMES)
async def test_a_name_that_is_a_path_is_refused_before_anything_is_touched(group: str, volume: str) -> None:
    nothing = cast(Any, None)  # whatever is touched fails on it
    with pytest.raises(BadValue, match="name"):
        await make_offered(nothing, nothing, offer(group, volume))
