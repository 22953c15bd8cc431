"""Loads and unloads models on the server beside this instance, within its limits and the cache's rules.

A load goes: predict the size, queue by priority, be admitted (which may evict), wait for free memory, load.
Each step belongs to one task of the model; operations on one model never overlap. Whatever ends badly after
the server was asked ends in an unload. Whose turn it is, `mesh.admission` decides.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mesh.admission import Admission, Ticket
from mesh.cache import USUAL, Cache, Phase, Refusal, Standing
from mesh.errors import (
    RETRY_MS,
    LoadFailedError,
    MeshError,
    NoCapacityError,
    RemovedError,
    RuntimeDownError,
    TooLargeError,
    TooOldError,
)
from mesh.metrics import PolicyMetrics
from mesh.runtime import ModelInfo, Runtime, RuntimeTerms
from store.records import NOTHING, Resources

UNLOAD_RETRY_SECONDS = 2.0
EVICTED = "it was unused for longest, and others needed the memory"
UNLOAD_PATIENCE = 5
"""Failed unloads of a model, after which its memory is planned without, until one succeeds."""
SPACE_SECONDS = 180.0
"""How long an admitted load waits for memory that is being freed; the original's time."""
HOLD_SECONDS = 0.02
"""A copy that a request waited for is not evicted before the request has had time to reach it."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Job:
    info: ModelInfo
    known_size: Resources | None
    ticket: Ticket
    done: asyncio.Future[Resources]
    go: asyncio.Future[None]
    """Set when the memory is free, or to the reason why it never will be."""
    patience: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Loader:
    """The copies of this instance and the work on them.

    `on_loaded` is called the moment that a copy can serve, `on_evict` (last use, and why) before it is
    unloaded: they keep the routes. `note_use` tells the cache what was used lately; `drained` waits until no
    request uses a copy. `now` is in milliseconds since 1970.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        on_loaded: Callable[[str], None],
        on_evict: Callable[[str, int, str], None],
        note_use: Callable[[], None],
        drained: Callable[[str], Awaitable[None]],
        now: Callable[[], int],
        metrics: PolicyMetrics | None = None,
    ) -> None:
        self.cache = Cache(NOTHING)
        self._runtime = runtime
        self._on_loaded = on_loaded
        self._on_evict = on_evict
        self._note_use = note_use
        self._drained = drained
        self._now = now
        self._metrics = metrics or PolicyMetrics()
        self._terms: RuntimeTerms | None = None
        self._admission = Admission(self.cache)
        self._jobs: dict[str, _Job] = {}
        self._unloads: dict[str, asyncio.Task[None]] = {}

    @property
    def load_timeout_ms(self) -> int:
        """How long a load may take, as the server says; 0 without one."""
        return round(self._terms.load_timeout_seconds * 1000) if self._terms else 0

    @property
    def pending(self) -> int:
        """Loads queued, waiting or running."""
        return len(self._jobs)

    def is_loaded(self, model_id: str) -> bool:
        """Whether the copy can serve."""
        copy = self.cache.get(model_id)
        return copy is not None and copy.phase is Phase.LOADED

    def loaded_since(self, model_id: str, when: int) -> bool:
        """Whether there is a copy whose load ended after this time, in ms since 1970."""
        copy = self.cache.get(model_id)
        return copy is not None and copy.phase is Phase.LOADED and copy.loaded_ms > when

    def is_pending(self, model_id: str) -> bool:
        """Whether a load is under way."""
        return model_id in self._jobs

    def check(self, *, urgent: bool, deadline: int | None = None) -> None:
        """Raises NoCapacityError where a new load would have to wait too long for its turn.

        That is where the line is full, or the caller's deadline (ms since 1970) would be over.
        """
        patience = None if deadline is None else deadline - self._now()
        if refusal := self._admission.refusal(urgent=urgent, patience_ms=patience):
            self._metrics.refused(refusal)
            error = NoCapacityError(f"no room for the model now: {refusal.value}")
            error.retry_after_ms = max(RETRY_MS, self._admission.wait_ms(urgent=urgent))
            raise error

    async def load(
        self,
        info: ModelInfo,
        *,
        size: Resources | None,
        last_used: int,
        urgent: bool,
        deadline: int | None = None,
        standing: Standing = USUAL,
    ) -> Resources:
        """Loads a model, or joins the load that is under way. Returns its size.

        Cancelling the caller does not cancel the load. Raises LoadFailedError, NoCapacityError,
        RuntimeDownError, or RemovedError where `unload` came first.
        """
        if (copy := self.cache.get(info.model_id)) and copy.phase is Phase.LOADED:
            self.cache.touch(info.model_id, last_used)
            return copy.size
        job = self._jobs.get(info.model_id)
        if job is None:
            if self._terms is None:
                raise RuntimeDownError("the model server is not ready")
            self.check(urgent=urgent, deadline=deadline)
            loop = asyncio.get_running_loop()
            ticket = self._admission.take(info.model_id, last_used, urgent=urgent, standing=standing)
            job = _Job(info, size, ticket, loop.create_future(), loop.create_future())
            self._jobs[info.model_id] = job
            job.task = asyncio.create_task(self._run(job), name=f"load {info.model_id}")
            job.task.add_done_callback(lambda _: self._leave(job))
        elif urgent:
            self.promote(info.model_id, last_used)
        return await asyncio.shield(job.done)

    def promote(self, model_id: str, last_used: int) -> None:
        """A request waits for this load now."""
        if model_id in self._jobs and self._admission.promote(model_id, last_used):
            self._pump()

    def unload(self, model_id: str, *, why: str, drain: bool = True) -> asyncio.Task[None] | None:
        """Takes a model away: a queued or running load is cancelled, a loaded copy is unloaded.

        Returns the task that ends when its memory is free, None where there was nothing to do.
        """
        job = self._jobs.get(model_id)
        if job and job.task:
            self._fail(job, RemovedError("the model was removed while it was being loaded"))
            job.task.cancel()
        elif self.is_loaded(model_id):
            self._note_use()
            self.cache.release(model_id)
            self._begin_unload(model_id, why, drain=drain)
        return self._unloads.get(model_id)

    def suspend(self) -> list[tuple[str, int]]:
        """The model server is gone, and with it everything in its memory: copies and their last use."""
        self._terms = None
        self._admission.slots = 0
        for job in list(self._jobs.values()):
            self._fail(job, RuntimeDownError("the model server went away"))
            if job.task:
                job.task.cancel()
        self._note_use()
        lost = [(copy.model_id, copy.last_used) for copy in self.cache.copies() if copy.phase is Phase.LOADED]
        for model_id, last_used in lost:
            self._on_evict(model_id, last_used, "the model server went away")
        for task in self._unloads.values():
            task.cancel()
        self.cache.reset(NOTHING)
        return lost

    def resume(self, terms: RuntimeTerms) -> None:
        """The model server is ready, and empty."""
        self.cache.reset(terms.capacity)
        self._terms = terms
        self._admission.slots = terms.load_slots
        self._pump()

    async def close(self) -> None:
        """Stops all work, leaving the server as it is."""
        self._terms = None
        self._admission.slots = 0
        for job in self._jobs.values():
            self._fail(job, RuntimeDownError("the instance is shutting down"))
        while tasks := [job.task for job in self._jobs.values() if job.task] + list(self._unloads.values()):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: _Job) -> None:
        model_id = job.info.model_id
        queued = time.monotonic()
        try:
            if unload := self._unloads.get(model_id):
                await asyncio.wait({unload}, timeout=SPACE_SECONDS)
                if not unload.done():
                    raise NoCapacityError("the model server has not unloaded the model's former copy")
            self._admission.stand(model_id, await self._predict(job))
            self._pump()
            await job.go
            self._metrics.queue_delay.observe(_ms_since(queued))
            terms = self._terms
            if terms is None:
                raise RuntimeDownError("the model server went away")
            size = await self._runtime.load(job.info, terms.load_timeout_seconds)
            self._complete(job, size if size != NOTHING else job.ticket.size)
        except MeshError as error:
            self._fail(job, error)
        except asyncio.CancelledError:
            self._fail(job, RuntimeDownError("the load was given up"))
        finally:
            self._leave(job)

    async def _predict(self, job: _Job) -> Resources:
        if job.known_size and job.known_size != NOTHING:
            return job.known_size
        predicted = await self._runtime.predict(job.info)
        if predicted:
            return predicted
        return self._terms.default_size if self._terms else NOTHING

    def _pump(self) -> None:
        """Does what is next; called whenever something has changed."""
        if self._admission.standing:
            self._note_use()
        steps = self._admission.step(self._now())
        for model_id, refusal in steps.refused:
            self._refuse(model_id, refusal)
        for model_id in steps.evict:
            self._begin_unload(model_id, EVICTED)
        for model_id in steps.waiting:
            job = self._jobs[model_id]
            job.patience = job.patience or asyncio.get_running_loop().call_later(
                SPACE_SECONDS, self._give_up, job
            )
        for model_id in steps.start:
            go = self._jobs[model_id].go
            if not go.done():
                go.set_result(None)

    def _refuse(self, model_id: str, refusal: Refusal) -> None:
        job = self._jobs[model_id]
        if not job.go.done():
            self._metrics.refused(refusal)
            job.go.set_exception(self._no_capacity(job, refusal))

    def _give_up(self, job: _Job) -> None:
        if not job.go.done():
            job.go.set_exception(
                NoCapacityError(
                    f"the model server has not freed enough memory for the model in {SPACE_SECONDS:g} s"
                )
            )

    def _no_capacity(self, job: _Job, refusal: Refusal) -> NoCapacityError:
        size = job.ticket.size
        if refusal is Refusal.TOO_LARGE:
            return TooLargeError(size, self.cache.capacity)
        kind = TooOldError if refusal is Refusal.TOO_OLD else NoCapacityError
        return kind(f"no room for the model: {refusal.value} (it needs {size.memory} bytes)")

    def _complete(self, job: _Job, size: Resources) -> None:
        model_id = job.info.model_id
        if size != job.ticket.size:
            log.debug(
                "model size corrected",
                model=model_id,
                expected=job.ticket.size.memory,
                actual=size.memory,
            )
        for victim in self._admission.loaded(model_id, size):
            self._begin_unload(victim, f"{model_id} turned out larger than was thought")
        copy = self.cache.get(model_id)
        if copy is None or copy.phase is not Phase.LOADED:
            raise TooLargeError(size, self.cache.capacity)
        copy.loaded_ms = self._now()
        if job.ticket.urgent:
            self.cache.touch(model_id, self._now())
            self._hold(model_id)
        self._on_loaded(model_id)
        if not job.done.done():
            job.done.set_result(size)

    def _hold(self, model_id: str) -> None:
        self._admission.hold(model_id)
        asyncio.get_running_loop().call_later(HOLD_SECONDS, self._settle, model_id)

    def _settle(self, model_id: str) -> None:
        self._admission.settle(model_id)
        self._pump()

    def _fail(self, job: _Job, error: MeshError) -> None:
        if not job.done.done():
            job.done.set_exception(error)
            job.done.exception()

    def _leave(self, job: _Job) -> None:
        """Ends a job, once; one cancelled before its first step comes here only when its task is done."""
        model_id = job.info.model_id
        if self._jobs.get(model_id) is not job:
            return
        del self._jobs[model_id]
        self._fail(job, RuntimeDownError("the load was given up"))
        if job.patience:
            job.patience.cancel()
        if self._admission.leave(model_id, self._now()):
            self._unload_soon(model_id, drain=False)
        self._pump()

    def _begin_unload(self, model_id: str, why: str, *, drain: bool = True) -> None:
        self._on_evict(model_id, self.cache.last_used(model_id), why)
        self._unload_soon(model_id, drain=drain)

    def _unload_soon(self, model_id: str, *, drain: bool) -> None:
        task = self._unloads[model_id] = asyncio.create_task(self._unload(model_id, drain=drain))

        def end(ended: asyncio.Task[None]) -> None:
            # One that is cancelled before its first step has not done so itself.
            if self._unloads.get(model_id) is ended:
                self._unloaded(model_id)

        task.add_done_callback(end)

    async def _unload(self, model_id: str, *, drain: bool) -> None:
        try:
            if drain:
                await self._drained(model_id)
            started = time.monotonic()
            for attempt in itertools.count(1):
                try:
                    await self._runtime.unload(model_id)
                    self._metrics.unload.observe(_ms_since(started))
                    break
                except LoadFailedError as error:
                    log.warning("unload failed, trying again", model=model_id, error=str(error))
                except RuntimeDownError as error:
                    log.warning("unload not possible, trying again", model=model_id, error=str(error))
                self._metrics.unload_attempt_failures.inc()
                if attempt == UNLOAD_PATIENCE:
                    self._metrics.unload_failures.inc()
                    log.error("model not unloaded; its memory is not used until it is", model=model_id)
                    self.cache.lose(model_id)
                    self._pump()
                await asyncio.sleep(UNLOAD_RETRY_SECONDS)
        finally:
            self._unloaded(model_id)

    def _unloaded(self, model_id: str) -> None:
        self._unloads.pop(model_id, None)
        self.cache.freed(model_id)
        self._pump()


def _ms_since(moment: float) -> float:
    return (time.monotonic() - moment) * 1000
