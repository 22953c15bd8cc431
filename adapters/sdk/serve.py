"""Running an adapter: one process, one SPI port, a clean end on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import structlog
from grpc import aio

from adapters.errors import ConfigurationError
from adapters.puller import Puller
from adapters.sdk import metrics
from adapters.sdk.models import Models
from adapters.sdk.spi import ModelRuntime
from api.proto.model_runtime_pb2_grpc import add_ModelRuntimeServicer_to_server

if TYPE_CHECKING:
    from adapters.sdk.adapter import ServerAdapter
    from adapters.sdk.settings import Settings

log = structlog.get_logger(__name__)

# Loads that are under way when the pod ends have this long to clean up behind themselves.
_GRACE_S = 5.0


async def serve(adapter: ServerAdapter, settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Answers the mesh until SIGTERM or SIGINT, or until `stop` is set.

    Raises:
        ConfigurationError: a port is taken, or the models' folder cannot be made.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        adapter.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        adapter.prepare()
    except OSError as error:
        raise ConfigurationError(f"ROOT_MODEL_DIR cannot be used: {error}") from error
    puller = Puller(settings.puller) if settings.embedded_puller else None
    models = Models(adapter, settings, puller)
    runtime = ModelRuntime(adapter, settings, models)
    # Two adapters on one port would share its calls; the second is to fail instead.
    server = aio.server(options=(("grpc.so_reuseport", 0),))
    add_ModelRuntimeServicer_to_server(runtime, server)
    address = f"{settings.bind_address}:{settings.port}"
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigurationError(
            f"cannot listen on {address}: another process has the port, or ADAPTER_PORT is wrong",
        ) from error
    with metrics.served(settings.bind_address, settings.metrics_port):
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
                async with asyncio.timeout(_GRACE_S):
                    await models.end_loads()
            await server.stop(_GRACE_S)
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower
            await runtime.close()
            await adapter.close()
            log.info("adapter stopped", server=adapter.title)
