"""When a model gets further copies, and when this instance gives one up: pure decisions.

A copy more is wanted for one of two reasons: a model with a single copy is in use over a while, so that its
loss would be felt; or a copy has more requests than one should have. A copy goes only where memory is short,
others remain, and it is idle (the second copy) or its share of the requests could be carried by the rest.
Times are milliseconds since 1970; the numbers are the original's, unless said otherwise.
"""

import enum
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mesh.placement import Candidate
from mesh.upgrade import about_to_go
from store.records import ModelRecord

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
FREE_FOR_SECOND = 0.10
"""Part of the memory that is free where second copies are made, whatever they displace ..."""
AGE_FOR_SECOND_MS = 20 * HOUR_MS
"""... or the oldest content was not used for so long: 30 times the gap above."""
SCARCE = 0.05
"""With less free memory than this part, copies beyond what is needed go."""
GIVEN_UP = 0.05
"""Part of an instance's memory that is given up in one pass, so that others can follow."""
RECENT_LOAD_MS = 30_000
"""A further copy that began to load so lately may still change the load: no other is added meanwhile."""
IDLE_SHARE = 0.1
"""Where another instance with a copy has less than this part of the requests, it takes none of the load, and
neither would a further one: the local copy is preferred, and the requests do not enter there."""
AHEAD_MS = 20_000
"""A copy added because of load counts as used so far ahead, so that it goes to an instance with little to do.
"""
SECOND_IDLE_SHARE = 0.1
SECOND_IDLE_MS = 10 * HOUR_MS
"""A second copy goes when unused for this part of the age of the oldest content, at most so long; one that
had much load lately, for that part however long it is."""
SETTLED_MS = 30 * MINUTE_MS
"""Of several copies none goes before the newest has been there so long."""
UNLOADED_MS = 80_000
"""Nor so soon after another one went: the load must spread first."""
QUIET_SHARE, QUIET_LEAST_MS, QUIET_MOST_MS = 0.03, 10 * MINUTE_MS, 5 * HOUR_MS
"""Nor before its load has been low for this part of the age of the oldest content, within these bounds."""
HEAVY = 0.75
"""Part of the threshold above which load counts as heavy."""
LIGHT = 2 / 3
"""Part of the threshold below which a copy may go."""
GREATEST_GROWTH = 3
"""One part in so many of the instances may get a copy in one go, where more than two are wanted."""


class Growth(enum.Enum):
    """Why a model gets further copies."""

    IN_USE = "it is in use over a while and has a single copy"
    LOAD = "its copies have more requests than they should have"


class Shrinkage(enum.Enum):
    """Why a copy goes although there are others."""

    IDLE = "it is a second copy, memory is short, and nobody used it for a while"
    SURPLUS = "memory is short, and the other copies can carry its requests"


@dataclass(frozen=True, slots=True)
class ScalingTerms:
    """What of the rules can be set."""

    threshold: int = 2_000
    """Requests a minute that one copy should have at most; `MM_SCALEUP_RPM_THRESHOLD`."""
    second_after_ms: int = 7 * MINUTE_MS
    """A model that is still in use so long after an earlier use gets a second copy."""
    second_gap_ms: int = 40 * MINUTE_MS
    """A model that was not used for so long begins anew."""

    @property
    def look_seconds(self) -> float:
        """How often use is looked at: every ten seconds, as in the original."""
        return min(10.0, self.second_after_ms / 4_000)


USUAL_TERMS = ScalingTerms()


@dataclass(slots=True)
class Use:
    """How the copy of one model on this instance is used."""

    since: int
    """Begin of the present stretch of use: no two uses in it are further apart than a second copy's gap."""
    last: int
    requests: int = 0
    """Since the last look."""
    rpm: int = 0
    """Requests a minute, at the last look."""
    heavy: int = 0
    """When its load was last heavy; 0: never."""


@dataclass(slots=True)
class Usage:
    """The use of all copies of this instance."""

    terms: ScalingTerms = USUAL_TERMS
    uses: dict[str, Use] = field(default_factory=dict)

    def note(self, model_id: str, requests: int, last_used: int) -> None:
        """Counts requests, of which the last was at `last_used`."""
        use = self.uses.get(model_id)
        if use is None or last_used - use.last > self.terms.second_gap_ms:
            heavy = use.heavy if use else 0
            use = self.uses[model_id] = Use(since=last_used, last=last_used, heavy=heavy)
        use.last = max(use.last, last_used)
        use.requests += requests

    def look(self, elapsed_ms: int, now: int) -> list[str]:
        """Ends an interval: works out rates, returns what was used, forgets what was not for long."""
        used = []
        for model_id, use in list(self.uses.items()):
            use.rpm = use.requests * MINUTE_MS // max(1, elapsed_ms)
            if use.rpm > HEAVY * self.terms.threshold:
                use.heavy = now
            if use.requests:
                used.append(model_id)
            elif now - use.last > QUIET_MOST_MS:
                del self.uses[model_id]
            use.requests = 0
        return used

    def rpm(self, model_id: str) -> int:
        """Requests a minute of one model."""
        use = self.uses.get(model_id)
        return use.rpm if use else 0


@dataclass(frozen=True)
class Situation:
    """The instances that may hold a model."""

    candidates: Sequence[Candidate]

    @cached_property
    def free_share(self) -> float:
        """Part of the memory of all of them that is free."""
        capacity = sum(candidate.capacity.memory for candidate in self.candidates)
        free = sum(max(0, candidate.free.memory) for candidate in self.candidates)
        return free / capacity if capacity else 0.0

    def age(self, now: int) -> int:
        """Time since the oldest content was used; 0 where nothing is loaded."""
        oldest = min((each.lru_time for each in self.candidates if each.lru_time), default=now)
        return max(0, now - oldest)


@dataclass(frozen=True, slots=True)
class More:
    """Copies to add."""

    count: int
    reason: Growth
    last_used: int
    excluded: frozenset[str] = frozenset()
    """Instances that have enough to do."""


def more(
    use: Use, record: ModelRecord, situation: Situation, *, own_id: str, terms: ScalingTerms, now: int
) -> More | None:
    """The copies that a model should get in addition, seen from an instance that has one."""
    in_use = use.last - use.since >= terms.second_after_ms
    if use.rpm < terms.threshold and not in_use:
        return None
    live = {candidate.instance_id for candidate in situation.candidates}
    holders = [instance_id for instance_id in record.instances if instance_id in live]
    if use.rpm < terms.threshold and len(holders) != 1:
        return None
    without = [each for each in situation.candidates if each.ready and each.instance_id not in holders]
    if not without or (record.max_copies and len(holders) >= record.max_copies):
        return None
    most = len(without)
    if record.max_copies:
        most = min(most, record.max_copies - len(holders))
    if use.rpm >= terms.threshold:
        threshold = terms.threshold
        return _for_load(use, record, situation, most, holders, own_id=own_id, threshold=threshold, now=now)
    if _room_for_second(situation, now):
        return More(1, Growth.IN_USE, use.last)
    return None


def _for_load(
    use: Use,
    record: ModelRecord,
    situation: Situation,
    most: int,
    holders: Sequence[str],
    *,
    own_id: str,
    threshold: int,
    now: int,
) -> More | None:
    others = [id_ for id_ in holders if id_ != own_id]
    if any(record.instances[id_] > now - RECENT_LOAD_MS for id_ in others):
        return None
    if any(each.rpm < use.rpm * IDLE_SHARE for each in situation.candidates if each.instance_id in others):
        return None
    copies = max(1, math.ceil(use.rpm * len(holders) / threshold) - len(holders))
    if copies > 2:  # noqa: PLR2004 - the original's number
        copies = max(2, min(copies, len(situation.candidates) // GREATEST_GROWTH))
    # Others have their own load: a copy there should be a relief.
    own_rpm = next((each.rpm for each in situation.candidates if each.instance_id == own_id), use.rpm)
    limit = max(4 * threshold, own_rpm - 2 * threshold)
    busy = frozenset(each.instance_id for each in situation.candidates if each.rpm > limit)
    return More(min(copies, most), Growth.LOAD, now + AHEAD_MS, busy)


def _room_for_second(situation: Situation, now: int) -> bool:
    return situation.free_share >= FREE_FOR_SECOND or situation.age(now) > AGE_FOR_SECOND_MS


@dataclass(frozen=True, slots=True)
class Held:
    """A copy here that could go."""

    model_id: str
    size: int
    """Bytes."""
    last_used: int
    record: ModelRecord
    use: Use | None


def fewer(
    held: Iterable[Held],
    situation: Situation,
    *,
    own_id: str,
    capacity: int,
    terms: ScalingTerms,
    now: int,
) -> list[tuple[str, Shrinkage]]:
    """Copies that this instance should give up now, the longest unused first.

    `capacity` in bytes; what is given up is a small part of it, but for the first.
    """
    if situation.free_share > SCARCE:
        return []
    age = situation.age(now)
    live = {candidate.instance_id for candidate in situation.candidates}
    order = sorted(situation.candidates, key=_worth)
    allowance = int(capacity * GIVEN_UP)
    going: list[tuple[str, Shrinkage]] = []
    given = 0
    for copy in sorted(held, key=lambda copy: copy.last_used):
        others = [id_ for id_ in copy.record.loaded if id_ in live and id_ != own_id]
        if not others or len(others) + 1 <= copy.record.min_copies:
            continue
        reason = None
        if len(others) == 1:
            if _second_is_idle(copy, age, now) and _first_of(order, (own_id, others[0])) != own_id:
                reason = Shrinkage.IDLE
        elif _is_surplus(copy, age, terms.threshold, now):
            reason = Shrinkage.SURPLUS
        if reason is None or (going and given + copy.size > allowance):
            continue
        given += copy.size
        going.append((copy.model_id, reason))
    return going


def _second_is_idle(copy: Held, age: int, now: int) -> bool:
    idle = int(age * SECOND_IDLE_SHARE)
    heavy = copy.use.heavy if copy.use else 0
    if not heavy or now - heavy > SECOND_IDLE_MS:
        idle = min(idle, SECOND_IDLE_MS)
    return now - copy.last_used > idle


def _is_surplus(copy: Held, age: int, threshold: int, now: int) -> bool:
    record = copy.record
    if now - record.last_unload < UNLOADED_MS:
        return False
    if now - max(record.instances.values(), default=0) < SETTLED_MS:
        return False
    if copy.use is None:
        return True
    quiet = min(max(int(age * QUIET_SHARE) + 100_000, QUIET_LEAST_MS), QUIET_MOST_MS)
    return now - copy.use.heavy >= quiet and copy.use.rpm <= LIGHT * threshold


def _worth(candidate: Candidate) -> tuple[object, ...]:
    """The better an instance is for a copy, the earlier it comes: with room, little used, older content."""
    return (-candidate.free.memory, candidate.lru_time, candidate.rpm, candidate.instance_id)


def _first_of(order: Sequence[Candidate], ids: Collection[str]) -> str:
    return next((each.instance_id for each in order if each.instance_id in ids), "")


SPREAD = 0.10
"""An instance is emptier than others only where its use is this part of the capacity below the average."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Copies that should move to other instances."""

    models: tuple[str, ...] = ()
    targets: frozenset[str] = frozenset()


def surplus(held: Iterable[Held], situation: Situation, *, own_id: str, now: int) -> Moves:
    """Copies that this instance should hand to emptier ones, so that all are filled alike.

    So an instance that has joined gets its share of the work. Every other one of the most recently used goes,
    for it is the requests that should be spread.
    """
    going = about_to_go(situation.candidates, now)
    ready = [each for each in situation.candidates if each.ready and each.capacity.memory]
    own = next((each for each in ready if each.instance_id == own_id), None)
    if own is None:
        return Moves()
    average = sum(each.used.memory for each in ready) / sum(each.capacity.memory for each in ready)
    emptier = {
        each.instance_id: average * each.capacity.memory - each.used.memory
        for each in ready
        if each.used.memory / each.capacity.memory < average - SPREAD and each.instance_id not in going
    }
    excess = min(own.used.memory - average * own.capacity.memory, sum(emptier.values()))
    order = sorted(held, key=lambda copy: -copy.last_used)
    models = []
    for copy in [*order[::2], *order[1::2]]:
        if copy.size <= excess and not emptier.keys() & copy.record.instances.keys():
            excess -= copy.size
            models.append(copy.model_id)
    return Moves(tuple(models), frozenset(emptier))
