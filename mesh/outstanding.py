"""What this instance has had loaded on others so lately that their records may not show it yet.

Records follow the truth by half a second. Without this, all that is asked for meanwhile would go to the one
instance that seems to have the most room, and push out there what the others have room for.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from mesh.placement import Candidate
from store.records import NOTHING, Resources

SHOWN_SECONDS = 1.0
"""After so long a record shows the load: it is published within 0.5 s, and has to come here."""


class Outstanding:
    """Loads sent to other instances. Times are seconds of one clock, passed in."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, str, Resources]] = deque()
        self._totals: dict[str, Resources] = {}

    def add(self, instance_id: str, size: Resources, now: float) -> None:
        """A load of this size is being sent to an instance."""
        self._forget(now)
        self._sent.append((now, instance_id, size))
        self._totals[instance_id] = self._totals.get(instance_id, NOTHING) + size

    def beside(self, candidates: Sequence[Candidate], now: float) -> Sequence[Candidate]:
        """The candidates with what is on its way to them."""
        self._forget(now)
        if not self._totals:
            return candidates
        return [
            replace(candidate, used=candidate.used + self._totals.get(candidate.instance_id, NOTHING))
            for candidate in candidates
        ]

    def _forget(self, now: float) -> None:
        while self._sent and self._sent[0][0] <= now - SHOWN_SECONDS:
            _, instance_id, size = self._sent.popleft()
            self._totals[instance_id] -= size
            if self._totals[instance_id] == NOTHING:
                del self._totals[instance_id]
