"""A controller: what it watches, how that becomes requests, and the workers that reconcile them.

    (
        Controller("servingruntime", ServingRuntimeReconciler(...))
        .watches(ServingRuntime)
        .owns(Deployment)
        .watches(InferenceService, enqueue=runtimes_supporting)
        .register(manager)
    )

The same reconciler is called for one object by one worker at a time. If it raises, the object is tried again
with back-off; a Conflict is ordinary (somebody else wrote first) and not logged as an error.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import structlog

from api.meta import KubeObject, OwnerReference
from controller.runtime import metrics
from controller.runtime.errors import Conflict
from controller.runtime.informer import Scope
from controller.runtime.queue import QueueShutDown, WorkQueue
from controller.runtime.reconcile import Reconciler, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from api.resource import Resource
    from controller.runtime.backoff import RateLimiter
    from controller.runtime.cache import Cache
    from controller.runtime.manager import Manager
    from controller.runtime.queue import Clock

T = TypeVar("T", bound=KubeObject)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Watch:
    """One type a controller watches."""

    kind: type[KubeObject]
    enqueue: Callable[[Any], Iterable[Request]]
    predicate: Callable[[Any, Any], bool] | None
    scope: Scope


class Controller:
    """Turns changes into requests and has them reconciled.

    Args:
        name: appears in logs and metrics; unique in a manager.
        reconciler: does the work.
        workers: how many objects are reconciled at the same time.
        clock: by default the event loop; tests bring their own.
        limiter: delays of failed requests.
    """

    def __init__(
        self,
        name: str,
        reconciler: Reconciler,
        *,
        workers: int = 1,
        clock: Clock | None = None,
        limiter: RateLimiter[Request] | None = None,
    ) -> None:
        self.name = name
        self._reconciler = reconciler
        self._workers = workers
        self._clock, self._limiter = clock, limiter
        self._watches: list[_Watch] = []
        self._primary: list[Resource] = []
        self._channels: list[asyncio.Queue[Request]] = []
        self._queue: WorkQueue[Request] | None = None
        self._log = _log.bind(controller=name)

    def watches(
        self,
        kind: type[T],
        *,
        enqueue: Callable[[T], Iterable[Request]] | None = None,
        predicate: Callable[[T | None, T | None], bool] | None = None,
        scope: Scope = Scope(),  # noqa: B008 -- immutable
    ) -> Self:
        """Reconcile when an object of `kind` changes.

        Args:
            kind: the type to watch.
            enqueue: names what to reconcile; called with the object as it was and again as it is. Without it,
                that is the object itself, and `kind` is a primary type of this controller.
            predicate: says, given the object before and after (None: not there), whether the change matters.
            scope: watches fewer objects than the manager's cache covers.
        """
        if enqueue is None:
            self._primary.append(kind.RESOURCE)
        self._watches.append(_Watch(kind, enqueue or _itself, predicate, scope))
        return self

    def owns(
        self,
        kind: type[T],
        *,
        predicate: Callable[[T | None, T | None], bool] | None = None,
        scope: Scope = Scope(),  # noqa: B008 -- immutable
    ) -> Self:
        """Reconcile the object that controls a changed `kind`, if it is of a primary type of this controller.

        A cluster-scoped owner is requested without namespace.
        """
        return self.watches(kind, enqueue=self._owner, predicate=predicate, scope=scope)

    def watches_channel(self, channel: asyncio.Queue[Request]) -> Self:
        """Reconcile what is put into `channel`: news from elsewhere than the API server."""
        self._channels.append(channel)
        return self

    def register(self, manager: Manager) -> None:
        """Have `manager` run this controller."""
        manager.add_controller(self)

    def bind(self, cache: Cache) -> None:
        """Connect to the informers; from now on changes are queued. The manager calls it."""
        self._queue = queue = WorkQueue(self.name, clock=self._clock, limiter=self._limiter)
        for watch in self._watches:
            cache.informer(watch.kind, watch.scope).add_handler(_handler(watch, queue))

    async def run(self) -> None:
        """Reconcile until `stop`, then finish what is being reconciled."""
        queue = self._bound
        metrics.MAX_WORKERS.labels(self.name).set(self._workers)
        async with asyncio.TaskGroup() as group:
            pumps = [group.create_task(_pump(channel, queue)) for channel in self._channels]
            workers = [group.create_task(self._work(queue)) for _ in range(self._workers)]
            await asyncio.wait(workers)
            for pump in pumps:
                pump.cancel()

    def stop(self) -> None:
        """Take no more requests; `run` returns once those being reconciled are done."""
        if self._queue is not None:
            self._queue.shut_down()

    @property
    def _bound(self) -> WorkQueue[Request]:
        if self._queue is None:
            raise RuntimeError(f"controller {self.name} is not registered with a manager")
        return self._queue

    async def _work(self, queue: WorkQueue[Request]) -> None:
        active = metrics.ACTIVE_WORKERS.labels(self.name)
        while True:
            try:
                request = await queue.get()
            except QueueShutDown:
                return
            active.inc()
            try:
                await self._reconcile(queue, request)
            finally:
                active.dec()
                queue.done(request)

    async def _reconcile(self, queue: WorkQueue[Request], request: Request) -> None:
        outcome, log = "error", self._log.bind(request=str(request))
        with (
            metrics.RECONCILE_TIME.labels(self.name).time(),
            structlog.contextvars.bound_contextvars(controller=self.name, request=str(request)),
        ):
            try:
                result = await self._reconciler.reconcile(request)
            except Conflict as error:
                outcome = "requeue"
                log.debug("object changed meanwhile; trying again", error=str(error))
                queue.add_rate_limited(request)
            except Exception:
                log.exception("reconcile failed; trying again", failures=queue.failures(request) + 1)
                metrics.RECONCILE_ERRORS.labels(self.name).inc()
                queue.add_rate_limited(request)
            else:
                queue.forget(request)
                outcome = "success" if result.requeue_after is None else "requeue_after"
                if result.requeue_after is not None:
                    queue.add_after(request, result.requeue_after)
        metrics.RECONCILES.labels(self.name, outcome).inc()

    def _owner(self, obj: KubeObject) -> Iterable[Request]:
        owner = controller_of(obj)
        if owner is None:
            return
        group = owner.api_version.rpartition("/")[0]
        for resource in self._primary:
            if (resource.group, resource.kind) == (group, owner.kind):
                yield Request(obj.namespace if resource.namespaced else "", owner.name)


def controller_of(obj: KubeObject) -> OwnerReference | None:
    """Return the owner reference of the object that controls `obj`, if any."""
    return next((owner for owner in obj.metadata.owner_references if owner.controller), None)


def request_for(obj: KubeObject) -> Request:
    """Return the request to reconcile `obj`."""
    return Request(obj.namespace, obj.name)


def _itself(obj: KubeObject) -> Iterable[Request]:
    return (request_for(obj),)


def _handler(watch: _Watch, queue: WorkQueue[Request]) -> Callable[[Any, Any], None]:
    def handle(old: KubeObject | None, new: KubeObject | None) -> None:
        if watch.predicate is not None and not watch.predicate(old, new):
            return
        for obj in (old, new):
            if obj is not None:
                for request in watch.enqueue(obj):
                    queue.add(request)

    return handle


async def _pump(channel: asyncio.Queue[Request], queue: WorkQueue[Request]) -> None:
    while True:
        queue.add(await channel.get())
