"""The port on which an adapter is watched: health for the kubelet's probes, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING

import prometheus_client

from adapters.errors import ConfigurationError
from adapters.sdk.follow import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Answer = tuple[HTTPStatus, str, bytes]
    """Status, type of the content, and content."""

_TEXT = "text/plain; charset=utf-8"
_PATIENCE_S = 5.0
_LONGEST_REQUEST = 8192


@contextlib.asynccontextmanager
async def observed(address: str | None, port: int, state: Callable[[], State]) -> AsyncIterator[None]:
    """Serves by HTTP inside of the block; not at all where `port` is 0. `address` None is every interface.

    `/healthz` answers 200 while the adapter's loop turns; a probe that gets no answer may restart it.
    `/readyz` answers 200 while models can be loaded, else 503 with the `state`. `/metrics` is Prometheus'.
    A web framework for these would take nine megabytes in every pod.

    Raises:
        ConfigurationError: the port is taken.
    """
    if not port:
        yield
        return

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that leaves, dawdles or speaks something else gets no answer.
        with contextlib.suppress(
            OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_PATIENCE_S):
                request = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = request.split(b"\r\n", 1)[0].decode("ascii").split(" ")
                status, kind, content = _answer(method, target.partition("?")[0], state())
                head = (
                    f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + (b"" if method == "HEAD" else content))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(serve, address, port, limit=_LONGEST_REQUEST)
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve metrics on {address or '*'}:{port}: {error.strerror or error}"
        ) from error
    async with server:
        yield


def _answer(method: str, path: str, state: State) -> Answer:
    if method not in {"GET", "HEAD"}:
        return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"only GET and HEAD\n"
    match path:
        case "/healthz":
            return HTTPStatus.OK, _TEXT, b"ok\n"
        case "/readyz":
            ready = state is State.READY
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            return status, _TEXT, f"{state.value}\n".encode()
        case "/metrics":
            return HTTPStatus.OK, prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest()
    return HTTPStatus.NOT_FOUND, _TEXT, b"/healthz, /readyz or /metrics\n"
