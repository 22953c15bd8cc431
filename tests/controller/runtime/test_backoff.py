from __future__ import annotations

from typing import Any

from controller.runtime.backoff import Backoff, RateLimiter


def test_delays_of_a_loop_double_to_the_limit_and_start_over() -> None:
    backoff = Backoff(base=1, limit=5, source=lambda: 0.0)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1


def test_jitter_lengthens_a_delay_by_up_to_its_share() -> None:
    assert Backoff(base=1, jitter=0.5, source=lambda: 1.0).next() == 1.5


def test_a_key_reaches_the_limit_and_never_overflows(clock: Any) -> None:
    limiter = RateLimiter[str](clock.time, burst=100_000)
    delays = [limiter.delay("a") for _ in range(2000)]
    assert delays[:3] == [0.005, 0.01, 0.02]
    assert delays[-1] == 1000.0


def test_keys_share_one_rate_beyond_the_burst(clock: Any) -> None:
    limiter = RateLimiter[str](clock.time, base=0.0, rate=10, burst=2)
    assert [round(limiter.delay(key), 6) for key in "abcd"] == [0, 0, 0.1, 0.2]
    clock.advance(10)
    assert [round(limiter.delay(key), 6) for key in "abc"] == [0, 0, 0.1]
