"""What to do next so that a model gets a copy that can serve: the pure decisions of one instance."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh import copies
from mesh.bytes import Route
from mesh.constraints import TypeConstraints
from mesh.copies import USUAL_TERMS, FailureTerms
from mesh.placement import Candidate, Placement, Reason, Wish, place
from store.records import InstanceRecord, ModelRecord, Resources

MAX_ATTEMPTS = 8
"""Instances tried, and waits for a lost server, for one call; the original's number."""
MAX_COPIES = 5
"""With so many copies of which none can serve, another one would not help; the original's number."""
MOST_COPIES = 1_000
"""Copies that are wanted in addition have no such limit; nobody has more instances."""


@dataclass(frozen=True, slots=True)
class OwnCopy:
    """This instance's copy of a model."""

    loaded: bool


def existing(
    own: OwnCopy | None, peers: Iterable[Route], *, own_id: str, tried: Collection[str]
) -> Placement | None:
    """A copy that can serve or will soon; those that were tried do not count."""
    if own and own_id in tried:
        own = None
    loading = None
    if own:
        if own.loaded:
            return Placement(own_id, Reason.LOADED)
        loading = own_id
    for route in peers:
        if route.instance_id in tried:
            continue
        if route.loaded:
            return Placement(route.instance_id, Reason.LOADED)
        loading = loading or route.instance_id
    return Placement(loading, Reason.LOADING) if loading else None


def further(
    record: ModelRecord,
    size: Resources,
    last_used: int,
    constraints: TypeConstraints,
    candidates: Sequence[Candidate],
    *,
    tried: Collection[str],
    failed: Collection[str],
    own_id: str,
    now: int,
    most: int = MAX_COPIES,
    failure_terms: FailureTerms = USUAL_TERMS,
) -> Placement:
    """Where a new copy goes, given all live instances.

    `failed` are those where the model failed in this call, whatever the record says yet; with `most` copies
    there is no other.
    """
    live = {candidate.instance_id for candidate in candidates}
    resting = {id_ for id_ in record.failed if id_ in live and failure_terms.retry_at(record, id_) > now}
    if len(resting.union(failed)) >= copies.MAX_FAILURES:
        return Placement(None, Reason.FAILED)
    holders = [instance_id for instance_id in record.instances if instance_id in live]
    if len(holders) >= most:
        return Placement(None, Reason.COPIES)
    wish = Wish(
        constraints.of(record.type), size, last_used, holders=holders, excluded=resting.union(failed, tried)
    )
    return place(wish, candidates, own_id=own_id, now=now)


class Candidates:
    """Live instances as candidates; what has not changed is not made again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[InstanceRecord, Candidate]] = {}
        self._constraints: TypeConstraints | None = None

    def of(self, instances: Mapping[str, InstanceRecord], constraints: TypeConstraints) -> list[Candidate]:
        """Candidates of all instances that are not leaving."""
        if constraints is not self._constraints:
            self._known.clear()
            self._constraints = constraints
        found = []
        for instance_id, record in instances.items():
            if record.shutdown:
                continue
            known = self._known.get(instance_id)
            if known is None or known[0] is not record:
                known = (record, _candidate(instance_id, record, constraints))
                self._known[instance_id] = known
            found.append(known[1])
        if len(self._known) > len(found):
            self._known = {id_: known for id_, known in self._known.items() if id_ in instances}
        return found


def _candidate(instance_id: str, record: InstanceRecord, constraints: TypeConstraints) -> Candidate:
    return Candidate(
        instance_id=instance_id,
        labels=frozenset(record.labels),
        capacity=record.capacity,
        used=record.used,
        lru_time=record.lru_time,
        loading=record.loading,
        load_slots=record.load_slots,
        rpm=record.rpm,
        ready=record.ready,
        node=record.location,
        zone=record.zone,
        version=record.version,
        started=record.start_time,
        reserve=constraints.reserve(record.labels),
    )
