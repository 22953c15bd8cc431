"""How long a container that ended waits before it is started again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 1.0
MAXIMUM_SECONDS = 60.0
RESET_SECONDS = 60.0
"""The kubelet waits 10 s, doubles up to 300 s, and forgets after 600 s. Local mode is for people who watch,
so it is faster; and the first restart is at once, as the kubelet's is."""


@dataclass(slots=True)
class RestartBackoff:
    """Delays between restarts: none, then doubling from one second up to a minute."""

    delay: float = 0.0

    def after_run(self, seconds: float) -> float:
        """Return how many seconds to wait after a run of that length."""
        if seconds >= RESET_SECONDS:
            self.delay = 0.0
        wait = self.delay
        self.delay = min(max(self.delay * 2, FIRST_SECONDS), MAXIMUM_SECONDS)
        return wait
