"""Buffers go round, the window holds back, joining waits for all."""

from __future__ import annotations

import asyncio

import pytest

from blockstore.frame import BUFFER_BYTES
from engine.transfer.pipeline import Buffers, Window, joined


async def test_a_buffer_that_is_given_back_wakes_one_who_waits() -> None:
    buffers = Buffers(2)
    one, two = buffers.take(), buffers.take()
    assert one is not None
    assert two is not None
    assert buffers.take() is None
    assert len(one.view) == BUFFER_BYTES
    first, second = asyncio.create_task(buffers.wait()), asyncio.create_task(buffers.wait())
    await asyncio.sleep(0)
    buffers.give(one)
    await first
    assert not second.done()
    assert buffers.take() is one
    buffers.give(two)
    await second
    assert buffers.free == 1


async def test_a_cancelled_wait_passes_its_turn_on() -> None:
    buffers = Buffers(1)
    only = buffers.take()
    assert only is not None
    first, second = asyncio.create_task(buffers.wait()), asyncio.create_task(buffers.wait())
    await asyncio.sleep(0)
    buffers.give(only)
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_window_opens_by_grants_and_fails_for_good() -> None:
    window = Window(100)
    await window.take(80)
    taking = asyncio.create_task(window.take(50))
    await asyncio.sleep(0)
    window.give(20)
    await asyncio.sleep(0)
    assert not taking.done()
    window.give(10)
    await taking
    assert window.open == 0
    waiting = asyncio.create_task(window.take(1))
    await asyncio.sleep(0)
    window.fail(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await waiting
    window.give(100)
    with pytest.raises(ConnectionError):
        await window.take(1)


async def test_joining_outlasts_a_cancellation_and_passes_it_on() -> None:
    go_on = asyncio.Event()
    tasks = [asyncio.create_task(go_on.wait()) for _ in range(3)]
    joining = asyncio.create_task(joined(tasks))
    await asyncio.sleep(0)
    joining.cancel()
    await asyncio.sleep(0)
    assert not joining.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await joining
    assert all(task.done() and not task.cancelled() for task in tasks)
