"""A clock that tests turn by hand, and waiting for a condition with a deadline."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from controller.runtime.apiserver import Core, MemoryClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DEADLINE = 10.0


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """`queue.Clock` whose time moves only by `advance`."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, FakeTimer, Callable[..., object], tuple[Any, ...]]] = []
        self._order = count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        timer = FakeTimer()
        heapq.heappush(self._calls, (when, next(self._order), timer, callback, args))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, timer, callback, args = heapq.heappop(self._calls)
            if not timer.cancelled:
                callback(*args)
        self.now = end


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait until a condition holds; fail when it does not within the deadline."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 -- any condition, also of things that tell nobody
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def client() -> MemoryClient:
    """A client of an empty API server in memory."""
    return MemoryClient(Core(namespaces=("ns", "other")))
