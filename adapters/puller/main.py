"""Entry point of `modelmesh puller`: the container that pulls for a custom server.

Environment: `PORT` (8084) to listen on, `MODEL_SERVER_ENDPOINT` (`port:8085`, or `unix:PATH`) of the server's
SPI, `ROOT_MODEL_DIR`, `STORAGE_CONFIG_DIR`, `PVC_MOUNTS_DIR`, `PULL_CONCURRENCY`, `MODEL_CACHE_BYTES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from grpc import aio

from adapters.allocator import bound_arenas
from adapters.endpoints import grpc_target
from adapters.environment import Reader
from adapters.errors import ConfigurationError
from adapters.puller.proxy import PullerProxy
from adapters.puller.pull import Puller
from adapters.puller.settings import PullerSettings
from adapters.sdk.listen import GRACE_S, set_by_signals, spi_server

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger(__name__)

# The puller is not told how much memory, and so how large a volume, its pod has; this fits the smallest.
_CACHE_BYTES = 1 << 30
# The server is in the same pod: look for it often, and never give up an idle connection.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the container is told: where to listen, the server's gRPC target, and the puller's settings."""

    address: str
    server: str
    puller: PullerSettings

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Reads and checks all variables.

        Raises:
            ConfigurationError: names every variable that is wrong and what it must be.
        """
        read = Reader(environment)
        port = read.port("PORT", 8084)
        puller = PullerSettings.from_environment(read, cache_bytes=_CACHE_BYTES)
        server = ""
        try:
            server = grpc_target(
                environment.get("MODEL_SERVER_ENDPOINT", "port:8085"), "MODEL_SERVER_ENDPOINT"
            )
        except ConfigurationError as error:
            read.problem(str(error))
        read.finish()
        host = environment.get("MODELMESH_BIND_ADDRESS") or "127.0.0.1"
        return cls(address=f"{host}:{port}", server=server, puller=puller)


def main(argv: list[str]) -> int:
    """Runs the puller; 1 where it cannot start, 2 for a wrong command line."""
    if argv:
        out = sys.stdout if argv in (["-h"], ["--help"]) else sys.stderr
        out.write("usage: modelmesh puller\n\n" + (__doc__ or "").partition("\n\n")[2])
        return 0 if out is sys.stdout else 2
    bound_arenas()
    try:
        asyncio.run(serve(Settings.from_environment(os.environ)))
    except ConfigurationError as error:
        sys.stderr.write(f"modelmesh puller: {error}\n")
        return 1
    return 0


async def serve(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Answers the mesh until SIGTERM or SIGINT, or until `stop` is set.

    Raises:
        ConfigurationError: the port is taken, or the models' folder cannot be used.
    """
    stop = set_by_signals(stop)
    try:
        settings.puller.root.mkdir(parents=True, exist_ok=True, mode=0o755)
        puller = Puller(settings.puller)
    except OSError as error:
        raise ConfigurationError(f"ROOT_MODEL_DIR cannot be used: {error}") from error
    channel = aio.insecure_channel(settings.server, options=_CHANNEL_OPTIONS)
    proxy = PullerProxy(puller, channel)
    server = spi_server(proxy, settings.address, "PORT")
    await server.start()
    log.info("puller started", address=settings.address, server=settings.server)
    try:
        await stop.wait()
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await proxy.close()
        await server.stop(GRACE_S)
        await channel.close()
        log.info("puller stopped")
