"""Watches over the model server: waits until it is ready, notices when it is gone, and waits again.

A server that comes back is empty, so losing it drops every copy of this instance. That it went is seen from
the end of a connection that is there for nothing else; that it has come back meanwhile, and empty, from its
own words: one that knows our session is asked how it is, any other whether it still has some of its models.
One that accepts connections and answers nothing is frozen, and as good as gone.
"""

import asyncio
import random
from collections.abc import Callable

import structlog

from mesh.cache import Phase
from mesh.loading import Loader
from mesh.runtime import Runtime, RuntimeTerms

ASK_SECONDS = 1.0
"""How often a server that knows our session is asked how it is."""
PROBE_SECONDS = 5.0
"""How often any other is; requests notice a dead one at once."""
MAX_SILENT = 3
"""Questions without an answer in time, each ten seconds, after which the server counts as frozen."""
SAMPLE = 3
"""Models that a server is asked for, to see whether it has lost all."""

log = structlog.get_logger(__name__)


class RuntimeGuard:
    """The model server's comings and goings. Run `run` as a task."""

    def __init__(
        self,
        runtime: Runtime,
        loader: Loader,
        *,
        on_ready: Callable[[RuntimeTerms], None],
        on_lost: Callable[[list[tuple[str, int]]], None],
    ) -> None:
        """`on_lost` gets the models that were loaded, with their last use in ms since 1970."""
        self.terms: RuntimeTerms | None = None
        self._runtime = runtime
        self._loader = loader
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Follows the server until cancelled."""
        while True:
            terms = await self._runtime.ready()
            log.info("model server ready", capacity=terms.capacity.memory, load_slots=terms.load_slots)
            self.terms = terms
            self._lost.clear()
            self._loader.resume(terms)
            self._on_ready(terms)
            self._ready.set()
            await self._until_lost()

    async def wait_ready(self) -> RuntimeTerms:
        """Waits for a server that can load."""
        while self.terms is None:
            await self._ready.wait()
        return self.terms

    async def suspect(self) -> bool:
        """Looks whether the server is gone, and if so starts over; returns whether it is."""
        suspected = self.terms
        if suspected is None:
            return True
        if (
            await self._runtime.alive()
            and await self._runtime.still_ready()
            and self._runtime.silent < MAX_SILENT
        ):
            return False
        if self.terms is suspected:  # else another one has come meanwhile
            self._lose()
        return True

    async def _until_lost(self) -> None:
        lost = asyncio.create_task(self._lost.wait())
        connection = asyncio.create_task(self._runtime.disconnected())
        try:
            while not self._lost.is_set():
                seconds = ASK_SECONDS if self._runtime.knows_session else PROBE_SECONDS
                await asyncio.wait({lost, connection}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if connection.done():
                    log.info("the model server has ended a connection")
                    connection = asyncio.create_task(self._runtime.disconnected())
                if not await self.suspect() and not self._runtime.knows_session:
                    await self._look_for_models()
        finally:
            lost.cancel()
            connection.cancel()

    async def _look_for_models(self) -> None:
        """Asks for some of the models that should be loaded."""
        terms = self.terms
        loaded = {
            copy.model_id: copy.loaded_ms
            for copy in self._loader.cache.copies()
            if copy.phase is Phase.LOADED
        }
        asked = random.sample(sorted(loaded), min(SAMPLE, len(loaded)))
        answers = await asyncio.gather(*(self._runtime.holds(model_id) for model_id in asked))
        if terms is not self.terms:
            return
        missing = []
        for model_id, held in zip(asked, answers, strict=True):
            copy = self._loader.cache.get(model_id)
            if held is False and copy and copy.phase is Phase.LOADED and copy.loaded_ms == loaded[model_id]:
                missing.append(model_id)
        if missing and len(missing) == len(asked):
            self._lose()
            return
        for model_id in missing:
            log.warning("the model server has lost a model", model=model_id)
            self._loader.unload(model_id, drain=False, why="the model server has lost it")

    def _lose(self) -> None:
        if self.terms is None:
            return
        log.warning("model server lost; its models that were in use are loaded again")
        self.terms = None
        self._ready.clear()
        self._on_lost(self._loader.suspend())
        self._lost.set()
