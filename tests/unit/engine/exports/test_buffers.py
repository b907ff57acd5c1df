"""Who holds how much memory, and that it comes back."""

from __future__ import annotations

import pytest

from engine.exports import buffers
from engine.exports.buffers import Buffers, Lease


def test_a_buffer_that_was_given_back_is_the_next_one_taken() -> None:
    pool = Buffers()
    one, other = Lease(pool), Lease(pool)
    slab = one.take()
    slab.view[:4] = b"mine"
    slab.release()
    assert other.take() is slab
    assert (one.held_bytes, other.held_bytes, pool.held_bytes) == (0, buffers.SLAB_BYTES, buffers.SLAB_BYTES)


def test_a_buffer_is_held_until_the_last_reference_goes() -> None:
    pool = Buffers()
    lease = Lease(pool)
    slab = lease.take()
    slab.refs += 2
    slab.release()
    slab.release()
    assert lease.held_bytes == buffers.SLAB_BYTES
    assert lease.take() is not slab
    slab.release()
    assert lease.held_bytes == buffers.SLAB_BYTES
    with pytest.raises(AssertionError, match="once"):
        slab.release()


@pytest.mark.parametrize(
    "length", [1, 262_144, 262_144 + 4096, 262_144 + 4097, 1024 * 1024, 1024 * 1024 + 4096, 32 * 1024 * 1024]
)
def test_a_buffer_holds_what_was_asked_for_page_aligned(length: int) -> None:
    lease = Lease(Buffers())
    slab = lease.take(length)
    assert len(slab.view) >= length
    assert lease.held_bytes == len(slab.view)
    slab.view[length - 1] = 1
    slab.release()
    assert lease.held_bytes == 0


def test_a_connection_is_full_at_its_bound() -> None:
    lease = Lease(Buffers())
    while not lease.full:
        lease.take(buffers.PIECE_BYTES)
    assert buffers.CONNECTION_BYTES <= lease.held_bytes < buffers.CONNECTION_BYTES + 2 * buffers.PIECE_BYTES


def test_when_the_server_is_full_a_connection_still_gets_its_floor() -> None:
    pool = Buffers()
    greedy = [Lease(pool) for _ in range(20)]
    for lease in greedy:
        while not lease.full:
            lease.take(buffers.PIECE_BYTES)
    assert pool.held_bytes < buffers.SERVER_BYTES + 20 * (buffers.FLOOR_BYTES + 2 * buffers.PIECE_BYTES)
    late = Lease(pool)
    assert not late.full
    late.take(buffers.PIECE_BYTES)
    assert not late.full
    assert greedy[0].full


def test_idle_buffers_are_not_hoarded() -> None:
    pool = Buffers()
    lease = Lease(pool)
    taken = [lease.take(buffers.PIECE_BYTES) for _ in range(100)] + [lease.take() for _ in range(200)]
    taken.append(lease.take(8 * 1024 * 1024))
    for slab in taken:
        slab.release()
    assert pool.held_bytes == 0
    idle = {id(pool.take(buffers.PIECE_BYTES)) for _ in range(100)} & {id(slab) for slab in taken}
    assert 0 < len(idle) <= 16
