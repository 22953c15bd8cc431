"""A second look at what an event said, for an answer that came too early.

The controller and each instance of the mesh follow the registry by a watch of their own. The controller may
be told of a change first, and the instance that it then asks answers what was true before. Nothing would ask
again: the change has no further event.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")

DELAY_S = 1.0
"""Instances lag by milliseconds; a busy one by some hundred."""


class SecondLook(Generic[K]):
    """Calls `look` at once and again after a while, once for all calls meanwhile.

    Args:
        look: looks at a thing.
        delay_s: seconds between the last call for a thing and its second look; None: DELAY_S.
    """

    def __init__(self, look: Callable[[K], None], delay_s: float | None = None) -> None:
        self._look = look
        self._delay_s = DELAY_S if delay_s is None else delay_s
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def __call__(self, key: K) -> None:
        """Looks now and later."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(self._delay_s, self._again, key)
        self._look(key)

    def close(self) -> None:
        """Forgets the second looks that are due."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _again(self, key: K) -> None:
        del self._timers[key]
        self._look(key)
