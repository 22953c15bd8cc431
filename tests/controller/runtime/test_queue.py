"""The work queue, by the hand of a fake clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.runtime.queue import QueueShutDown, WorkQueue


@pytest.fixture
def queue(clock: Any) -> WorkQueue[str]:
    return WorkQueue("test", clock=clock)


async def test_a_key_added_twice_is_worked_on_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_during_its_work_comes_back_only_when_that_is_done(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_waiting_worker_gets_the_next_key(queue: WorkQueue[str]) -> None:
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not worker.done()
    queue.add("a")
    assert await worker == "a"


async def test_a_key_is_not_lost_with_the_worker_that_was_woken_for_it(queue: WorkQueue[str]) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 5) == "a"


async def test_a_cancelled_worker_leaves_no_trace(queue: WorkQueue[str]) -> None:
    first = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(second, 5) == "a"


async def test_a_delayed_key_comes_after_its_delay(queue: WorkQueue[str], clock: Any) -> None:
    queue.add_after("a", 5)
    clock.advance(4.9)
    assert len(queue) == 0
    clock.advance(0.2)
    assert len(queue) == 1


@pytest.mark.parametrize("delays", [(5, 60), (60, 5)])
async def test_of_two_delays_the_shorter_counts(queue: WorkQueue[str], clock: Any, delays: Any) -> None:
    for delay in delays:
        queue.add_after("a", delay)
    clock.advance(5)
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    clock.advance(100)
    assert len(queue) == 0


async def test_adding_now_overrides_a_delay(queue: WorkQueue[str], clock: Any) -> None:
    queue.add_after("a", 5)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    clock.advance(10)
    assert len(queue) == 0


async def test_failures_of_a_key_double_its_delay_until_it_is_forgotten(
    queue: WorkQueue[str], clock: Any
) -> None:
    for delay in (0.005, 0.01, 0.02, 0.04):
        queue.add_rate_limited("a")
        clock.advance(delay * 0.99)
        assert len(queue) == 0
        clock.advance(delay * 0.02)
        assert await queue.get() == "a"
        queue.done("a")
    assert queue.failures("a") == 4
    queue.forget("a")
    assert queue.failures("a") == 0
    queue.add_rate_limited("a")
    clock.advance(0.0051)
    assert len(queue) == 1


async def test_shut_down_ends_waiting_workers_and_drops_what_waits(queue: WorkQueue[str], clock: Any) -> None:
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("later", 1)
    queue.shut_down()
    with pytest.raises(QueueShutDown):
        await worker
    clock.advance(2)
    queue.add("a")
    with pytest.raises(QueueShutDown):
        await queue.get()


async def test_a_key_in_work_at_shut_down_does_not_come_back(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.shut_down()
    queue.done("a")
    assert len(queue) == 0
