"""Loads that are under way: one ends when its caller leaves or an unload comes, and then cleans up."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from adapters.errors import AdapterError, LoadAbandonedError

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Loads(Generic[T]):
    """The loads of all models; there may be several of one."""

    def __init__(self) -> None:
        self._tasks: defaultdict[str, set[asyncio.Task[T]]] = defaultdict(set)

    @property
    def models(self) -> set[str]:
        """Models of which a load is under way."""
        return set(self._tasks)

    @property
    def given_up(self) -> list[asyncio.Task[T]]:
        """Loads that were ended and still clean up."""
        return [task for tasks in self._tasks.values() for task in tasks if task.cancelling()]

    async def run(self, model_id: str, work: Coroutine[None, None, T]) -> T:
        """Runs a load for a caller, and ends it when the caller leaves.

        Raises:
            LoadAbandonedError: `end` overtook it.
        """
        task = asyncio.create_task(work)
        self._tasks[model_id].add(task)
        task.add_done_callback(lambda done: self._ended(model_id, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise LoadAbandonedError("the load was overtaken by an unload of the same model") from None
            _cancel(task)
            raise

    def end(self, model_id: str) -> None:
        """Ends the loads of a model; whoever waits for its turn waits until they have cleaned up."""
        for task in self._tasks.get(model_id, ()):
            _cancel(task)

    async def end_all(self) -> None:
        """Ends all loads and waits until each has cleaned up."""
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            _cancel(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def cleaned_up(self) -> None:
        """Waits until no load that was ended still cleans up."""
        await asyncio.gather(*self.given_up, return_exceptions=True)

    def _ended(self, model_id: str, task: asyncio.Task[T]) -> None:
        tasks = self._tasks[model_id]
        tasks.discard(task)
        if not tasks:
            del self._tasks[model_id]
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, AdapterError):
            log.error("load failed unexpectedly", model=model_id, exc_info=error)


def _cancel(task: asyncio.Task[T]) -> None:
    """Cancels once: a second time would break off the cleaning up."""
    if not task.cancelling():
        task.cancel()
