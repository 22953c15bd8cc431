"""The controller's own HTTP ports: health for the kubelet, metrics for Prometheus."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from controller.errors import ControllerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OFF = "0"
"""An address that means: do not serve."""


class AddressError(ControllerError):
    """An address of the command line cannot be used, or is taken."""


def split_address(address: str, flag: str) -> tuple[str, int]:
    """Splits `HOST:PORT`; an empty host is all addresses. AddressError names the flag."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise AddressError(f"--{flag} {address!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def _serving(app: web.Application, address: str, flag: str) -> AsyncIterator[None]:
    host, port = split_address(address, flag)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise AddressError(f"--{flag}: cannot listen on {host}:{port}: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving(health: str, metrics: str, ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Serves both while the block runs.

    Args:
        health: `HOST:PORT` of `/healthz` and `/readyz`, or OFF.
        metrics: `HOST:PORT` of `/metrics`, or OFF.
        ready: tells whether the controllers are reconciling.

    Raises:
        AddressError: an address is malformed or taken.
    """

    async def readiness(_: web.Request) -> web.Response:
        return web.Response(text="ok") if ready() else web.Response(status=503, text="not started\n")

    async with AsyncExitStack() as stack:
        if health != OFF:
            app = web.Application()
            app.add_routes([web.get("/healthz", _healthy), web.get("/readyz", readiness)])
            await stack.enter_async_context(_serving(app, health, "health-probe-bind-address"))
        if metrics != OFF:
            app = web.Application()
            app.add_routes([web.get("/metrics", _metrics)])
            await stack.enter_async_context(_serving(app, metrics, "metrics-addr"))
        yield
