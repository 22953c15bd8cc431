"""The port on which an adapter is watched: health for the kubelet's probes, and metrics for Prometheus."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import prometheus_client

from adapters.errors import ConfigurationError
from adapters.sdk.follow import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def observed(address: str | None, port: int, state: Callable[[], State]) -> AsyncIterator[None]:
    """Serves by HTTP inside of the block; not at all where `port` is 0. `address` None is every interface.

    `/healthz` answers 200 while the adapter's loop turns; a probe that gets no answer may restart it.
    `/readyz` answers 200 while models can be loaded, else 503 with the `state`. `/metrics` is Prometheus'.

    Raises:
        ConfigurationError: the port is taken.
    """
    if not port:
        yield
        return
    from aiohttp import web  # noqa: PLC0415 - memory that only those who ask for it pay

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        now = state()
        return web.Response(text=f"{now.value}\n", status=200 if now is State.READY else 503)

    async def metrics(_: web.Request) -> web.Response:
        kind = prometheus_client.CONTENT_TYPE_LATEST
        return web.Response(body=prometheus_client.generate_latest(), headers={"Content-Type": kind})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError(
            f"cannot serve metrics on {address or '*'}:{port}: {error.strerror or error}"
        ) from error
    try:
        yield
    finally:
        await runner.cleanup()
