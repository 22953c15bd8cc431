"""Which models fit on this instance: a weighted least-recently-used cache that never promises memory twice.

Pure bookkeeping. A copy is *waiting* (its memory is promised, not yet in use), *loading* or *loaded*; one
that goes is *freeing* until the model server has let go of it. Two rules hold at all times, in every
dimension:

- promised: waiting + loading + loaded <= capacity, so that what was admitted has its place once the freeing
is over;
- in use: loading + loaded + freeing <= capacity, because a load starts only when its memory is really free.

Two things outside can break them: a model that turns out larger than was estimated, and a server that does
not let go of a model (`lose`: what it keeps counts as capacity that is not there). `excess` then names what
has to go.
"""

import enum
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from store.records import NOTHING, Resources

_Entry = tuple[bool, int, int, str]
"""(pinned, priority, last use, model id): what comes first goes first."""
SPARE_ENTRIES = 64
"""Entries of copies that have gone, kept in the order besides as many as there are copies."""


class Phase(enum.Enum):
    """Where a copy is on its way."""

    WAITING = "waiting"
    LOADING = "loading"
    LOADED = "loaded"


class Standing(NamedTuple):
    """What a model's owner wants of eviction."""

    pinned: bool = False
    """Never evicted."""
    priority: int = 0
    """Those with a lower one are evicted first, whenever they were used."""


USUAL = Standing()


class Refusal(enum.Enum):
    """Why a model is not admitted."""

    TOO_LARGE = "the model is larger than the instance's whole capacity"
    TOO_OLD = "everything here was used more recently, or has a higher priority"
    PINNED = "what is here is pinned"
    BUSY = "what could make room is still being loaded, or was only just"
    QUEUE_FULL = "too many loads wait for their turn"
    TOO_LATE = "the loads that come first take longer than the request can wait"


@dataclass(slots=True)
class Copy:
    """One model on this instance."""

    model_id: str
    size: Resources
    last_used: int
    phase: Phase = Phase.WAITING
    held: bool = False
    """Not evicted for now."""
    standing: Standing = USUAL
    loaded_ms: int = 0
    """When its load ended."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to go so that a model can come, oldest first."""

    model_id: str
    size: Resources
    last_used: int
    victims: tuple[str, ...] = ()
    standing: Standing = USUAL


@dataclass(slots=True)
class Cache:
    """The copies of one instance."""

    capacity: Resources
    _copies: dict[str, Copy] = field(default_factory=dict)
    _freeing: dict[str, Resources] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)
    """Last use of what is in `_freeing`."""
    _lost: dict[str, Resources] = field(default_factory=dict)
    """The part of `_freeing` that the server keeps against our will."""
    _lost_memory: Resources = NOTHING
    _promised: Resources = NOTHING
    _in_use: Resources = NOTHING
    _order: list[_Entry] = field(default_factory=list)
    """Heap; an entry may be older than its copy says, and is corrected when it comes up."""

    def __len__(self) -> int:
        return len(self._copies)

    @property
    def promised(self) -> Resources:
        """Memory of all copies."""
        return self._promised

    @property
    def in_use(self) -> Resources:
        """Memory that the model server holds: copies loading or loaded, and what it is freeing."""
        return self._in_use

    @property
    def usable(self) -> Resources:
        """The capacity without what is lost."""
        return (self.capacity - self._lost_memory).without_debt()

    @property
    def free(self) -> Resources:
        """Memory that a newcomer could have without an eviction, once the freeing is over."""
        return (self.usable - self._promised).without_debt()

    @property
    def freeing(self) -> int:
        """Models on their way out."""
        return len(self._freeing)

    def get(self, model_id: str) -> Copy | None:
        """The copy of a model, in any phase."""
        return self._copies.get(model_id)

    def oldest(self) -> int:
        """Last use of the loaded copy that would go first; 0 where there is none."""
        victims = self._oldest_first()
        first = next(victims, None)
        victims.close()
        return first.last_used if first else 0

    def last_used(self, model_id: str) -> int:
        """Last use of a copy that is here or is being freed; 0 where there is none."""
        copy = self._copies.get(model_id)
        return copy.last_used if copy else self._left.get(model_id, 0)

    def plan(
        self, model_id: str, size: Resources, last_used: int, standing: Standing = USUAL
    ) -> Plan | Refusal:
        """How to make room for a model: the oldest go, and none that need not go. Changes nothing."""
        if not size.fits(self.capacity):
            return Refusal.TOO_LARGE
        missing = size - (self.usable - self._promised)
        victims: list[Copy] = []
        oldest_first = self._oldest_first()
        refusal = None
        while not missing.fits(NOTHING):
            victim = next(oldest_first, None)
            if victim is None:
                refusal = Refusal.BUSY if self._may_have_room(size) else Refusal.PINNED
                break
            if (victim.standing.priority, victim.last_used) > (standing.priority, last_used):
                refusal = Refusal.TOO_OLD
                break
            victims.append(victim)
            missing -= victim.size
        oldest_first.close()
        needed = _needed(victims, NOTHING - missing)
        return refusal or Plan(model_id, size, last_used, needed, standing)

    def admit(self, plan: Plan) -> None:
        """Promises the memory, and lets the victims go (they are *freeing* from now on)."""
        for victim in plan.victims:
            self.release(victim)
        self._copies[plan.model_id] = Copy(plan.model_id, plan.size, plan.last_used, standing=plan.standing)
        self._promised += plan.size

    def can_start(self, model_id: str) -> bool:
        """Whether a waiting model's memory is really free."""
        return (self._in_use + self._copies[model_id].size).fits(self.capacity)

    def start(self, model_id: str) -> None:
        """The load begins."""
        copy = self._copies[model_id]
        copy.phase = Phase.LOADING
        self._in_use += copy.size

    def finish(self, model_id: str, size: Resources) -> tuple[str, ...]:
        """The load has ended well. Returns what has to go because the model is larger than thought."""
        copy = self._copies[model_id]
        copy.phase = Phase.LOADED
        self._line_up(copy)
        return self.resize(model_id, size)

    def resize(self, model_id: str, size: Resources) -> tuple[str, ...]:
        """Corrects the size of a model in memory. Returns what has to go, oldest first.

        The model itself goes only where it is larger than the whole capacity, and then nothing else does.
        """
        copy = self._copies[model_id]
        self._promised += size - copy.size
        self._in_use += size - copy.size
        copy.size = size
        return self.excess(model_id) if size.fits(self.capacity) else (model_id,)

    def excess(self, spared: str = "") -> tuple[str, ...]:
        """What has to go so that every promise can be kept, oldest first; not the `spared` model.

        It may be too little as long as other copies are being loaded or are held.
        """
        missing = self._promised - self.usable
        if missing.fits(NOTHING):
            return ()
        victims: list[Copy] = []
        oldest_first = self._oldest_first()
        for victim in oldest_first:
            if victim.model_id != spared:
                victims.append(victim)
                missing -= victim.size
            if missing.fits(NOTHING):
                break
        oldest_first.close()
        return _needed(victims, NOTHING - missing)

    def touch(self, model_id: str, last_used: int) -> bool:
        """Notes a use, where it is later than the last known; returns whether the copy is there."""
        if copy := self._copies.get(model_id):
            copy.last_used = max(copy.last_used, last_used)
        return copy is not None

    def correct(self, model_id: str, last_used: int) -> None:
        """Sets a last use that was wrong, also to an earlier one."""
        if copy := self._copies.get(model_id):
            copy.last_used = last_used
            if copy.phase is Phase.LOADED:
                self._line_up(copy)

    def stand(self, model_id: str, standing: Standing) -> None:
        """Sets what is wanted of eviction."""
        copy = self._copies.get(model_id)
        if copy and copy.standing != standing:
            copy.standing = standing
            if copy.phase is Phase.LOADED:
                self._line_up(copy)

    def hold(self, model_id: str) -> None:
        """Keeps a copy from being evicted until `settle`."""
        if copy := self._copies.get(model_id):
            copy.held = True

    def settle(self, model_id: str) -> None:
        """Ends `hold`."""
        if copy := self._copies.get(model_id):
            copy.held = False

    def release(self, model_id: str) -> None:
        """A copy goes: memory that it has in use counts until `freed`."""
        copy = self._copies.pop(model_id)
        self._promised -= copy.size
        if copy.phase is not Phase.WAITING:
            self._freeing[model_id] = self._freeing.get(model_id, NOTHING) + copy.size
            self._left[model_id] = copy.last_used

    def freed(self, model_id: str) -> None:
        """The model server has let go of a model."""
        self._in_use -= self._freeing.pop(model_id, NOTHING)
        self._left.pop(model_id, None)
        self._lost_memory -= self._lost.pop(model_id, NOTHING)

    def lose(self, model_id: str) -> None:
        """The model server does not let go of a model: plan without its memory until `freed`."""
        if model_id in self._freeing and model_id not in self._lost:
            self._lost[model_id] = self._freeing[model_id]
            self._lost_memory += self._lost[model_id]

    def reset(self, capacity: Resources) -> None:
        """The model server has started anew: nothing is in its memory, promises stay."""
        for copy in [copy for copy in self._copies.values() if copy.phase is not Phase.WAITING]:
            self._promised -= copy.size
            del self._copies[copy.model_id]
        self._freeing.clear()
        self._left.clear()
        self._lost.clear()
        self._lost_memory = NOTHING
        self._order.clear()
        self._in_use = NOTHING
        self.capacity = capacity

    def in_order(self) -> list[Copy]:
        """All copies in the order of eviction; those that cannot go now come last."""
        return sorted(self._copies.values(), key=lambda copy: (copy.phase is not Phase.LOADED, *_entry(copy)))

    def copies(self) -> Iterable[Copy]:
        """All copies, in no order."""
        return self._copies.values()

    def _may_have_room(self, size: Resources) -> bool:
        """Whether a model would fit if all went that is not pinned."""
        pinned = NOTHING
        for copy in self._copies.values():
            if copy.standing.pinned:
                pinned += copy.size
        return pinned == NOTHING or not size.fits(self.usable) or (size + pinned).fits(self.usable)

    def _line_up(self, copy: Copy) -> None:
        heapq.heappush(self._order, _entry(copy))
        if len(self._order) > 2 * len(self._copies) + SPARE_ENTRIES:
            loaded = (one for one in self._copies.values() if one.phase is Phase.LOADED)
            self._order[:] = [_entry(one) for one in loaded]
            heapq.heapify(self._order)

    def _oldest_first(self) -> "_OldestFirst":
        return _OldestFirst(self._copies, self._order)


def _entry(copy: Copy) -> _Entry:
    return (*copy.standing, copy.last_used, copy.model_id)


def _needed(victims: list[Copy], surplus: Resources) -> tuple[str, ...]:
    """Of the oldest copies, which together give `surplus` more than is needed, those that have to go.

    The younger one stays where there is a choice.
    """
    needed = []
    for victim in reversed(victims):
        if victim.size != NOTHING and victim.size.fits(surplus):
            surplus -= victim.size
        else:
            needed.append(victim.model_id)
    return tuple(reversed(needed))


class _OldestFirst:
    """Walks the loaded copies from the least recently used, and corrects the heap on its way."""

    def __init__(self, copies: dict[str, Copy], order: list[_Entry]) -> None:
        self._copies = copies
        self._order = order
        self._passed: dict[str, _Entry] = {}

    def __iter__(self) -> "_OldestFirst":
        return self

    def __next__(self) -> Copy:
        while self._order:
            entry = heapq.heappop(self._order)
            copy = self._copies.get(entry[-1])
            if copy is None or copy.phase is not Phase.LOADED or copy.model_id in self._passed:
                continue
            if _entry(copy) > entry:
                heapq.heappush(self._order, _entry(copy))
                continue
            self._passed[copy.model_id] = entry
            if copy.standing.pinned:
                break  # and so are all that come after it
            if not copy.held:
                return copy
        raise StopIteration

    def close(self) -> None:
        """Puts back what was looked at."""
        for entry in self._passed.values():
            heapq.heappush(self._order, entry)
