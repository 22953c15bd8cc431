"""Running an adapter: one process, one SPI port, a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from adapters.errors import ConfigurationError
from adapters.puller import Puller
from adapters.sdk.listen import GRACE_S, set_by_signals, spi_server
from adapters.sdk.models import Models
from adapters.sdk.observed import observed
from adapters.sdk.spi import ModelRuntime

if TYPE_CHECKING:
    from adapters.sdk.adapter import ServerAdapter
    from adapters.sdk.settings import Settings

log = structlog.get_logger(__name__)


async def serve(adapter: ServerAdapter, settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Answers the mesh until SIGTERM or SIGINT, or until `stop` is set.

    Raises:
        ConfigurationError: a port is taken, or the models' folder cannot be made.
    """
    stop = set_by_signals(stop)
    try:
        adapter.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        adapter.prepare()
    except OSError as error:
        raise ConfigurationError(f"ROOT_MODEL_DIR cannot be used: {error}") from error
    puller = Puller(settings.puller) if settings.embedded_puller else None
    models = Models(adapter, settings, puller)
    runtime = ModelRuntime(adapter, settings, models)
    address = f"{settings.bind_address}:{settings.port}"
    server = spi_server(runtime, address, "ADAPTER_PORT")
    async with observed(settings.metrics_address, settings.metrics_port, lambda: models.server.state):
        follower = asyncio.create_task(models.server.run())
        await server.start()
        log.info("adapter started", server=adapter.title, address=address, capacity=settings.capacity)
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({follower, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if follower.done():
                follower.result()  # it never ends by itself, so this raises what ended it
        finally:
            stopped.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await models.end_loads()
            await server.stop(GRACE_S)
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower
            await runtime.close()
            await adapter.close()
            log.info("adapter stopped", server=adapter.title)
