"""The SPI port of a process, and the signals that end it."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from grpc import aio

from adapters.errors import ConfigurationError
from api.proto.model_runtime_pb2_grpc import add_ModelRuntimeServicer_to_server

if TYPE_CHECKING:
    from api.proto.model_runtime_pb2_grpc import ModelRuntimeServicer

# Loads that are under way when the pod ends have this long to clean up behind themselves.
GRACE_S = 5.0


def set_by_signals(stop: asyncio.Event | None) -> asyncio.Event:
    """Returns `stop`, or a new event, which SIGTERM and SIGINT set from now on."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def spi_server(servicer: ModelRuntimeServicer, address: str, variable: str) -> aio.Server:
    """Returns a server of the SPI that has its port; `variable` is where that was written, for messages.

    Raises:
        ConfigurationError: the port is taken.
    """
    # Two processes on one port would share its calls; the second is to fail instead.
    server = aio.server(options=(("grpc.so_reuseport", 0),))
    add_ModelRuntimeServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigurationError(
            f"cannot listen on {address}: another process has the port, or {variable} is wrong",
        ) from error
    return server
