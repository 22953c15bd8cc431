"""Whose turn it is to load on one instance, and what has to go for it. Decisions only: no I/O, no clock.

A load takes a ticket, stands in line once its size is known, is admitted (its memory is promised, copies are
evicted), starts when that memory is really free, and leaves. Loads that a request waits for come before all
others. The line is bounded, and a request that would wait in it for longer than it can is refused at once.
"""

import heapq
from dataclasses import dataclass, field

from mesh.cache import USUAL, Cache, Phase, Plan, Refusal, Standing
from store.records import NOTHING, Resources

URGENT = 2**62
"""Priority of loads that a request waits for: before all others; those are ordered by the model's last use.
"""
MAX_WAITING = 4_096
"""Loads of each kind that may stand in line; a kilobyte each, and minutes of work for any server."""
SPARE_ENTRIES = 64
"""Entries of tickets that moved on, kept in the line besides as many as stand there."""
SMOOTHING = 1 / 8
"""Weight of the latest load in the average time that loads take, as in TCP's round-trip estimate."""


@dataclass(slots=True)
class Ticket:
    """One load from its wish to its end."""

    model_id: str
    last_used: int
    urgent: bool
    standing: Standing = USUAL
    size: Resources = NOTHING
    admitted_ms: int | None = None

    @property
    def priority(self) -> int:
        """Its place in line, the highest first."""
        return URGENT if self.urgent else self.last_used


@dataclass(slots=True)
class Steps:
    """What to do now, in this order."""

    refused: list[tuple[str, Refusal]] = field(default_factory=list)
    evict: list[str] = field(default_factory=list)
    """Already released in the cache: each is to be unloaded."""
    waiting: list[str] = field(default_factory=list)
    """Admitted, but their memory is not free yet."""
    start: list[str] = field(default_factory=list)


class Admission:
    """The line of one instance before its cache. Times are milliseconds of one clock, passed in."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.slots = 0
        """Loads at a time; none before the model server has said how many."""
        self._tickets: dict[str, Ticket] = {}
        self._line: list[tuple[int, int, str]] = []
        """Heap of (-priority, order of arrival, model id); entries of tickets that moved on are skipped."""
        self._in_line: set[str] = set()
        self._admitted: dict[str, None] = {}
        self._loading: set[str] = set()
        self._urgent = 0
        self._held = 0
        self._arrivals = 0
        self._load_ms = 0.0

    def __len__(self) -> int:
        """Loads from their ticket to their end."""
        return len(self._tickets)

    @property
    def standing(self) -> int:
        """Loads in line."""
        return len(self._in_line)

    @property
    def busy(self) -> int:
        """Slots in use."""
        return len(self._admitted) + len(self._loading)

    def wait_ms(self, *, urgent: bool) -> int:
        """How long a load that comes now would stand in line, as far as the last loads tell."""
        ahead = self._urgent if urgent else len(self._tickets) - self.busy
        if not self.slots or self.busy + ahead < self.slots:
            return 0
        return round((ahead + 1) * self._load_ms / self.slots)

    def refusal(self, *, urgent: bool, patience_ms: int | None) -> Refusal | None:
        """Why a load may not even stand in line; `patience_ms` is the time that its request has left."""
        if (self._urgent if urgent else len(self._tickets)) >= MAX_WAITING:
            return Refusal.QUEUE_FULL
        if patience_ms is not None and self.wait_ms(urgent=urgent) > max(0, patience_ms):
            return Refusal.TOO_LATE
        return None

    def take(self, model_id: str, last_used: int, *, urgent: bool, standing: Standing = USUAL) -> Ticket:
        """A ticket for a model that has none."""
        ticket = Ticket(model_id, last_used, urgent, standing)
        self._tickets[model_id] = ticket
        self._urgent += urgent
        return ticket

    def stand(self, model_id: str, size: Resources) -> None:
        """The model's size is known, so it can stand in line."""
        self._tickets[model_id].size = size
        self._in_line.add(model_id)
        self._push(self._tickets[model_id])

    def promote(self, model_id: str, last_used: int) -> bool:
        """A request waits for this load now; returns whether that changed its place in line."""
        ticket = self._tickets[model_id]
        ticket.last_used = max(ticket.last_used, last_used)
        self.cache.touch(model_id, last_used)
        if ticket.urgent:
            return False
        ticket.urgent = True
        if ticket.admitted_ms is None:
            self._urgent += 1
        if model_id not in self._in_line:
            return False
        self._push(ticket)
        return True

    def step(self, now: int) -> Steps:
        """Admits and starts what can be; to be called whenever something has changed."""
        steps = Steps()
        if not self.slots:
            return steps
        while self.busy < self.slots and (ticket := self._first()):
            # What a request waits for is wanted now, however long it has been in line.
            plan = self.cache.plan(ticket.model_id, ticket.size, ticket.priority, ticket.standing)
            if plan is Refusal.BUSY and (self.busy or self._held):
                break
            heapq.heappop(self._line)
            self._in_line.discard(ticket.model_id)
            self._urgent -= ticket.urgent
            ticket.admitted_ms = now
            if not isinstance(plan, Plan):
                steps.refused.append((ticket.model_id, plan))
                continue
            steps.evict += plan.victims
            self.cache.admit(Plan(plan.model_id, plan.size, ticket.last_used, plan.victims, ticket.standing))
            self._admitted[ticket.model_id] = None
        for victim in self.cache.excess():
            self.cache.release(victim)
            steps.evict.append(victim)
        for model_id in list(self._admitted):
            if not self.cache.can_start(model_id):
                break
            del self._admitted[model_id]
            self.cache.start(model_id)
            self._loading.add(model_id)
            steps.start.append(model_id)
        steps.waiting += self._admitted
        return steps

    def loaded(self, model_id: str, size: Resources) -> tuple[str, ...]:
        """The load has ended well. Returns what has to go now, already released in the cache.

        That is others, or itself where it is larger than the whole capacity.
        """
        victims = self.cache.finish(model_id, size)
        for victim in victims:
            self.cache.release(victim)
        return victims

    def leave(self, model_id: str, now: int) -> bool:
        """The load has ended, however; returns whether the server must be told to unload the model."""
        ticket = self._tickets.pop(model_id)
        self._in_line.discard(model_id)
        if ticket.admitted_ms is None:
            self._urgent -= ticket.urgent
        elif model_id in self._loading:
            took = now - ticket.admitted_ms
            self._load_ms = took if not self._load_ms else self._load_ms + (took - self._load_ms) * SMOOTHING
        self._admitted.pop(model_id, None)
        self._loading.discard(model_id)
        copy = self.cache.get(model_id)
        if copy is None or copy.phase is Phase.LOADED:
            return False
        self.cache.release(model_id)
        return copy.phase is Phase.LOADING

    def hold(self, model_id: str) -> None:
        """Keeps a copy from being evicted until `settle`."""
        self._held += 1
        self.cache.hold(model_id)

    def settle(self, model_id: str) -> None:
        """Ends `hold`."""
        self._held -= 1
        self.cache.settle(model_id)

    def _push(self, ticket: Ticket) -> None:
        self._arrivals += 1
        heapq.heappush(self._line, (-ticket.priority, self._arrivals, ticket.model_id))
        if len(self._line) > 2 * len(self._in_line) + SPARE_ENTRIES:
            # A line that always begins with somebody's request never comes to what is stale behind it.
            self._line[:] = [entry for entry in self._line if self._stands(entry)]
            heapq.heapify(self._line)

    def _stands(self, entry: tuple[int, int, str]) -> bool:
        priority, _, model_id = entry
        return model_id in self._in_line and self._tickets[model_id].priority == -priority

    def _first(self) -> Ticket | None:
        while self._line:
            if self._stands(self._line[0]):
                return self._tickets[self._line[0][2]]
            heapq.heappop(self._line)
        return None
