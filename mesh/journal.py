"""What this instance has decided lately, and why, for `explain`: bounded, in memory, of no other use."""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

MODELS = 5_000
EVENTS = 8
"""Models remembered, and events of each: two megabytes at most."""


class Event(NamedTuple):
    """One thing that happened to a model here."""

    time: int
    """In ms since 1970."""
    what: str
    why: str


class Journal:
    """The latest events of the models that had any lately."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._events: OrderedDict[str, deque[Event]] = OrderedDict()

    def note(self, model_id: str, what: str, why: str) -> None:
        """Remembers an event."""
        events = self._events.get(model_id)
        if events is None:
            events = self._events[model_id] = deque(maxlen=EVENTS)
            if len(self._events) > MODELS:
                self._events.popitem(last=False)
        else:
            self._events.move_to_end(model_id)
        events.append(Event(self._now(), what, why))

    def of(self, model_id: str) -> list[Event]:
        """What is remembered of a model, the latest last."""
        return list(self._events.get(model_id, ()))
