"""Makes sure that a model has a copy that can serve: finds one, waits for one, or has one loaded."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import structlog

from mesh import copies
from mesh.cache import Standing
from mesh.choice import MAX_ATTEMPTS, MAX_COPIES, MOST_COPIES, Candidates, OwnCopy, existing, further
from mesh.constraints import TypeConstraints, allows
from mesh.errors import (
    LoadFailedError,
    MeshError,
    ModelNotFoundError,
    NoCapacityError,
    NoHomeError,
    RegistryUnavailableError,
    RuntimeDownError,
    TooLargeError,
    TooOldError,
)
from mesh.failfast import FailFast
from mesh.guard import RuntimeGuard
from mesh.journal import Journal
from mesh.loading import Loader
from mesh.metrics import PolicyMetrics
from mesh.outstanding import Outstanding
from mesh.peer import Peers
from mesh.placement import Candidate, Placement, Reason
from mesh.registry import Registry
from mesh.routes import Routes
from mesh.runtime import ModelInfo, Runtime
from store.records import NOTHING, InstanceRecord, ModelRecord, Resources

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Load:
    """A load here with its record. `urgent` is set as soon as a request waits for it."""

    last_used: int
    urgent: bool
    deadline: int | None
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
        on_unfit: Callable[[], None],
        own_record: Callable[[], InstanceRecord],
        failure_terms: copies.FailureTerms,
        metrics: PolicyMetrics,
        journal: Journal,
        fail_fast: FailFast,
        now: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._runtime = runtime
        self._loader = loader
        self._guard = guard
        self._routes = routes
        self._peers = peers
        self._constraints = constraints
        self._on_unfit = on_unfit
        self._own_record = own_record
        self._failure_terms = failure_terms
        self._metrics = metrics
        self._journal = journal
        self._fail_fast = fail_fast
        self._now = now
        self._own_id = registry.instance_id
        self._loads: dict[str, _Load] = {}
        self._known = Candidates()
        self._closed = False
        self._monotonic = monotonic
        self._outstanding = Outstanding()

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
        deadline: int | None = None,
    ) -> None:
        """Returns when some copy can serve and is routed; those on excluded instances do not count.

        With `recorded`, the registry says so too. A request does not wait for that. `deadline` (ms since
        1970) is the caller's: a load that would not begin before it is refused at once.

        Raises ModelNotFoundError, LoadFailedError, NoCapacityError, NoHomeError, RuntimeDownError or
        RegistryUnavailableError.
        """
        tried, second_chances = set(excluded), set(excluded)
        failed: set[str] = set()
        last: MeshError | None = None
        for _ in range(MAX_ATTEMPTS):
            record = await self._registry.find(model_id)
            choice = await self._choose(model_id, record, last_used, tried, failed)
            if choice.reason is Reason.TRIED and second_chances:
                # A copy there has failed, a load has not: where there is no other place, it goes there again.
                tried -= second_chances
                second_chances.clear()
                size = record.size or NOTHING
                choice = self.placement(record, size, last_used=last_used, tried=tried, failed=failed)
            target = choice.instance_id
            if choice.reason is Reason.LOADED:
                return
            if target is None:
                if not self._own_server_comes(choice.reason, tried):
                    raise self._error(choice.reason, record, last)
                await self._guard.wait_ready()
                continue
            try:
                await self._load_at(
                    choice,
                    record,
                    model_id,
                    last_used=last_used,
                    urgent=urgent,
                    recorded=recorded,
                    deadline=deadline,
                )
            except RegistryUnavailableError:
                raise
            except MeshError as error:
                last = error
                second_chances.discard(target)
                await self._strike(target, error, tried, failed)
            else:
                return
        raise last or RuntimeDownError(f"no copy of the model could be had in {MAX_ATTEMPTS} attempts")

    async def load_here(
        self,
        model_id: str,
        *,
        last_used: int,
        urgent: bool,
        recorded: bool = True,
        deadline: int | None = None,
    ) -> Resources:
        """Loads a model on this instance and nowhere else, however full it is.

        Returns when the copy can serve, or is also `recorded`. Raises as `ensure`; a failure is recorded in
        any case.
        """
        copy = self._loader.cache.get(model_id)
        if copy and self._routes.own(model_id) and model_id not in self._loads:
            self._loader.cache.touch(model_id, last_used)
            return copy.size
        while True:
            load = self._loads.get(model_id)
            if load is None or load.task.done():
                load = self._begin(model_id, last_used, deadline, urgent=urgent)
            if load.routed.done() and not self._loader.is_loaded(model_id):
                # The copy has gone again before its record was written.
                await asyncio.wait({load.task})
                continue
            load.last_used = max(load.last_used, last_used)
            load.deadline = _later(load.deadline, deadline)
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

    async def touch(self, model_id: str, last_used: int) -> None:
        """Notes a use that no request has made, at one of the copies. Raises as the load of a copy."""
        if self._routes.own(model_id):
            self._loader.cache.touch(model_id, last_used)
            return
        holder = next((route for route in self._routes.peers(model_id) if route.loaded), None)
        if holder:
            await self._load_there(
                holder.instance_id, model_id, last_used=last_used, urgent=False, deadline=None
            )

    def placement(
        self,
        record: ModelRecord,
        size: Resources,
        *,
        last_used: int,
        tried: Collection[str] = (),
        failed: Collection[str] = (),
        most: int = MAX_COPIES,
    ) -> Placement:
        """Where a new copy of the model would go now, where it has fewer than `most`."""
        return further(
            record,
            size,
            last_used,
            self._constraints(),
            self.candidates(),
            tried=tried,
            failed=failed,
            own_id=self._own_id,
            now=self._now(),
            most=most,
            failure_terms=self._failure_terms,
        )

    async def add_copies(
        self, model_id: str, count: int, *, last_used: int, excluded: Collection[str] = ()
    ) -> int:
        """Has a model loaded on so many instances more, none of them excluded; returns how many it is.

        Raises as `ensure`, where it is none at all.
        """
        record = await self._registry.find(model_id)
        size = await self._expected_size(model_id, record)
        tried = {id_ for id_ in record.instances if self._registry.live(id_)}.union(excluded)
        loads = []
        for _ in range(count):
            choice = self.placement(record, size, last_used=last_used, tried=tried, most=MOST_COPIES)
            if choice.instance_id is None:
                break
            tried.add(choice.instance_id)
            loads.append(
                self._load_at(choice, record, model_id, last_used=min(last_used, self._now()), urgent=False)
            )
        if not loads:
            raise self._error(choice.reason, record, None)
        results = await asyncio.gather(*loads, return_exceptions=True)
        errors = [result for result in results if result is not None]
        if len(errors) == len(results):
            raise errors[0]
        for error in errors:
            log.info("further copy not loaded", model=model_id, error=str(error))
        return len(results) - len(errors)

    async def warm(self, model_id: str, last_used: int, copies: int) -> None:
        """Has a model loaded with so many copies; fewer where there is no room. Raises as `ensure`."""
        await self.ensure(model_id, last_used=last_used, urgent=False)
        record = await self._registry.find(model_id)
        missing = copies - sum(self._registry.live(id_) for id_ in record.instances)
        if missing > 0:
            try:
                await self.add_copies(model_id, missing, last_used=last_used)
            except MeshError as error:
                log.info("fewer copies than wanted", model=model_id, missing=missing, error=str(error))

    def suitable(self, model_type: str) -> list[Candidate]:
        """The instances that may hold models of a type, and stay."""
        requirement = self._constraints().of(model_type)
        return [candidate for candidate in self.candidates() if allows(requirement, candidate.labels)]

    def no_home(self, model_type: str) -> NoHomeError | None:
        """The error for models of a type that no running instance may hold."""
        requirement = self._constraints().of(model_type)
        if not requirement.required:
            return None
        if any(allows(requirement, candidate.labels) for candidate in self.candidates()):
            return None
        return NoHomeError(model_type, requirement.required)

    async def close(self) -> None:
        """Gives up what is under way, and begins nothing any more."""
        self._closed = True
        tasks = [load.task for load in self._loads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _choose(
        self,
        model_id: str,
        record: ModelRecord,
        last_used: int,
        tried: Collection[str],
        failed: Collection[str],
    ) -> Placement:
        peers = self._routes.peers(model_id)
        choice = existing(self._own_copy(model_id), peers, own_id=self._own_id, tried=tried)
        if choice is None:
            size = await self._expected_size(model_id, record)
            choice = self.placement(record, size, last_used=last_used, tried=tried, failed=failed)
        log.debug("copy chosen", model=model_id, instance=choice.instance_id, reason=choice.reason.name)
        self._metrics.choices.labels(choice.reason.name).inc()
        return choice

    async def _strike(self, target: str, error: MeshError, tried: set[str], failed: set[str]) -> None:
        """An instance is not tried again in this call, unless it is this one and its server has to start."""
        if isinstance(error, LoadFailedError):
            failed.add(target)
        lost = target == self._own_id and isinstance(error, RuntimeDownError)
        if not (lost and await self._guard.suspect()):
            tried.add(target)

    def _own_copy(self, model_id: str) -> OwnCopy | None:
        if self._routes.own(model_id):
            return OwnCopy(loaded=True)
        return OwnCopy(loaded=False) if self.is_here(model_id) else None

    def _own_server_comes(self, reason: Reason, tried: Collection[str]) -> bool:
        return reason is Reason.NOT_READY and self._guard.terms is None and self._own_id not in tried

    def _error(self, reason: Reason, record: ModelRecord, last: MeshError | None) -> MeshError:
        if reason is Reason.NO_LABELS:
            return NoHomeError(record.type, self._constraints().of(record.type).required)
        if reason is Reason.TOO_LARGE:
            largest = max(self.candidates(), key=lambda candidate: candidate.capacity.memory)
            return TooLargeError(record.size or NOTHING, largest.capacity)
        if reason is Reason.NOT_READY:
            return last or RuntimeDownError("the instances that could hold the model are starting")
        failed = any(self._registry.live(instance_id) for instance_id in record.failed)
        failure = copies.last_failure(record) if failed else None
        first, second = (failure, last) if reason is Reason.FAILED else (last, failure)
        return first or second or NoCapacityError("Nowhere available to load")

    async def _expected_size(self, model_id: str, record: ModelRecord) -> Resources:
        if record.size is not None or self._guard.terms is None:
            return self._assumed_size(record)
        own_labels = self._own_record().labels
        if len(self._registry.instances) > 1 and allows(self._constraints().of(record.type), own_labels):
            info = ModelInfo(model_id, record.type, record.path, record.key)
            if predicted := await self._runtime.predict(info):
                return predicted
        return self._assumed_size(record)

    def candidates(self) -> Sequence[Candidate]:
        """All instances that stay."""
        rows = {id_: row.value for id_, row in self._registry.instances.items()}
        rows[self._own_id] = self._own_record()
        return self._outstanding.beside(self._known.of(rows, self._constraints()), self._monotonic())

    async def _load_at(
        self,
        choice: Placement,
        record: ModelRecord,
        model_id: str,
        *,
        last_used: int,
        urgent: bool,
        recorded: bool = True,
        deadline: int | None = None,
    ) -> None:
        if choice.instance_id is None or choice.instance_id == self._own_id:
            self._journal.note(model_id, "placed here", choice.reason.value)
            await self.load_here(
                model_id, last_used=last_used, urgent=urgent, recorded=recorded, deadline=deadline
            )
            return
        self._journal.note(model_id, f"placed on {choice.instance_id}", choice.reason.value)
        self._note_sent(choice.instance_id, choice.reason, record)
        await self._load_there(
            choice.instance_id, model_id, last_used=last_used, urgent=urgent, deadline=deadline
        )

    async def _load_there(
        self, instance_id: str, model_id: str, *, last_used: int, urgent: bool, deadline: int | None
    ) -> None:
        row = self._registry.instances.get(instance_id)
        if row is None:
            raise RuntimeDownError(f"instance {instance_id} has gone")
        try:
            await self._peers.load(
                row.value.address,
                model_id,
                last_used=last_used,
                urgent=urgent,
                patience_ms=None if deadline is None else max(0, deadline - self._now()),
            )
        except MeshError as error:
            self._metrics.peer_load_failures.labels(error.code.name).inc()
            raise
        record = self._registry.peek(model_id)
        if record is None or instance_id not in record.loaded:
            try:
                await self._registry.refresh(model_id)
            except RegistryUnavailableError:
                self._routes.assume(model_id, instance_id)
        self._routes.flush()

    def _note_sent(self, target: str, reason: Reason, record: ModelRecord) -> None:
        if reason is not Reason.LOADING:  # that one has been counted
            self._outstanding.add(target, self._assumed_size(record), self._monotonic())

    def _assumed_size(self, record: ModelRecord) -> Resources:
        default = self._guard.terms.default_size if self._guard.terms else NOTHING
        return default if record.size is None else record.size

    def _begin(self, model_id: str, last_used: int, deadline: int | None, *, urgent: bool) -> _Load:
        if self._closed:
            raise RuntimeDownError("this instance is shutting down")
        load = _Load(last_used, urgent, deadline, asyncio.get_running_loop().create_future())

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
        self._loader.check(urgent=load.urgent, deadline=load.deadline)
        record = await self._registry.find(model_id)  # it may still be on its way to our tables
        started = self._now()
        # It has been used later than the caller knows; a time to come is none.
        load.last_used = max(load.last_used, min(record.last_used, started))
        self._registry.post(model_id, copies.claimed(self._own_id, started, load.last_used))
        try:
            size = await self._loader.load(
                ModelInfo(model_id, record.type, record.path, record.key),
                size=record.size,
                last_used=load.last_used,
                urgent=load.urgent,
                deadline=load.deadline,
                standing=Standing(record.pinned, record.priority),
            )
        except LoadFailedError as error:
            log.warning("model not loaded", model=model_id, error=str(error))
            self._metrics.load_failures.inc()
            self._judge(model_id)
            self._journal.note(model_id, "not loaded", str(error))
            await self._record(model_id, copies.failed(self._own_id, self._now(), error))
            raise
        except TooLargeError as error:
            await self._record(model_id, copies.too_large(self._own_id, error.size))
            raise
        except (MeshError, asyncio.CancelledError) as error:
            self._journal.note(model_id, "not loaded", str(error) or "the load was given up")
            await self._record(model_id, copies.gone(self._own_id))
            raise
        load.routed.set_result(size)
        self._fail_fast.loaded()
        log.info("model loaded", model=model_id, bytes=size.memory)
        self._journal.note(model_id, "loaded", "a request waited" if load.urgent else "in the background")
        self._metrics.load.observe(self._now() - started)
        self._metrics.size.observe(size.memory)
        if await self._registry.update(model_id, copies.loaded(self._own_id, self._now(), size)) is None:
            self._loader.unload(model_id, why="the model was deleted")
            raise ModelNotFoundError(model_id)
        return size

    def _judge(self, model_id: str) -> None:
        timeout = self._guard.terms.load_timeout_seconds if self._guard.terms else 0.0
        if self._fail_fast.failed(
            model_id,
            self._registry.peek(model_id),
            under_way=len(self._loads) - 1,
            load_timeout_ms=round(timeout * 1000),
            now=self._now(),
        ):
            log.error("this instance is not fit to serve", why=self._fail_fast.verdict)
            self._on_unfit()

    async def _record(self, model_id: str, change: copies.Change) -> None:
        """Notes how a load ended badly; what is wrong with the registry is not what the caller must know."""
        try:
            await self._registry.update(model_id, change)
        except RegistryUnavailableError as error:
            log.warning("failed load not registered", model=model_id, error=str(error))


def _later(one: int | None, other: int | None) -> int | None:
    """The later of two deadlines; None is for ever."""
    return None if one is None or other is None else max(one, other)
