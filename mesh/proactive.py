"""Which models to load before anybody asks: a pure function from a snapshot to a list.

Free room is filled by half, with what was used last, and an eighth of each instance stays free for what is
asked for. Where instances are full, up to a twentieth may go to models that lost their copies but were used
clearly more recently than the oldest content: so the cache comes back after instances were lost. The numbers
are those of the original.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mesh.constraints import TypeConstraints, allows
from mesh.copies import USUAL_TERMS, FailureTerms
from store.records import InstanceRecord, ModelRecord

KEPT_FREE = 8
"""One part in so many of an instance is left for requests."""
FILLED = 2
"""One part in so many of the room is filled in one go."""
REPLACED = 20
"""One part in so many of the capacity may be replaced in one go."""
LOADS_PER_SLOT = 50
"""An instance gets at most so many loads for each that it does at a time."""
NEWER_MS = 20 * 60_000
"""What replaces others was used at least so much later than the oldest of them, and a third of its age."""
MAX_FAILURES = 1
"""Instances where the model failed; with more it waits for somebody to ask."""


class Reason(enum.Enum):
    """Why a model is loaded."""

    FREE_ROOM = "there is room, and it was used most recently of those without a copy"
    NEWER = "it was used more recently than what it displaces"


class Load(NamedTuple):
    """A model to be loaded."""

    model_id: str
    last_used: int
    reason: Reason


@dataclass(slots=True)
class _Room:
    """What one instance can take: bytes, and loads."""

    free: int
    loads: int


@dataclass(slots=True)
class _Group:
    """Instances that may hold the same types, and the models of those types."""

    instances: tuple[str, ...]
    models: list[tuple[int, str, int]] = field(default_factory=list)
    """(-last used, model id, bytes or 0)."""


def plan(
    models: Iterable[tuple[str, ModelRecord]],
    instances: Mapping[str, InstanceRecord],
    constraints: TypeConstraints,
    now: int,
    failure_terms: FailureTerms = USUAL_TERMS,
) -> list[Load]:
    """The models to load now, most recently used first within each set of instances."""
    live = {id_: record for id_, record in instances.items() if record.ready and not record.shutdown}
    rooms = {id_: _room(record) for id_, record in live.items()}
    groups = _groups(models, live, constraints, now, failure_terms)
    loads: list[Load] = []
    for group in sorted(groups, key=lambda group: -sum(rooms[id_].free for id_ in group.instances)):
        group.models.sort()
        loads += _fill(group, {id_: live[id_] for id_ in group.instances}, rooms, now)
    return loads


def _room(record: InstanceRecord) -> _Room:
    spare = record.capacity.memory - record.used.memory - record.capacity.memory // KEPT_FREE
    return _Room(max(0, spare) // FILLED, max(0, LOADS_PER_SLOT * record.load_slots - record.loading))


def _groups(
    models: Iterable[tuple[str, ModelRecord]],
    live: Mapping[str, InstanceRecord],
    constraints: TypeConstraints,
    now: int,
    failure_terms: FailureTerms,
) -> list[_Group]:
    by_type: dict[str, _Group] = {}
    by_instances: dict[tuple[str, ...], _Group] = {}
    for model_id, record in models:
        if not _wanting(record, live, now, failure_terms):
            continue
        group = by_type.get(record.type)
        if group is None:
            requirement = constraints.of(record.type)
            home = tuple(sorted(id_ for id_ in live if allows(requirement, live[id_].labels)))
            group = by_type[record.type] = by_instances.setdefault(home, _Group(home))
        if group.instances:
            size = record.size.memory if record.size else 0
            group.models.append((-min(record.last_used, now), model_id, size))
    return [group for group in by_instances.values() if group.models]


def _wanting(
    record: ModelRecord, live: Mapping[str, InstanceRecord], now: int, failure_terms: FailureTerms
) -> bool:
    if record.instances and any(id_ in live for id_ in record.instances):
        return False
    if not record.failed:
        return True
    failed = [id_ for id_ in record.failed if id_ in live]
    return len(failed) <= MAX_FAILURES and all(failure_terms.retry_at(record, id_) <= now for id_ in failed)


def _fill(
    group: _Group, instances: Mapping[str, InstanceRecord], rooms: Mapping[str, _Room], now: int
) -> list[Load]:
    assumed = _average(instances)
    allowance = sum(record.capacity.memory for record in instances.values()) // REPLACED
    newer_than = _newer_than(instances, now)
    fits = _taker(group.instances, rooms)
    loads = []
    for minus_used, model_id, known in group.models:
        size = known or assumed
        if fits(size):
            allowance -= size
            loads.append(Load(model_id, -minus_used, Reason.FREE_ROOM))
        elif size <= allowance and newer_than is not None and -minus_used > newer_than:
            allowance -= size
            loads.append(Load(model_id, -minus_used, Reason.NEWER))
        else:
            break
    return loads


def _taker(ids: Iterable[str], rooms: Mapping[str, _Room]) -> Callable[[int], bool]:
    candidates = [rooms[id_] for id_ in ids]

    def take(size: int) -> bool:
        room = max((room for room in candidates if room.loads), key=lambda room: room.free, default=None)
        if room is None or room.free < size:
            return False
        room.free -= size
        room.loads -= 1
        return True

    return take


def _average(instances: Mapping[str, InstanceRecord]) -> int:
    """Bytes of a model, where its own size is not known: as of those that are loaded, or the default."""
    count = sum(record.count for record in instances.values())
    if count >= 3:  # noqa: PLR2004 - the original's number: fewer say too little
        return max(1, sum(record.used.memory for record in instances.values()) // count)
    return max((record.default_size.memory for record in instances.values()), default=0) or 1


def _newer_than(instances: Mapping[str, InstanceRecord], now: int) -> int | None:
    oldest = min((record.lru_time for record in instances.values() if record.lru_time), default=None)
    return None if oldest is None else oldest + max((now - oldest) // 3, NEWER_MS)
