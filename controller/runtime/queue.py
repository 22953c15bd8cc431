"""The work queue between watching and reconciling.

What it promises, and an `asyncio.Queue` does not:

* a key is in the queue at most once, however often it is added before a worker takes it;
* a key is with one worker at a time: added meanwhile, it waits until that worker calls `done`;
* a key that failed comes back later, with a delay that grows (`backoff.RateLimiter`);
* a key can be added for later; the earliest time asked for wins.

All methods but `get` are synchronous and belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from controller.runtime import metrics
from controller.runtime.backoff import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Do not make the call."""
        ...


class Clock(Protocol):
    """Monotonic time, in seconds, and calls at a later time. An event loop is one; tests bring their own."""

    def time(self) -> float:
        """Return the present time."""
        ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` at the time `when`."""
        ...


class QueueShutDown(Exception):  # noqa: N818 -- a signal, as asyncio.QueueShutDown
    """The queue is shut down: the worker ends."""


class WorkQueue(Generic[K]):
    """A queue of distinct keys with delays and back-off.

    Args:
        name: label of the queue's metrics.
        clock: by default the running event loop.
        limiter: decides the delays of `add_rate_limited`.
    """

    def __init__(
        self, name: str = "", *, clock: Clock | None = None, limiter: RateLimiter[K] | None = None
    ) -> None:
        self._clock: Clock = clock or asyncio.get_running_loop()
        self._limiter = limiter or RateLimiter(self._clock.time)
        self._ready: deque[K] = deque()
        self._queued: dict[K, float] = {}  # waiting for a worker, or again after the present one; since when
        self._working: dict[K, float] = {}
        self._later: dict[K, tuple[float, Timer]] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._shut_down = False
        self._measure(name)

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Queue `key` now, unless it waits already."""
        if self._shut_down or key in self._queued:
            return
        self._cancel_timer(key)
        self._adds.inc()
        self._queued[key] = self._clock.time()
        if key not in self._working:
            self._push(key)

    def add_after(self, key: K, delay: float) -> None:
        """Queue `key` in `delay` seconds, or when it was asked for already if that is sooner."""
        if delay <= 0:
            self.add(key)
            return
        when = self._clock.time() + delay
        if self._shut_down or (key in self._later and self._later[key][0] <= when):
            return
        self._cancel_timer(key)
        self._later[key] = (when, self._clock.call_at(when, self.add, key))

    def add_rate_limited(self, key: K) -> None:
        """Queue `key` again after a failure, later each time."""
        self._retries.inc()
        self.add_after(key, self._limiter.delay(key))

    def forget(self, key: K) -> None:
        """`key` succeeded: the delays of its failures start over."""
        self._limiter.forget(key)

    def failures(self, key: K) -> int:
        """How often `key` failed since it last succeeded."""
        return self._limiter.failures(key)

    async def get(self) -> K:
        """Take the next key; the caller must call `done` with it.

        Raises:
            QueueShutDown: the queue was shut down.
        """
        while not self._ready:
            if self._shut_down:
                raise QueueShutDown
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._ready:
                    self._wake()  # this worker was woken for a key and will not take it: let another
                raise
        key = self._ready.popleft()
        self._depth.set(len(self._ready))
        now = self._clock.time()
        self._waited.observe(now - self._queued.pop(key))
        self._working[key] = now
        return key

    def done(self, key: K) -> None:
        """The worker has finished with `key`; if it was added meanwhile, it is ready now."""
        self._worked.observe(self._clock.time() - self._working.pop(key))
        if key in self._queued:
            self._push(key)

    def shut_down(self) -> None:
        """Take no more keys, drop all that wait, and end each worker after the key it has.

        Dropping is safe because reconciling is level-based: the next start sees every object again.
        """
        self._shut_down = True
        for key in list(self._later):
            self._cancel_timer(key)
        self._ready.clear()
        self._queued.clear()
        self._depth.set(0)
        while self._waiters:
            self._wake()

    def _push(self, key: K) -> None:
        self._ready.append(key)
        self._depth.set(len(self._ready))
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _cancel_timer(self, key: K) -> None:
        if later := self._later.pop(key, None):
            later[1].cancel()

    def _measure(self, name: str) -> None:
        self._depth = metrics.QUEUE_DEPTH.labels(name)
        self._adds = metrics.QUEUE_ADDS.labels(name)
        self._retries = metrics.QUEUE_RETRIES.labels(name)
        self._waited = metrics.QUEUE_DURATION.labels(name)
        self._worked = metrics.WORK_DURATION.labels(name)
        metrics.UNFINISHED_WORK.labels(name).set_function(lambda: sum(self._ages()))
        metrics.LONGEST_RUNNING.labels(name).set_function(lambda: max(self._ages(), default=0.0))

    def _ages(self) -> list[float]:
        now = self._clock.time()
        return [now - started for started in list(self._working.values())]
