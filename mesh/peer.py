"""The load hop between instances: asks another one to load a model itself, and answers when asked."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import StatusCode
from grpc.aio import AioRpcError, Channel, ServicerContext

from api.proto import mesh_peer_pb2, mesh_peer_pb2_grpc
from mesh.errors import (
    RETRY_MS,
    DeadlineError,
    LoadFailedError,
    MeshError,
    ModelNotFoundError,
    NoCapacityError,
    RuntimeDownError,
)
from store.records import Resources

CAUSE_KEY = "mm-cause"
"""Trailing metadata: the status code that the model server gave, where the model could not be loaded."""
RETRY_KEY = "mm-retry-after-ms"
"""Trailing metadata: when a refused load may be tried again; empty where that would not help."""
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

LoadHere = Callable[[str, int, bool, int | None], Awaitable[Resources]]
"""(model id, last used in ms since 1970, urgent, milliseconds that the request has left) -> its size."""


class PeerServicer(mesh_peer_pb2_grpc.PeerServicer):
    """Loads what other instances have placed here."""

    def __init__(self, load_here: LoadHere) -> None:
        self._load_here = load_here

    async def Load(  # noqa: N802 - named by the protocol
        self, request: mesh_peer_pb2.LoadRequest, context: ServicerContext[Any, Any]
    ) -> mesh_peer_pb2.LoadReply:
        """Answers when the load has ended."""
        try:
            patience = request.patience_ms if request.HasField("patience_ms") else None
            size = await self._load_here(request.model_id, request.last_used_ms, request.urgent, patience)
        except MeshError as error:
            if isinstance(error, LoadFailedError):
                context.set_trailing_metadata(((CAUSE_KEY, error.cause.name),))
            elif isinstance(error, NoCapacityError):
                context.set_trailing_metadata(((RETRY_KEY, str(error.retry_after_ms or "")),))
            await context.abort(error.code, str(error))
            raise
        return mesh_peer_pb2.LoadReply(size_bytes=size.memory)


class Peers:
    """The connections to other instances, opened when needed."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}

    async def load(
        self, address: str, model_id: str, *, last_used: int, urgent: bool, patience_ms: int | None
    ) -> None:
        """Has the instance at `address` load a model; returns when it is loaded.

        `patience_ms` is the time that the request has left: a load that would not begin within it is refused.

        Raises what the load there raised; RuntimeDownError also where the instance does not answer.
        """
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=list(CHANNEL_OPTIONS))
            self._channels[address] = channel
        stub: Any = mesh_peer_pb2_grpc.PeerStub(channel)
        request = mesh_peer_pb2.LoadRequest(
            model_id=model_id, last_used_ms=last_used, urgent=urgent, patience_ms=patience_ms
        )
        task = asyncio.current_task()
        call = stub.Load(request)
        try:
            await call
        except AioRpcError as error:
            raise _translate(error, address, model_id) from error
        except asyncio.CancelledError:
            # Closing a channel cancels its calls, and grpc then says that of whoever awaits one.
            if task and task.cancelling():
                raise
            raise RuntimeDownError(f"instance at {address} has gone") from None

    async def forget(self, address: str) -> None:
        """Closes the connection to an instance that is gone."""
        if channel := self._channels.pop(address, None):
            await channel.close()

    async def close(self) -> None:
        """Closes all connections."""
        for address in list(self._channels):
            await self.forget(address)


def _translate(error: AioRpcError, address: str, model_id: str) -> MeshError:
    text = error.details() or ""
    trailers = dict(error.trailing_metadata() or ())
    if cause := trailers.get(CAUSE_KEY):
        return LoadFailedError.recorded(text, str(cause))
    if error.code() is StatusCode.RESOURCE_EXHAUSTED:
        refused = NoCapacityError(text)
        retry = str(trailers.get(RETRY_KEY, RETRY_MS))
        refused.retry_after_ms = int(retry) if retry.isdecimal() else None
        return refused
    if error.code() is StatusCode.NOT_FOUND:
        return ModelNotFoundError(model_id)
    if error.code() is StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(text)
    return RuntimeDownError(f"instance at {address}: {error.code().name}: {text}")
