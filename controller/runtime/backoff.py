"""How long to wait before trying again.

Two shapes: `Backoff` for one loop that talks to one server (a reflector), and `RateLimiter` for many keys
that share a queue, each with a delay of its own, all of them under one global rate.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")


class Backoff:
    """Exponentially growing, jittered delays of one loop.

    The defaults are client-go's for reflectors; they spread the return of many clients after a restart.

    Args:
        base: first delay, in seconds, before jitter.
        limit: longest delay, in seconds, before jitter.
        factor: growth from one delay to the next.
        jitter: a delay d becomes a random one between d and d * (1 + jitter).
        source: returns a random number in [0, 1).
    """

    def __init__(
        self,
        base: float = 0.8,
        limit: float = 30.0,
        factor: float = 2.0,
        jitter: float = 1.0,
        source: Callable[[], float] = random.random,
    ) -> None:
        self._base, self._limit, self._factor, self._jitter = base, limit, factor, jitter
        self._source = source
        self._next = base

    def next(self) -> float:
        """Seconds to wait now; the following delay is longer."""
        delay, self._next = self._next, min(self._next * self._factor, self._limit)
        return delay * (1.0 + self._jitter * self._source())

    def reset(self) -> None:
        """Begin again with the shortest delay: the loop made progress."""
        self._next = self._base


class RateLimiter(Generic[K]):
    """Delays for re-queued keys: the longer one of exponential per key, and a token bucket over all keys.

    The defaults are controller-runtime's: 5 ms doubling up to 1000 s; 10 per second with bursts of 100.

    Args:
        time: a monotonic clock, in seconds.
        base: delay after a key's first failure, in seconds.
        limit: longest delay of a key, in seconds.
        rate: re-queues per second over all keys.
        burst: re-queues at once over all keys.
    """

    def __init__(
        self,
        time: Callable[[], float],
        *,
        base: float = 0.005,
        limit: float = 1000.0,
        rate: float = 10.0,
        burst: int = 100,
    ) -> None:
        self._time = time
        self._base, self._limit = base, limit
        self._rate, self._burst = rate, float(burst)
        self._failures: dict[K, int] = {}
        self._tokens, self._updated = self._burst, time()

    def delay(self, key: K) -> float:
        """Count one more failure of `key` and return the seconds to wait before it is tried again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # Beyond 2^64 the limit has long been reached; a larger exponent would overflow a float.
        return max(min(self._base * 2.0 ** min(failures, 64), self._limit), self._take())

    def forget(self, key: K) -> None:
        """`key` succeeded: its next failure counts as the first."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often `key` failed since it last succeeded."""
        return self._failures.get(key, 0)

    def _take(self) -> float:
        """Take one token, on credit if there is none, and return the seconds until it is earned."""
        now = self._time()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate) - 1.0
        self._updated = now
        return max(0.0, -self._tokens / self._rate)
