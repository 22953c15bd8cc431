"""Loads and unloads models on the server beside this instance, within its limits and the cache's rules.

A load goes: predict the size, queue by priority, be admitted (which may evict), wait for free memory, load.
Each step belongs to one task of the model; operations on one model never overlap. Whatever ends badly after
the server was asked ends in an unload.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mesh.cache import Cache, Phase, Plan, Refusal
from mesh.errors import (
    LoadFailedError,
    MeshError,
    NoCapacityError,
    RemovedError,
    RuntimeDownError,
    TooOldError,
)
from mesh.runtime import ModelInfo, Runtime, RuntimeTerms
from store.records import NOTHING, Resources

URGENT = 2**62
"""Priority of loads that a request waits for: before all others; those are ordered by the model's last use.
"""
UNLOAD_RETRY_SECONDS = 2.0
HOLD_SECONDS = 0.02
"""A copy that a request waited for is not evicted before the request has had time to reach it."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Job:
    info: ModelInfo
    known_size: Resources | None
    last_used: int
    priority: int
    done: asyncio.Future[Resources]
    go: asyncio.Future[None]
    """Set when the memory is free, or to the reason why it never will be."""
    size: Resources = NOTHING
    task: asyncio.Task[None] | None = None


class Loader:
    """The copies of this instance and the work on them.

    `on_loaded` is called the moment that a copy can serve, `on_evict` before it is unloaded: they keep the
    routes. `drained` waits until no request uses a copy. `now` is in milliseconds since 1970.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        on_loaded: Callable[[str], None],
        on_evict: Callable[[str], None],
        drained: Callable[[str], Awaitable[None]],
        now: Callable[[], int],
    ) -> None:
        self.cache = Cache(NOTHING)
        self._runtime = runtime
        self._on_loaded = on_loaded
        self._on_evict = on_evict
        self._drained = drained
        self._now = now
        self._terms: RuntimeTerms | None = None
        self._jobs: dict[str, _Job] = {}
        self._queue: list[tuple[int, int, str]] = []
        self._queued: set[str] = set()
        self._waiting: dict[str, None] = {}
        self._loading: set[str] = set()
        self._unloads: dict[str, asyncio.Task[None]] = {}
        self._sequence = 0
        self._held = 0

    @property
    def pending(self) -> int:
        """Loads queued, waiting or running."""
        return len(self._jobs)

    def is_loaded(self, model_id: str) -> bool:
        """Whether the copy can serve."""
        copy = self.cache.get(model_id)
        return copy is not None and copy.phase is Phase.LOADED

    def is_pending(self, model_id: str) -> bool:
        """Whether a load is under way."""
        return model_id in self._jobs

    async def load(
        self, info: ModelInfo, *, size: Resources | None, last_used: int, urgent: bool
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
            loop = asyncio.get_running_loop()
            priority = URGENT if urgent else last_used
            job = _Job(info, size, last_used, priority, loop.create_future(), loop.create_future())
            self._jobs[info.model_id] = job
            job.task = asyncio.create_task(self._run(job), name=f"load {info.model_id}")
        elif urgent:
            self._promote(job, last_used)
        return await asyncio.shield(job.done)

    def promote(self, model_id: str, last_used: int) -> None:
        """A request waits for this load now."""
        if job := self._jobs.get(model_id):
            self._promote(job, last_used)

    def unload(self, model_id: str, *, drain: bool = True) -> asyncio.Task[None] | None:
        """Takes a model away: a queued or running load is cancelled, a loaded copy is unloaded.

        Returns the task that ends when its memory is free, None where there was nothing to do.
        """
        job = self._jobs.get(model_id)
        if job and job.task:
            self._fail(job, RemovedError("the model was removed while it was being loaded"))
            job.task.cancel()
        elif self.is_loaded(model_id):
            self._begin_unload(model_id, drain=drain)
        return self._unloads.get(model_id)

    def suspend(self) -> None:
        """The model server is gone, and with it everything in its memory."""
        self._terms = None
        for job in list(self._jobs.values()):
            self._fail(job, RuntimeDownError("the model server went away"))
            if job.task:
                job.task.cancel()
        for copy in list(self.cache.copies()):
            if copy.phase is Phase.LOADED:
                self._on_evict(copy.model_id)
        for task in self._unloads.values():
            task.cancel()
        self.cache.reset(NOTHING)

    def resume(self, terms: RuntimeTerms) -> None:
        """The model server is ready, and empty."""
        self.cache.reset(terms.capacity)
        self._terms = terms
        self._pump()

    async def close(self) -> None:
        """Stops all work, leaving the server as it is."""
        tasks = [job.task for job in self._jobs.values() if job.task] + list(self._unloads.values())
        for job in list(self._jobs.values()):
            self._fail(job, RuntimeDownError("the instance is shutting down"))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: _Job) -> None:
        model_id = job.info.model_id
        try:
            if unload := self._unloads.get(model_id):
                await asyncio.wait({unload})
            job.size = await self._predict(job)
            self._enqueue(job)
            await job.go
            terms = self._terms
            if terms is None:
                raise RuntimeDownError("the model server went away")
            size = await self._runtime.load(job.info, terms.load_timeout_seconds)
            self._complete(job, size if size != NOTHING else job.size)
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

    def _enqueue(self, job: _Job) -> None:
        self._queued.add(job.info.model_id)
        self._push(job)
        self._pump()

    def _push(self, job: _Job) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (-job.priority, self._sequence, job.info.model_id))

    def _promote(self, job: _Job, last_used: int) -> None:
        job.last_used = max(job.last_used, last_used)
        self.cache.touch(job.info.model_id, last_used)
        if job.priority < URGENT:
            job.priority = URGENT
            if job.info.model_id in self._queued:
                self._push(job)
                self._pump()

    def _pump(self) -> None:
        """Admits and starts what can be; called whenever something has changed."""
        if self._terms is None:
            return
        while len(self._waiting) + len(self._loading) < self._terms.load_slots and (job := self._first()):
            # What a request waits for is wanted now, however long it has been in the queue.
            wanted = URGENT if job.priority == URGENT else job.last_used
            plan = self.cache.plan(job.info.model_id, job.size, wanted)
            if plan is Refusal.BUSY and (self._waiting or self._loading or self._held):
                break
            heapq.heappop(self._queue)
            self._queued.discard(job.info.model_id)
            if not isinstance(plan, Plan):
                job.go.set_exception(self._no_capacity(job, plan))
                continue
            for victim in plan.victims:
                self._begin_unload(victim)
            self.cache.admit(Plan(plan.model_id, plan.size, job.last_used))
            self._waiting[job.info.model_id] = None
        for model_id in list(self._waiting):
            if self._jobs[model_id].go.done():  # given up; its task is about to leave
                continue
            if not self.cache.can_start(model_id):
                break
            del self._waiting[model_id]
            self.cache.start(model_id)
            self._loading.add(model_id)
            self._jobs[model_id].go.set_result(None)

    def _first(self) -> _Job | None:
        while self._queue:
            priority, _, model_id = self._queue[0]
            job = self._jobs.get(model_id)
            if job and model_id in self._queued and job.priority == -priority and not job.go.done():
                return job
            heapq.heappop(self._queue)
        return None

    def _no_capacity(self, job: _Job, refusal: Refusal) -> NoCapacityError:
        kind = TooOldError if refusal is Refusal.TOO_OLD else NoCapacityError
        error = kind(
            f"no room for the model: {refusal.value} "
            f"(it needs {job.size.memory} bytes, the capacity is {self.cache.capacity.memory})"
        )
        if refusal is Refusal.TOO_LARGE:
            error.retry_after_ms = None
        return error

    def _complete(self, job: _Job, size: Resources) -> None:
        model_id = job.info.model_id
        if size != job.size:
            log.debug("model size corrected", model=model_id, expected=job.size.memory, actual=size.memory)
        for larger_than_thought in self.cache.finish(model_id, size):
            self._begin_unload(larger_than_thought)
        if job.priority == URGENT:
            self.cache.touch(model_id, self._now())
            self._hold(model_id)
        self._on_loaded(model_id)
        if not job.done.done():
            job.done.set_result(size)

    def _hold(self, model_id: str) -> None:
        self.cache.hold(model_id)
        self._held += 1
        asyncio.get_running_loop().call_later(HOLD_SECONDS, self._settle, model_id)

    def _settle(self, model_id: str) -> None:
        self._held -= 1
        self.cache.settle(model_id)
        self._pump()

    def _fail(self, job: _Job, error: MeshError) -> None:
        if not job.done.done():
            job.done.set_exception(error)
            job.done.exception()

    def _leave(self, job: _Job) -> None:
        model_id = job.info.model_id
        del self._jobs[model_id]
        self._queued.discard(model_id)
        self._waiting.pop(model_id, None)
        self._loading.discard(model_id)
        copy = self.cache.get(model_id)
        if copy and copy.phase is Phase.WAITING:
            self.cache.release(model_id)
        elif copy and copy.phase is Phase.LOADING:
            self.cache.release(model_id)
            self._unloads[model_id] = asyncio.create_task(self._unload(model_id, drain=False))
        self._pump()

    def _begin_unload(self, model_id: str, *, drain: bool = True) -> None:
        self._on_evict(model_id)
        self.cache.release(model_id)
        self._unloads[model_id] = asyncio.create_task(self._unload(model_id, drain=drain))

    async def _unload(self, model_id: str, *, drain: bool) -> None:
        try:
            if drain:
                await self._drained(model_id)
            while True:
                try:
                    await self._runtime.unload(model_id)
                    break
                except LoadFailedError as error:
                    log.warning("unload failed, trying again", model=model_id, error=str(error))
                except RuntimeDownError as error:
                    log.warning("unload not possible, trying again", model=model_id, error=str(error))
                await asyncio.sleep(UNLOAD_RETRY_SECONDS)
        finally:
            self._unloads.pop(model_id, None)
            self.cache.freed(model_id)
            self._pump()
