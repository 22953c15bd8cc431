"""Metrics of an adapter, served on `ADAPTER_METRICS_PORT` where that is set."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from adapters.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADS = Counter("modelmesh_adapter_loads", "Loads that have ended, by their gRPC code", ["code"])
LOAD_SECONDS = Histogram(
    "modelmesh_adapter_load_seconds",
    "Time of loads that succeeded: pull, layout and the server's own",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
MODELS = Gauge("modelmesh_adapter_models", "Models that the server holds")
SERVER_LIVES = Counter("modelmesh_adapter_server_lives", "Times that the model server became usable")


@contextlib.contextmanager
def served(address: str, port: int) -> Iterator[None]:
    """Serves the metrics by HTTP inside of the block; not at all where `port` is 0.

    Raises:
        ConfigurationError: the port is taken.
    """
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, addr=address)
    except OSError as error:
        raise ConfigurationError(f"cannot serve metrics on {address}:{port}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
