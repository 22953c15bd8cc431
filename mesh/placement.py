"""Where to load a model: a pure function from a snapshot of the instances to a decision with its reason."""

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mesh.constraints import Requirement, allows, prefers
from store.records import Resources

SIMILAR_AGE_SHARE = 0.1
SIMILAR_AGE_MS = 45_000
"""Full instances whose oldest copies were last used within this time, or share of the age, of each other
count as equally full: the numbers of the original."""


class Reason(enum.Enum):
    """Why a model goes where it goes, or nowhere."""

    FREE_HERE = "this instance has room"
    FREE_MOST = "the instance has room and the least to do"
    OLDEST_HERE = "all are full, and what this instance would evict is about as old as anywhere"
    OLDEST = "all are full, and this instance would evict the oldest"
    NO_LABELS = "no running instance has the labels that the model's type requires"
    NOT_READY = "the instances that could hold the model are not ready"
    TRIED = "all instances that could hold the model were tried"
    TOO_LARGE = "no instance is large enough for the model"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One instance, as far as placement cares."""

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


@dataclass(frozen=True, slots=True)
class Placement:
    """The decision; without an instance the reason says why not."""

    instance_id: str | None
    reason: Reason


def place(
    requirement: Requirement,
    size: Resources,
    candidates: Sequence[Candidate],
    *,
    excluded: Collection[str],
    own_id: str,
    now: int,
) -> Placement:
    """Chooses an instance for a model of this size (an estimate is enough).

    Free room comes first, then the oldest content; this instance wins where it is about as good, because the
    request is here. `now` is in milliseconds since 1970. The same input gives the same answer.
    """
    allowed = [candidate for candidate in candidates if allows(requirement, candidate.labels)]
    if not allowed:
        return Placement(None, Reason.NO_LABELS)
    untried = [candidate for candidate in allowed if candidate.instance_id not in excluded]
    if not untried:
        return Placement(None, Reason.TRIED)
    ready = [candidate for candidate in untried if candidate.ready]
    if not ready:
        return Placement(None, Reason.NOT_READY)
    large = [candidate for candidate in ready if size.fits(candidate.capacity)]
    if not large:
        return Placement(None, Reason.TOO_LARGE)
    with_room = [candidate for candidate in large if size.fits(candidate.capacity - candidate.used)]
    pool = _preferred(requirement, with_room) or with_room
    if pool:
        return _least_to_do(pool, own_id)
    return _oldest_content(_preferred(requirement, large) or large, own_id, now)


def _preferred(requirement: Requirement, candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if prefers(requirement, candidate.labels)]


def _least_to_do(candidates: Sequence[Candidate], own_id: str) -> Placement:
    best = min(
        candidates,
        key=lambda candidate: (
            max(0, candidate.loading + 1 - candidate.load_slots),
            candidate.instance_id != own_id,
            candidate.rpm,
            -(candidate.capacity - candidate.used).memory,
            candidate.instance_id,
        ),
    )
    return Placement(best.instance_id, Reason.FREE_HERE if best.instance_id == own_id else Reason.FREE_MOST)


def _oldest_content(candidates: Sequence[Candidate], own_id: str, now: int) -> Placement:
    oldest = min(candidate.lru_time or now for candidate in candidates)
    tolerance = max(SIMILAR_AGE_MS, int((now - oldest) * SIMILAR_AGE_SHARE))
    similar = [candidate for candidate in candidates if (candidate.lru_time or now) <= oldest + tolerance]
    best = min(
        similar,
        key=lambda candidate: (
            max(0, candidate.loading + 1 - candidate.load_slots),
            candidate.instance_id != own_id,
            candidate.lru_time,
            candidate.instance_id,
        ),
    )
    here = best.instance_id == own_id
    return Placement(best.instance_id, Reason.OLDEST_HERE if here else Reason.OLDEST)
