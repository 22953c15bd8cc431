"""Where to load a model: a pure function from a snapshot of the instances to a decision with its reason."""

import enum
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mesh.constraints import Requirement, allows, prefers
from mesh.upgrade import about_to_go
from store.records import Resources

SIMILAR_AGE_SHARE = 0.1
SIMILAR_AGE_MS = 45_000
"""Full instances whose oldest copies were last used within this time, or share of the age, of each other
count as equally full: the numbers of the original."""
PREFERRED_AGE_SHARE = 0.25
PREFERRED_AGE_MS = 120_000
"""The same for preferred instances, which may evict something that much younger."""
YOUNG_MS = 600_000
"""A newer release is not preferred where it is full of what was used since: twice the age below which the
original, with a load timeout of 90 s, spoke of churn."""
BUSY_RPM = 100
"""Below this many requests a minute nobody is busy."""
BUSY_FACTORS = ((-1_000, 1.1), (5_000, 1.5), (720_000, 3.0), (86_400_000, 4.0))
"""A model unused for less than so many milliseconds (before now: more copies of it are wanted) does not go
where there are that many times the requests of the least busy instance: the numbers of the original."""
_VERSION = re.compile(r"v?\d+([.-]\d+)*")


class Reason(enum.Enum):
    """Why a model goes where it goes, or nowhere."""

    FREE_HERE = "this instance has room"
    FREE_MOST = "the instance has room and the least to do"
    OLDEST_HERE = "all are full, and what this instance would evict is about as old as anywhere"
    OLDEST = "all are full, and this instance would evict the oldest"
    LOADED = "a copy can serve"
    LOADING = "a copy is being loaded"
    NO_LABELS = "no running instance has the labels that the model's type requires"
    NOT_READY = "the instances that could hold the model are not ready"
    TRIED = "all instances that could hold the model were tried"
    TOO_LARGE = "no instance is large enough for the model"
    FAILED = "the model failed on too many instances"
    COPIES = "there are enough copies, and none can serve"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One instance, as far as placement cares. Times are milliseconds since 1970."""

    instance_id: str
    labels: frozenset[str]
    capacity: Resources
    used: Resources
    lru_time: int
    """Last use of what it would evict first; 0 where it holds nothing."""
    loading: int
    load_slots: int
    rpm: int
    ready: bool
    node: str = ""
    zone: str = ""
    version: str = ""
    started: int = 0
    reserve: int = 0
    """How little types need it that may not go elsewhere: one that prefers no label goes where this is
    larger."""

    @property
    def free(self) -> Resources:
        """What it can take without an eviction."""
        return self.capacity - self.used


@dataclass(frozen=True, slots=True)
class Placement:
    """The decision; without an instance the reason says why not."""

    instance_id: str | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be placed."""

    requirement: Requirement
    size: Resources
    """An estimate is enough."""
    last_used: int
    holders: Collection[str] = ()
    """Instances that have a copy, from which a further one should be far."""
    excluded: Collection[str] = ()


def place(wish: Wish, candidates: Sequence[Candidate], *, own_id: str, now: int) -> Placement:
    """Chooses an instance.

    Free room comes first, then the oldest content; this instance wins where it is about as good, because the
    request is here. The same input gives the same answer.
    """
    allowed = [candidate for candidate in candidates if allows(wish.requirement, candidate.labels)]
    if not allowed:
        return Placement(None, Reason.NO_LABELS)
    untried = [candidate for candidate in allowed if candidate.instance_id not in wish.excluded]
    if not untried:
        return Placement(None, Reason.TRIED)
    ready = [candidate for candidate in untried if candidate.ready]
    if not ready:
        return Placement(None, Reason.NOT_READY)
    large = [candidate for candidate in ready if wish.size.fits(candidate.capacity)]
    if not large:
        return Placement(None, Reason.TOO_LARGE)
    going = about_to_go(candidates, now)
    staying = [candidate for candidate in large if candidate.instance_id not in going] or large
    with_room = [candidate for candidate in staying if wish.size.fits(candidate.free)]
    rank = _Rank(wish, candidates, own_id, now)
    if with_room:
        pool = _preferred(wish.requirement, with_room) or with_room
        best = min(_newest(pool), key=rank.with_room)
        return Placement(
            best.instance_id, Reason.FREE_HERE if best.instance_id == own_id else Reason.FREE_MOST
        )
    best = min(_oldest_content(wish.requirement, staying, now), key=rank.full)
    return Placement(best.instance_id, Reason.OLDEST_HERE if best.instance_id == own_id else Reason.OLDEST)


class _Rank:
    """Orders candidates that are otherwise as good as each other, the best first."""

    def __init__(self, wish: Wish, candidates: Sequence[Candidate], own_id: str, now: int) -> None:
        holders = [candidate for candidate in candidates if candidate.instance_id in wish.holders]
        self._zones = {holder.zone for holder in holders if holder.zone}
        self._nodes = {holder.node for holder in holders if holder.node}
        self._own_id = own_id
        factor = next((factor for unused, factor in BUSY_FACTORS if now - wish.last_used < unused), None)
        least = min(candidate.rpm for candidate in candidates)
        self._busy = max(BUSY_RPM, least) * factor if factor else float("inf")

    def with_room(self, candidate: Candidate) -> tuple[object, ...]:
        return (*self._common(candidate), candidate.rpm, -candidate.free.memory, candidate.instance_id)

    def full(self, candidate: Candidate) -> tuple[object, ...]:
        return (*self._common(candidate), candidate.lru_time, candidate.instance_id)

    def _common(self, candidate: Candidate) -> tuple[object, ...]:
        return (
            candidate.zone in self._zones,
            candidate.node in self._nodes,
            max(0, candidate.loading + 1 - candidate.load_slots),
            candidate.rpm > self._busy,
            candidate.instance_id != self._own_id,
        )


def _preferred(requirement: Requirement, candidates: Sequence[Candidate]) -> list[Candidate]:
    if requirement.preferred:
        return [candidate for candidate in candidates if prefers(requirement, candidate.labels)]
    most = max(candidate.reserve for candidate in candidates)
    return [candidate for candidate in candidates if candidate.reserve == most]


def _oldest_content(requirement: Requirement, candidates: Sequence[Candidate], now: int) -> list[Candidate]:
    """Full instances that would evict about the oldest; of those preferred ones, if there are any."""
    ages = {candidate.instance_id: now - (candidate.lru_time or now) for candidate in candidates}
    oldest = max(ages.values())

    def within(share: float, least: int) -> list[Candidate]:
        tolerance = max(least, oldest * share)
        return [candidate for candidate in candidates if ages[candidate.instance_id] >= oldest - tolerance]

    if requirement.preferred:
        preferred = _preferred(requirement, within(PREFERRED_AGE_SHARE, PREFERRED_AGE_MS))
        if preferred:
            return preferred
    if _releases(candidates):
        settled = [candidate for candidate in _newest(candidates) if ages[candidate.instance_id] >= YOUNG_MS]
        if settled:
            return settled
    similar = within(SIMILAR_AGE_SHARE, SIMILAR_AGE_MS)
    return _preferred(requirement, similar) or similar


def _releases(candidates: Sequence[Candidate]) -> list[list[int]]:
    """The releases of all candidates, where they are several and can be compared."""
    versions = {candidate.version for candidate in candidates}
    if len(versions) < 2 or not all(_VERSION.fullmatch(version) for version in versions):  # noqa: PLR2004
        return []
    return sorted(_release(version) for version in versions)


def _release(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _newest(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those of the newest release."""
    releases = _releases(candidates)
    if not releases:
        return candidates
    return [candidate for candidate in candidates if _release(candidate.version) == releases[-1]]
