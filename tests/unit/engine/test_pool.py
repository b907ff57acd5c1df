"""The disk pool: steps run once, whoever waits; what was started is settled on the loop, whoever is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest

from blockstore.steps import Step, Wait
from engine.pool import DiskPool


@pytest.fixture
async def pool() -> AsyncIterator[DiskPool]:
    pool = DiskPool(threads=2)
    yield pool
    await pool.close()


class Held:
    """Work that goes on until it is released, and says where it ran."""

    def __init__(self, result: str = "result") -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.result = result
        self.runs = 0
        self.thread: threading.Thread | None = None

    def __call__(self) -> str:
        self.runs += 1
        self.thread = threading.current_thread()
        self.entered.set()
        assert self.released.wait(60)
        return self.result


async def entered(held: Held) -> None:
    assert await asyncio.to_thread(held.entered.wait, 60)


async def test_work_runs_in_a_thread_and_settles_on_the_loop(pool: DiskPool) -> None:
    seen: list[threading.Thread] = []

    def work() -> int:
        seen.append(threading.current_thread())
        return 7

    def settle(result: int) -> None:
        seen.append(threading.current_thread())

    step = Step(work, settle)
    await pool.over(step)
    assert step.result == 7
    assert seen[0] is not threading.main_thread()
    assert seen[1] is threading.main_thread()


async def test_many_that_wait_for_one_step_run_it_once_and_all_go_on(pool: DiskPool) -> None:
    held = Held()
    step = Step(held)
    waiters = [asyncio.create_task(pool.over(step)) for _ in range(20)]
    await entered(held)
    held.released.set()
    await asyncio.gather(*waiters)
    assert held.runs == 1


async def test_a_step_is_settled_before_any_waiter_goes_on(pool: DiskPool) -> None:
    order: list[str] = []
    step = Step(lambda: None, lambda _: order.append("settled"))

    async def waiter(name: str) -> None:
        await pool.over(step)
        order.append(name)

    await asyncio.gather(waiter("first"), waiter("second"))
    assert order == ["settled", "first", "second"]


async def test_every_waiter_gets_the_error_of_the_work(pool: DiskPool) -> None:
    def work() -> None:
        raise OSError(5, "Input/output error")

    step = Step(work)
    outcomes = await asyncio.gather(*(pool.over(step) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError] * 3
    with pytest.raises(OSError, match="Input/output"):
        await pool.over(step)  # and whoever comes later


async def test_an_error_of_the_settlement_reaches_the_waiter(pool: DiskPool) -> None:
    def settle(_: None) -> None:
        raise ValueError("the head does not fit")

    with pytest.raises(ValueError, match="does not fit"):
        await pool.over(Step(lambda: None, settle))


async def test_a_cancelled_waiter_loses_nothing_for_the_others(pool: DiskPool) -> None:
    held, settled = Held(), []
    step = Step(held, settled.append)
    first = asyncio.create_task(pool.over(step))
    await entered(held)
    second = asyncio.create_task(pool.over(step))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    held.released.set()
    await second
    assert settled == ["result"]
    assert held.runs == 1


async def test_a_step_whose_only_waiter_was_cancelled_is_settled_all_the_same(pool: DiskPool) -> None:
    held, settled = Held(), asyncio.Event()
    task = asyncio.create_task(pool.over(Step(held, lambda _: settled.set())))
    await entered(held)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not settled.is_set()
    held.released.set()
    await asyncio.wait_for(settled.wait(), 60)


async def test_waiters_cancelled_at_random_never_lose_a_completion(pool: DiskPool, seed: int) -> None:
    import random

    chance = random.Random(seed)
    settled = 0

    def settle(_: None) -> None:
        nonlocal settled
        settled += 1

    steps = [Step(lambda: None, settle) for _ in range(300)]
    tasks = [asyncio.create_task(pool.over(step)) for step in steps for _ in range(2)]
    for task in tasks:
        if chance.random() < 0.5:
            task.cancel()
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    # A task that was cancelled before it ran never asked for its step; every step that was started is over soon.
    for step in steps:
        if step.started:
            await pool.over(step)
    assert settled == sum(step.started for step in steps) > 0


async def test_a_wait_without_work_is_over_when_it_is_fired(pool: DiskPool) -> None:
    wait = Wait()
    task = asyncio.create_task(pool.over(wait))
    await asyncio.sleep(0)
    assert not task.done()
    wait.fire()
    await task
    await pool.over(wait)  # what is over costs nothing


async def test_begun_work_goes_on_while_the_caller_does_something_else(pool: DiskPool) -> None:
    held = Held()
    step = Step(held)
    pool.begin(step)
    await entered(held)
    pool.begin(step)  # started already: nothing
    held.released.set()
    await pool.over(step)
    assert held.runs == 1


async def test_a_call_returns_what_its_function_returns(pool: DiskPool) -> None:
    def add(a: int, *, b: int) -> int:
        return a + b

    assert await pool.call(add, 2, b=3) == 5


@pytest.mark.parametrize("error", [KeyError("k"), StopIteration(1)])
async def test_a_call_raises_what_its_function_raises(pool: DiskPool, error: Exception) -> None:
    def fail() -> None:
        raise error

    # A coroutine cannot raise StopIteration itself (PEP 479).
    with pytest.raises(KeyError if isinstance(error, KeyError) else RuntimeError):
        await pool.call(fail)


async def test_even_the_end_of_a_thread_reaches_the_waiter(pool: DiskPool) -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        await pool.call(leave)
    assert await pool.call(lambda: 1) == 1


async def test_a_call_is_made_again_until_nothing_is_in_its_way(pool: DiskPool) -> None:
    obstacles: list[Wait] = [Step(lambda: None), Step(lambda: None)]
    calls = 0

    def call() -> Wait | None:
        nonlocal calls
        calls += 1
        return obstacles.pop() if obstacles else None

    await pool.finish(call)
    assert calls == 3


async def test_a_final_wait_ends_a_call(pool: DiskPool) -> None:
    calls = 0

    def call() -> Wait:
        nonlocal calls
        calls += 1
        return Step(lambda: None, final=calls == 2)

    await pool.finish(call)
    assert calls == 2


async def test_a_failed_wait_ends_a_call_with_its_error(pool: DiskPool) -> None:
    def work() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await pool.finish(lambda: Step(work))


async def test_close_settles_what_runs_and_refuses_what_comes() -> None:
    pool, held, settled = DiskPool(threads=1), Held(), []
    pool.begin(Step(held, settled.append))
    await entered(held)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    late = Step(lambda: None)
    with pytest.raises(RuntimeError, match="closed"):
        await pool.over(late)
    assert not late.started
    assert not closing.done()
    held.released.set()
    await closing
    assert settled == ["result"]
    assert held.thread is not None
    assert not held.thread.is_alive()
    await pool.close()


async def test_no_more_threads_work_at_once_than_the_pool_has(pool: DiskPool) -> None:
    working, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def work() -> None:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(60)
        with lock:
            working -= 1

    await asyncio.gather(*(pool.call(work) for _ in range(8)))
    assert most == 2
