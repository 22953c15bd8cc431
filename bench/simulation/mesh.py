"""A mesh of many instances without I/O: the product's own decisions on a fake clock."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.simulation.reference import Outcome
from mesh import copies
from mesh.admission import Admission
from mesh.bytes import Route
from mesh.cache import Cache, Phase
from mesh.choice import MAX_ATTEMPTS, Candidates, OwnCopy, existing, further
from mesh.constraints import TypeConstraints
from mesh.placement import Reason
from mesh.presence import GAP_SECONDS, LONGEST_GAP_SECONDS, RATE_SECONDS, matters
from store.records import InstanceRecord, ModelRecord, Resources

START_MS = 1_700_000_000_000
PATIENCE_MS = 10_000
"""Deadline of every request."""
UNRESTRICTED = TypeConstraints()


@dataclass(frozen=True, slots=True)
class Speed:
    """What things take, in milliseconds."""

    between_requests: float = 20.0
    load: int = 300
    unload: int = 50


@dataclass(slots=True)
class Instance:
    """One instance, and what the others know of it."""

    instance_id: str
    admission: Admission
    started: int
    requests: int = 0
    published: InstanceRecord = field(default_factory=InstanceRecord)
    published_at: int = 0
    due: bool = False
    """A publication is on its way."""

    @property
    def cache(self) -> Cache:
        """Its copies."""
        return self.admission.cache

    def record(self, now: int) -> InstanceRecord:
        """What `mesh.presence` would say of it."""
        return InstanceRecord(
            lru_time=self.cache.oldest(),
            count=len(self.cache),
            capacity=self.cache.capacity,
            used=self.cache.promised.ceiling(self.cache.in_use),
            load_slots=self.admission.slots,
            loading=len(self.admission),
            rpm=self.requests * RATE_SECONDS * 1_000 // max(RATE_SECONDS * 1_000, now - self.started),
            ready=True,
            start_time=self.started,
        )


class SimulatedMesh:
    """Takes one request after the other; time passes between them."""

    def __init__(
        self,
        instances: int,
        capacity: int,
        sizes: Sequence[int],
        *,
        slots: int = 8,
        speed: Speed | None = None,
    ) -> None:
        self.now = START_MS
        self.refused = 0
        self.loads = 0
        self.over_capacity = 0
        """Most bytes in use beyond an instance's capacity, ever."""
        self._sizes = [Resources(size) for size in sizes]
        self._capacity = capacity
        self._slots = slots
        self._speed = speed or Speed()
        self._records: dict[str, ModelRecord] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._instances: dict[str, Instance] = {}
        self._order: list[Instance] = []
        self._candidates = Candidates()
        self._rows: dict[str, InstanceRecord] = {}
        self._waiting: dict[str, set[str]] = defaultdict(set)
        self._clock = float(START_MS)
        self._made = 0
        for _ in range(instances):
            self.join()

    def join(self) -> None:
        """An empty instance comes."""
        name = f"instance-{self._made}"
        self._made += 1
        admission = Admission(Cache(Resources(self._capacity)))
        admission.slots = self._slots
        instance = Instance(name, admission, self.now)
        self._instances[name] = instance
        self._order.append(instance)
        self._publish(instance)

    def lose(self, place: int) -> None:
        """An instance dies, and its copies with it; what waited for it is loaded elsewhere."""
        instance = self._order.pop(place % len(self._order))
        del self._instances[instance.instance_id]
        del self._rows[instance.instance_id]
        for model_id, record in self._records.items():
            if instance.instance_id in record.instances:
                self._records[model_id] = copies.vanished(instance.instance_id)(record)
        for model_id in self._waiting.pop(instance.instance_id, set()):
            self._ensure(self._order[0], model_id)

    def request(self, model: int, entry: float) -> bool:
        """One request enters; returns whether it found a loaded copy."""
        self._clock += self._speed.between_requests
        self._run_until(int(self._clock))
        ingress = self._order[int(entry * len(self._order))]
        model_id = str(model)
        record = self._records.get(model_id)
        if record and record.loaded:
            holder = self._instances[next(iter(record.loaded))]
            holder.cache.touch(model_id, self.now)
            holder.requests += 1
            return True
        if record is None:
            self._records[model_id] = ModelRecord(type="t")
        self._ensure(ingress, model_id)
        return False

    def run(
        self,
        models: Sequence[int],
        entries: Sequence[float],
        events: dict[int, Callable[[], None]],
        warm_up: int,
    ) -> Outcome:
        """Takes all requests; `events` happen before the requests of their numbers."""
        hits = loads_before = 0
        for number, (model, entry) in enumerate(zip(models, entries, strict=True)):
            if number == warm_up:
                loads_before = self.loads
            if event := events.get(number):
                event()
            hit = self.request(model, entry)
            hits += hit and number >= warm_up
        return Outcome(len(models) - warm_up, hits, self.loads - loads_before)

    def _ensure(self, ingress: Instance, model_id: str) -> None:
        """The steps of `mesh.ensure` for one request."""
        size = self._sizes[int(model_id)]
        own_id = ingress.instance_id
        tried: set[str] = set()
        for _ in range(MAX_ATTEMPTS):
            record = self._records[model_id]
            own = OwnCopy(own_id in record.loaded) if own_id in record.instances else None
            peers = [Route(id_, id_, id_ in record.loaded) for id_ in record.instances if id_ != own_id]
            choice = existing(own, peers, own_id=own_id, tried=tried)
            if choice is None:
                rows = {**self._rows, own_id: ingress.record(self.now)}
                choice = further(
                    record,
                    size,
                    self.now,
                    UNRESTRICTED,
                    self._candidates.of(rows, UNRESTRICTED),
                    tried=tried,
                    failed=(),
                    own_id=own_id,
                    now=self.now,
                )
            target = choice.instance_id
            if choice.reason is Reason.LOADED or target is None:
                break
            if self._load(self._instances[target], model_id):
                return
            tried.add(target)
        self.refused += 1

    def _load(self, instance: Instance, model_id: str) -> bool:
        admission = instance.admission
        waiting = self._waiting[instance.instance_id]
        if model_id in waiting:
            admission.promote(model_id, self.now)
            return True
        if admission.refusal(urgent=True, patience_ms=PATIENCE_MS):
            return False
        self._change(model_id, copies.claimed(instance.instance_id, self.now, self.now))
        waiting.add(model_id)
        admission.take(model_id, self.now, urgent=True)
        admission.stand(model_id, self._sizes[int(model_id)])
        self._step(instance)
        return model_id in waiting

    def _step(self, instance: Instance) -> None:
        steps = instance.admission.step(self.now)
        for model_id, _ in steps.refused:
            self._waiting[instance.instance_id].discard(model_id)
            self._change(model_id, copies.gone(instance.instance_id))
            instance.admission.leave(model_id, self.now)
        for model_id in steps.evict:
            self._unload(instance, model_id)
        for model_id in steps.start:
            self.loads += 1
            self._later(self._speed.load, partial(self._loaded, instance, model_id))
        self.over_capacity = max(
            self.over_capacity, instance.cache.in_use.memory - instance.cache.capacity.memory
        )
        self._changed(instance)

    def _loaded(self, instance: Instance, model_id: str) -> None:
        if not self._lives(instance):
            return
        size = self._sizes[int(model_id)]
        instance.cache.touch(model_id, self.now)
        for victim in instance.admission.loaded(model_id, size):
            self._unload(instance, victim)
        instance.admission.leave(model_id, self.now)
        self._waiting[instance.instance_id].discard(model_id)
        instance.requests += 1
        self._change(model_id, copies.loaded(instance.instance_id, self.now, size))
        self._step(instance)

    def _unload(self, instance: Instance, model_id: str) -> None:
        self._change(model_id, copies.gone(instance.instance_id, now=self.now))

        def freed() -> None:
            instance.cache.freed(model_id)
            if self._lives(instance):
                self._step(instance)

        self._later(self._speed.unload, freed)

    def _change(self, model_id: str, change: copies.Change) -> None:
        if (after := change(self._records[model_id])) is not None:
            self._records[model_id] = after

    def _changed(self, instance: Instance) -> None:
        """Publishes soon where others may want to know, as `mesh.presence` does."""
        if instance.due:
            return
        overdue = self.now - instance.published_at >= LONGEST_GAP_SECONDS * 1_000
        if overdue or matters(instance.published, instance.record(self.now)):
            instance.due = True
            gap = instance.published_at + GAP_SECONDS * 1_000 - self.now
            self._later(max(0, int(gap)), lambda: self._publish(instance))

    def _publish(self, instance: Instance) -> None:
        instance.due = False
        if self._lives(instance):
            instance.published = instance.record(self.now)
            instance.published_at = self.now
            self._rows[instance.instance_id] = instance.published

    def _lives(self, instance: Instance) -> bool:
        return self._instances.get(instance.instance_id) is instance

    def _later(self, milliseconds: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (self.now + milliseconds, self._sequence, action))

    def _run_until(self, time: int) -> None:
        while self._events and self._events[0][0] <= time:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = time

    def check(self) -> None:
        """Raises AssertionError where the registry and the caches disagree."""
        for model_id, record in self._records.items():
            for instance_id in record.loaded:
                copy = self._instances[instance_id].cache.get(model_id)
                assert copy is not None, model_id  # noqa: S101 - what the simulation must never do
                assert copy.phase is Phase.LOADED, model_id  # noqa: S101
