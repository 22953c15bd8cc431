"""Keeps this instance and the registry in agreement, whatever got lost on the way between them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog

from mesh import repair
from mesh.copies import FailureTerms
from mesh.ensure import Ensurer
from mesh.errors import MeshError
from mesh.loading import Loader
from mesh.registry import Registry
from mesh.repair import Finding, Held
from store.errors import StoreError
from store.records import NOTHING

FIRST_SECONDS, PERIOD_SECONDS = 5.0, 60.0
"""Changes are written when they happen; a pass only mends what failed then, so it need not hurry."""

log = structlog.get_logger(__name__)


class Janitor:
    """Run `run` as a task on every instance."""

    def __init__(
        self,
        registry: Registry,
        loader: Loader,
        ensurer: Ensurer,
        *,
        failure_terms: FailureTerms,
        now: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._loader = loader
        self._ensurer = ensurer
        self._failure_terms = failure_terms
        self._now = now

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.tidy()
            except (MeshError, StoreError) as error:
                log.warning("repairs not finished, they go on later", error=str(error))
            except Exception:
                # No record, however odd, may end the process.
                log.exception("repairs not finished, they go on later")
            await asyncio.sleep(PERIOD_SECONDS)

    async def tidy(self) -> list[tuple[str, Finding]]:
        """One pass; returns what was wrong. Raises RegistryUnavailableError."""
        now, own = self._now(), self._registry.instance_id
        ids = {copy.model_id for copy in self._loader.cache.copies()} | self._registry.holdings(own)
        # The record of a model that is being loaded is in the hands of its load.
        ids = {model_id for model_id in ids if not self._ensurer.is_loading(model_id)}
        held = [copy for model_id in ids if (copy := self._held(model_id))]
        named = {model_id: record for model_id in ids if (record := self._registry.peek(model_id))}
        findings = repair.inspect(held, named, own, now, self._failure_terms)
        if findings:
            counts = Counter(finding.name.lower() for _, finding in findings)
            log.info("repairing", **counts, models=sorted({id_ for id_, _ in findings})[:10])
        for model_id, finding in findings:
            if finding is Finding.IMPOSSIBLE_USE:
                self._loader.cache.correct(model_id, now - repair.CORRECTED_AGE_MS)
            elif finding is Finding.NOT_REGISTERED:
                await self._check_registered(model_id)
        await self._registry.update_each(
            {
                model_id: repair.mended(own, partial(self._held, model_id), now, self._failure_terms)
                for model_id, finding in findings
                if finding not in repair.IN_MEMORY
            }
        )
        return findings

    async def _check_registered(self, model_id: str) -> None:
        await self._registry.refresh(model_id)
        if self._registry.peek(model_id) is None:
            self._loader.unload(model_id, why="the model is not registered")

    def _held(self, model_id: str) -> Held | None:
        copy = self._loader.cache.get(model_id)
        loaded = self._loader.is_loaded(model_id) and not self._ensurer.is_loading(model_id)
        if copy:
            return Held(model_id, copy.last_used, copy.size, loaded)
        return Held(model_id, self._now(), NOTHING, loaded=False) if self._ensurer.is_here(model_id) else None
