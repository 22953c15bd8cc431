"""Repairs that only one instance, the leader, makes: records that name instances which are gone for good."""

import asyncio
from collections.abc import Callable

import structlog

from mesh import copies
from mesh.errors import RegistryUnavailableError
from mesh.registry import Registry

PERIOD_SECONDS = 30.0
GONE_MS = 600_000
"""An instance that was not seen for ten minutes does not come back; until then its copies are only ignored.
"""

log = structlog.get_logger(__name__)


class Housekeeper:
    """Run `run` as a task on every instance; it acts on the leader's."""

    def __init__(self, registry: Registry, *, now: Callable[[], int]) -> None:
        self._registry = registry
        self._now = now
        self._missing: dict[str, int] = {}

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            if not self._registry.is_leader():
                self._missing.clear()
                continue
            try:
                await self.prune()
            except RegistryUnavailableError as error:
                log.warning("housekeeping not finished", error=str(error))

    async def prune(self) -> None:
        """Takes instances that are gone for good out of all records. Raises RegistryUnavailableError."""
        named = {id_ for id_ in self._registry.holders() if id_ not in self._registry.instances}
        self._missing = {id_: self._missing.get(id_, self._now()) for id_ in named}
        for instance_id, since in list(self._missing.items()):
            if self._now() - since < GONE_MS:
                continue
            models = self._registry.holdings(instance_id)
            log.info("forgetting an instance", instance=instance_id, models=len(models))
            await self._registry.update_many(models, copies.vanished(instance_id))
            del self._missing[instance_id]
