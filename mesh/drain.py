"""Hands over the copies of an instance that leaves: others load them before this one stops to serve.

The instance has said that it leaves, so nothing new comes here; its copies are routed to as long as no other
can serve. What was used last goes first, for the time may not be enough for all.
"""

import asyncio
from collections import Counter

import structlog

from mesh.ensure import Ensurer
from mesh.errors import MeshError
from mesh.loading import Loader
from mesh.registry import Registry

MOST_AT_A_TIME = 64
"""Loads asked for at a time; each waits in the line of the instance that does it."""

log = structlog.get_logger(__name__)


class Drain:
    """One departure."""

    def __init__(self, registry: Registry, loader: Loader, ensurer: Ensurer) -> None:
        self._registry = registry
        self._loader = loader
        self._ensurer = ensurer
        self._counts: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Returns when all that can be is loaded elsewhere, or the time is over."""
        slots = sum(
            row.value.load_slots
            for id_, row in self._registry.instances.items()
            if row.value.ready and self._registry.live(id_) and id_ != self._registry.instance_id
        )
        copies = [copy for copy in self._loader.cache.copies() if self._loader.is_loaded(copy.model_id)]
        if not slots or not copies or seconds <= 0:
            return
        pending = iter(sorted(copies, key=lambda copy: -copy.last_used))

        async def work() -> None:
            for copy in pending:
                await self._hand_over(copy.model_id, copy.last_used)

        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                for _ in range(min(MOST_AT_A_TIME, 2 * slots)):
                    tasks.create_task(work())
        except TimeoutError:
            log.warning("not all models handed over in time", seconds=round(seconds, 1))
        self._counts["left"] = len(copies) - self._counts.total()
        log.info("models handed over", **self._counts)

    async def _hand_over(self, model_id: str, last_used: int) -> None:
        own = self._registry.instance_id
        record = self._registry.peek(model_id)
        if record is None or any(id_ != own and self._registry.live(id_) for id_ in record.loaded):
            self._counts["elsewhere"] += 1
            return
        try:
            await self._ensurer.ensure(model_id, last_used=last_used, urgent=False, excluded={own})
        except MeshError as error:
            self._counts["refused"] += 1
            log.info("model not handed over", model=model_id, error=str(error))
        else:
            self._counts["loaded"] += 1
