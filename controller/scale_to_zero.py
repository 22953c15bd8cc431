"""How many pods a runtime that no model needs may keep, and for how long.

A runtime that was needed keeps its pods for the grace period after its last model has gone. One that was not
needed since the controller started gets none at once: nobody is waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.config import ScaleToZero
    from controller.runtime.reconcile import Request


@dataclass(frozen=True, slots=True)
class Replicas:
    """A number of pods, and after how many seconds to decide again."""

    count: int
    decide_again_s: float | None = None


@dataclass(slots=True)
class IdleTimers:
    """Since when each runtime has not been needed; None: it is needed."""

    _idle_since: dict[Request, float | None] = field(default_factory=dict)

    def decide(self, key: Request, *, wanted: int, needed: bool, config: ScaleToZero, now: float) -> Replicas:
        """Decides a runtime's pods.

        Args:
            key: the runtime.
            wanted: pods while it is needed.
            needed: whether any model could be loaded by it.
            config: the user's configuration.
            now: monotonic time in seconds.
        """
        if needed or not config.enabled:
            self._idle_since[key] = None
            return Replicas(wanted)
        if key not in self._idle_since:
            return Replicas(0)
        since = self._idle_since[key]
        if since is None:
            since = self._idle_since[key] = now
        remaining = since + config.grace_period_seconds - now
        return Replicas(wanted, remaining) if remaining > 0 else Replicas(0)

    def forget(self, key: Request) -> None:
        """Forgets a runtime that is gone."""
        self._idle_since.pop(key, None)
