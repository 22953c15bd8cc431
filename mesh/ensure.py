"""Makes sure that a model has a copy that can serve: finds one, waits for one, or has one loaded."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from mesh import copies
from mesh.constraints import TypeConstraints
from mesh.errors import (
    LoadFailedError,
    MeshError,
    ModelNotFoundError,
    NoCapacityError,
    NoHomeError,
    RegistryUnavailableError,
    RuntimeDownError,
    TooOldError,
)
from mesh.guard import RuntimeGuard
from mesh.loading import Loader
from mesh.metrics import PolicyMetrics
from mesh.peer import Peers
from mesh.placement import Candidate, Placement, Reason, place
from mesh.registry import Registry
from mesh.routes import Routes
from mesh.runtime import ModelInfo, Runtime
from store.records import NOTHING, InstanceRecord, ModelRecord, Resources

MAX_ATTEMPTS = 8
"""Instances tried, and waits for a lost server, for one call; the original's number."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Load:
    """A load here with its record. `urgent` is set as soon as a request waits for it."""

    last_used: int
    urgent: bool
    routed: asyncio.Future[Resources]
    """Ends when the copy can serve; the task ends when its record says so."""
    task: asyncio.Task[Resources] = field(init=False)


class Ensurer:
    """Loads here and asks peers. Several calls for one model share its load."""

    def __init__(
        self,
        registry: Registry,
        runtime: Runtime,
        loader: Loader,
        guard: RuntimeGuard,
        routes: Routes,
        peers: Peers,
        *,
        constraints: Callable[[], TypeConstraints],
        own_record: Callable[[], InstanceRecord],
        metrics: PolicyMetrics,
        now: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._runtime = runtime
        self._loader = loader
        self._guard = guard
        self._routes = routes
        self._peers = peers
        self._constraints = constraints
        self._own_record = own_record
        self._metrics = metrics
        self._now = now
        self._own_id = registry.instance_id
        self._loads: dict[str, _Load] = {}

    def is_here(self, model_id: str) -> bool:
        """Whether a copy is on this instance or on its way."""
        return (
            model_id in self._loads or self._loader.is_loaded(model_id) or self._loader.is_pending(model_id)
        )

    def is_loading(self, model_id: str) -> bool:
        """Whether this instance is loading the model and has its record in hand."""
        return model_id in self._loads

    async def ensure(
        self,
        model_id: str,
        *,
        last_used: int,
        urgent: bool,
        excluded: Collection[str] = (),
        recorded: bool = True,
    ) -> None:
        """Returns when some copy can serve and is routed; those on excluded instances do not count.

        With `recorded`, the registry says so too. A request does not wait for that.

        Raises ModelNotFoundError, LoadFailedError, NoCapacityError, NoHomeError, RuntimeDownError or
        RegistryUnavailableError.
        """
        tried = set(excluded)
        last: MeshError | None = None
        for _ in range(MAX_ATTEMPTS):
            record = await self._registry.find(model_id)
            if self._can_serve(model_id, tried):
                return
            target = self._under_way(model_id, tried)
            target = target or self._choose(record, await self._expected_size(model_id, record), tried, last)
            log.debug("ensuring a copy", model=model_id, instance=target)
            if target is None:
                await self._guard.wait_ready()
                continue
            try:
                if target == self._own_id:
                    await self.load_here(model_id, last_used=last_used, urgent=urgent, recorded=recorded)
                else:
                    await self._load_there(target, model_id, last_used=last_used, urgent=urgent)
            except RegistryUnavailableError:
                raise
            except MeshError as error:
                last = error
                lost = target == self._own_id and isinstance(error, RuntimeDownError)
                if not (lost and await self._guard.suspect()):
                    tried.add(target)
            else:
                return
        raise last or RuntimeDownError(f"no copy of the model could be had in {MAX_ATTEMPTS} attempts")

    async def load_here(
        self, model_id: str, *, last_used: int, urgent: bool, recorded: bool = True
    ) -> Resources:
        """Loads a model on this instance, and returns when the copy can serve, or is also `recorded`.

        Raises as `ensure`; a failure is recorded in any case.
        """
        while True:
            load = self._loads.get(model_id) or self._begin(model_id, last_used, urgent=urgent)
            if load.routed.done() and not self._loader.is_loaded(model_id):
                # The copy has gone again before its record was written.
                await asyncio.wait({load.task})
                continue
            load.last_used = max(load.last_used, last_used)
            if urgent:
                load.urgent = True
                self._loader.promote(model_id, last_used)
            try:
                return await asyncio.shield(load.task if recorded else load.routed)
            except TooOldError:
                if not urgent:
                    raise
                # It was refused as the background load that it was before this request came.
                if self._loads.get(model_id) is load:
                    del self._loads[model_id]

    def placement(self, record: ModelRecord, size: Resources, tried: Collection[str] = ()) -> Placement:
        """Where a new copy of the model would go now."""
        resting = {
            instance_id for instance_id in record.failed if copies.retry_at(record, instance_id) > self._now()
        }
        return place(
            self._constraints().of(record.type),
            size,
            self._candidates(),
            excluded={*tried, *resting},
            own_id=self._own_id,
            now=self._now(),
        )

    def no_home(self, model_type: str) -> NoHomeError | None:
        """The error for models of a type that no running instance may hold."""
        requirement = self._constraints().of(model_type)
        decision = place(
            requirement, NOTHING, self._candidates(), excluded=(), own_id=self._own_id, now=self._now()
        )
        if decision.reason is Reason.NO_LABELS:
            return NoHomeError(model_type, requirement.required)
        return None

    async def close(self) -> None:
        """Gives up what is under way."""
        tasks = [load.task for load in self._loads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _can_serve(self, model_id: str, tried: Collection[str]) -> bool:
        if self._own_id not in tried and self._routes.own(model_id):
            return True
        return any(route.loaded and route.instance_id not in tried for route in self._routes.peers(model_id))

    def _under_way(self, model_id: str, tried: Collection[str]) -> str | None:
        if self._own_id not in tried and self.is_here(model_id):
            return self._own_id
        loading = (route.instance_id for route in self._routes.peers(model_id) if not route.loaded)
        return next((instance_id for instance_id in loading if instance_id not in tried), None)

    def _choose(
        self, record: ModelRecord, size: Resources, tried: Collection[str], last: MeshError | None
    ) -> str | None:
        failed = [id_ for id_ in record.failed if self._registry.live(id_)]
        resting = [id_ for id_ in failed if copies.retry_at(record, id_) > self._now()]
        failure = copies.last_failure(record) if failed else None
        if failure and len(resting) >= copies.MAX_FAILURES:
            raise failure
        decision = self.placement(record, size, tried)
        if decision.instance_id:
            log.debug("placing a copy", instance=decision.instance_id, reason=decision.reason.name)
            return decision.instance_id
        if decision.reason is Reason.NO_LABELS:
            raise NoHomeError(record.type, self._constraints().of(record.type).required)
        if decision.reason is Reason.NOT_READY and self._guard.terms is None and self._own_id not in tried:
            return None
        if decision.reason is Reason.NOT_READY:
            raise last or RuntimeDownError("the instances that could hold the model are starting")
        if decision.reason is Reason.TOO_LARGE:
            too_large = NoCapacityError("no instance is large enough for the model")
            too_large.retry_after_ms = None
            raise too_large
        raise last or failure or NoCapacityError("Nowhere available to load")

    async def _expected_size(self, model_id: str, record: ModelRecord) -> Resources:
        if record.size is not None:
            return record.size
        if self._guard.terms is None:
            return NOTHING
        if len(self._registry.instances) > 1:
            info = ModelInfo(model_id, record.type, record.path, record.key)
            if predicted := await self._runtime.predict(info):
                return predicted
        return self._guard.terms.default_size if self._guard.terms else NOTHING

    def _candidates(self) -> list[Candidate]:
        rows = {id_: row.value for id_, row in self._registry.instances.items()}
        rows[self._own_id] = self._own_record()
        return [_candidate(id_, record) for id_, record in rows.items() if not record.shutdown]

    async def _load_there(self, instance_id: str, model_id: str, *, last_used: int, urgent: bool) -> None:
        row = self._registry.instances.get(instance_id)
        if row is None:
            raise RuntimeDownError(f"instance {instance_id} has gone")
        await self._peers.load(row.value.address, model_id, last_used=last_used, urgent=urgent)
        record = self._registry.peek(model_id)
        if record is None or instance_id not in record.loaded:
            await self._registry.refresh(model_id)
        self._routes.flush()

    def _begin(self, model_id: str, last_used: int, *, urgent: bool) -> _Load:
        load = _Load(last_used, urgent, asyncio.get_running_loop().create_future())

        def end(task: asyncio.Task[Resources]) -> None:
            error = None if task.cancelled() else task.exception()
            if not load.routed.done():
                if error:
                    load.routed.set_exception(error)
                    load.routed.exception()
                else:
                    load.routed.cancel()
            if self._loads.get(model_id) is load:
                del self._loads[model_id]

        load.task = asyncio.create_task(self._load_here(model_id, load), name=f"here {model_id}")
        load.task.add_done_callback(end)
        self._loads[model_id] = load
        return load

    async def _load_here(self, model_id: str, load: _Load) -> Resources:
        started = self._now()
        record = await self._registry.update(model_id, copies.claimed(self._own_id, started, load.last_used))
        if record is None:
            raise ModelNotFoundError(model_id)
        try:
            size = await self._loader.load(
                ModelInfo(model_id, record.type, record.path, record.key),
                size=record.size,
                last_used=load.last_used,
                urgent=load.urgent,
            )
        except LoadFailedError as error:
            log.warning("model not loaded", model=model_id, error=str(error))
            self._metrics.load_failures.inc()
            await self._registry.update(model_id, copies.failed(self._own_id, self._now(), error))
            raise
        except (MeshError, asyncio.CancelledError):
            await self._registry.update(model_id, copies.gone(self._own_id))
            raise
        load.routed.set_result(size)
        log.info("model loaded", model=model_id, bytes=size.memory)
        self._metrics.load.observe(self._now() - started)
        self._metrics.size.observe(size.memory)
        if await self._registry.update(model_id, copies.loaded(self._own_id, self._now(), size)) is None:
            self._loader.unload(model_id)
            raise ModelNotFoundError(model_id)
        return size


def _candidate(instance_id: str, record: InstanceRecord) -> Candidate:
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
    )
