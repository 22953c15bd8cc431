"""What a reconciler is given and gives back.

A request is a name, not an event: reconciling is level-based. The reconciler reads the present state from
the cache and makes the world match, whatever woke it and however often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Request(NamedTuple):
    """The object to reconcile; `namespace` is empty for cluster-scoped ones."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a reconcile that did not fail.

    Attributes:
        requeue_after: reconcile again after so many seconds; None waits for the next change.
    """

    requeue_after: float | None = None


class Reconciler(Protocol):
    """Makes the world match what one object asks for."""

    async def reconcile(self, request: Request) -> Result:
        """Reconcile one object. Any exception re-queues the request with back-off, Conflict quietly."""
        ...
