"""Runs the controllers of a process over one client and one cache, and stops them in order.

Start: the cache and the added tasks; then, when the cache has seen a whole list of everything and, with
leader election, this process holds the lease, the controllers. Stop (`stop`, or cancelling `run`): no new
reconciles; those under way get a grace period to finish, so that no half-done change is left for the next
start to find; then the lease is given back and everything is cancelled.

A process that loses the lease stops without grace: another acts already, and its writes are refused anyway.

A task or controller that ends with an exception ends the manager with it: a process that does half its work
is worse than one that is restarted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from controller.runtime.cache import Cache
from controller.runtime.fence import FencedClient
from controller.runtime.leader import Leadership, LeadershipLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from api.meta import KubeObject
    from controller.runtime.client import JSON, Client
    from controller.runtime.controller import Controller
    from controller.runtime.fence import Right
    from controller.runtime.leader import LeaseLock

_log = structlog.get_logger(__name__)

STOP_GRACE = 20.0
"""Seconds; below the 30 s that a pod has to terminate by default."""


class Manager:
    """Owns the cache and runs everything.

    Args:
        client: the API server.
        namespaces: where to watch namespaced types; None is everywhere.
        on_unparsable: called with the type, the raw object and the error when one does not parse.
        stop_grace: seconds that running reconciles get to finish when stopping.
        leader_election: run the controllers only while holding this lease; other processes with the same
            lease stand by, with their caches kept up to date.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespaces: Sequence[str] | None = None,
        on_unparsable: Callable[[type[KubeObject], JSON, ValueError], None] | None = None,
        stop_grace: float = STOP_GRACE,
        leader_election: LeaseLock | None = None,
    ) -> None:
        self._leadership = Leadership(client, leader_election) if leader_election else None
        self.client: Client = FencedClient(client, self._leadership) if self._leadership else client
        """The client for reconcilers; with leader election it writes only while this process leads."""
        self.cache = Cache(client, namespaces=namespaces, on_unparsable=on_unparsable)
        self._stop_grace = stop_grace
        self._lost: LeadershipLostError | None = None
        self._controllers: list[Controller] = []
        self._tasks: list[Callable[[], Awaitable[None]]] = []
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def right(self) -> Right | None:
        """The right to write elsewhere than to the API server (`fence.writing`); None without election."""
        return self._leadership

    def add_controller(self, controller: Controller) -> None:
        """Run `controller`; `Controller.register` calls it.

        Raises:
            ValueError: the name is taken, or the manager runs already.
        """
        if any(other.name == controller.name for other in self._controllers):
            raise ValueError(f"there is a controller named {controller.name} already")
        if self._started.is_set():
            raise ValueError(f"register controller {controller.name} before the manager runs")
        controller.bind(self.cache)
        self._controllers.append(controller)

    def add_task(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run `task()` beside the controllers, from the start, and cancel it at the end.

        It may return early. One that reads the cache waits for `cache.wait_synced` first.
        """
        self._tasks.append(task)

    @property
    def ready(self) -> bool:
        """Whether the caches are whole: the controllers are reconciling, or could at once if elected."""
        return self.cache.has_synced and not self._stopping.is_set()

    @property
    def active(self) -> bool:
        """Whether the controllers are reconciling; on a standby they are not."""
        return self._started.is_set() and not self._stopping.is_set()

    async def wait_ready(self) -> None:
        """Return when the controllers are reconciling."""
        await self._started.wait()

    def stop(self) -> None:
        """Stop in order; `run` returns when that is done."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop` or cancellation.

        Raises:
            ExceptionGroup: what a task or a controller ended with.
            LeadershipLostError: the lease was lost; the process must end.
        """
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(self.cache.run())]
            background += [group.create_task(_run(task)) for task in self._tasks]
            controllers: list[asyncio.Task[None]] = []
            keeper: asyncio.Task[None] | None = None
            try:
                await self._until_stopping(self.cache.wait_synced())
                _log.info(
                    "caches are synced", controllers=[controller.name for controller in self._controllers]
                )
                if self._leadership is not None:
                    await self._until_stopping(self._leadership.acquire())
                if not self._stopping.is_set():
                    if self._leadership is not None:
                        keeper = group.create_task(self._keep(self._leadership))
                    controllers += [group.create_task(controller.run()) for controller in self._controllers]
                    self._started.set()
                    await self._stopping.wait()
            finally:
                await self._drain(controllers)
                if keeper is not None:
                    # Renewed until here, and no longer: given back, the lease would count as lost.
                    keeper.cancel()
                    await asyncio.wait([keeper])
                if self._leadership is not None:
                    await self._leadership.release()
            for task in background:
                task.cancel()
        if self._lost is not None:
            raise self._lost

    async def _keep(self, leadership: Leadership) -> None:
        """Renew the lease; stop everything when it is lost."""
        try:
            await leadership.hold()
        except LeadershipLostError as error:
            _log.error("stopping at once", reason=str(error))
            self._lost = error
            self._stopping.set()

    async def _until_stopping(self, awaitable: Awaitable[None]) -> None:
        """Wait for `awaitable` or the stop, whichever comes first."""
        wanted = asyncio.ensure_future(awaitable)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((wanted, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            wanted.cancel()
        if wanted.done() and not wanted.cancelled():
            wanted.result()

    async def _drain(self, controllers: Sequence[asyncio.Task[None]]) -> None:
        """Let running reconciles finish, for a while; not at all when the lease is lost."""
        self._stopping.set()
        for controller in self._controllers:
            controller.stop()
        if not controllers:
            return
        grace = 0.0 if self._lost else self._stop_grace
        _, pending = await asyncio.wait(controllers, timeout=grace)
        for task in pending:
            _log.warning("reconciles did not finish in time; cancelling them", seconds=grace)
            task.cancel()


async def _run(task: Callable[[], Awaitable[None]]) -> None:
    await task()
