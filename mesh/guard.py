"""Watches over the model server: waits until it is ready, notices when it is gone, and waits again.

A server that comes back is empty, so losing it drops every copy of this instance; requests load them again as
they need.
"""

import asyncio
from collections.abc import Callable

import structlog

from mesh.loading import Loader
from mesh.runtime import Runtime, RuntimeTerms

ASK_SECONDS = 1.0
"""How often a server that knows our session is asked how it is."""
PROBE_SECONDS = 5.0
"""How often the ports of any other are tried; requests notice a dead one at once."""

log = structlog.get_logger(__name__)


class RuntimeGuard:
    """The model server's comings and goings. Run `run` as a task."""

    def __init__(
        self,
        runtime: Runtime,
        loader: Loader,
        *,
        on_ready: Callable[[RuntimeTerms], None],
        on_lost: Callable[[], None],
    ) -> None:
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
        if await self._runtime.alive() and await self._runtime.still_ready():
            return False
        if self.terms is suspected:  # else another one has come meanwhile
            self._lose()
        return True

    async def _until_lost(self) -> None:
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(ASK_SECONDS if self._runtime.knows_session else PROBE_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                await self.suspect()

    def _lose(self) -> None:
        if self.terms is None:
            return
        log.warning("model server lost; its models are loaded again when they are asked for")
        self.terms = None
        self._ready.clear()
        self._loader.suspend()
        self._on_lost()
        self._lost.set()
