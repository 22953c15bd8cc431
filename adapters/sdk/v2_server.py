"""Servers with the model repository extension of the V2 protocol over gRPC: MLServer and Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

import grpc
from grpc import aio

from adapters.errors import ServerError, ServerUnreachableError
from adapters.sdk.adapter import Model, ServerAdapter
from api.proto.kfs_inference_v2_pb2 import (
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from api.proto.kfs_inference_v2_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

    from adapters.sdk.settings import Settings

T = TypeVar("T")

# Questions that a healthy server answers from memory.
_QUICK_S = 5.0
# Reconnect quickly after a restart: the server is on this machine. Never give up an idle connection, since
# losing it is how a dead server is noticed.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
)


class V2Server(ServerAdapter):
    """The part of an adapter that tells such a server; a subclass adds the layout."""

    unknown_model_codes: ClassVar[Collection[grpc.StatusCode]] = (grpc.StatusCode.NOT_FOUND,)
    """What the server answers to unloading a model that it does not know."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._channel = aio.insecure_channel(f"127.0.0.1:{settings.server_port}", options=_CHANNEL_OPTIONS)
        self._server = GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def is_ready(self) -> bool:
        """Asks ServerReady."""
        try:
            return (await self._ask(self._server.ServerReady(ServerReadyRequest(), timeout=_QUICK_S))).ready
        except (ServerError, ServerUnreachableError):
            return False

    async def wait_lost(self) -> None:
        """Follows the connection's state, which changes in the moment in which the server's process ends."""
        while (state := self._channel.get_state()) is grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)

    async def loaded(self) -> list[str]:
        """Asks for the repository's index of models that can serve."""
        index = await self._ask(
            self._server.RepositoryIndex(RepositoryIndexRequest(ready=True), timeout=_QUICK_S)
        )
        return [model.name for model in index.models]

    async def version(self) -> str:
        """Asks ServerMetadata."""
        return (
            await self._ask(self._server.ServerMetadata(ServerMetadataRequest(), timeout=_QUICK_S))
        ).version

    async def load(self, model: Model) -> None:
        """Tells the server to load; it has as long as it takes, the SDK watches the time."""
        try:
            await self._ask(self._server.RepositoryModelLoad(RepositoryModelLoadRequest(model_name=model.id)))
        except ServerError as error:
            what = f"{model.path.name} as a model of type {model.type or 'unknown'}"
            message = f"{self.title} could not load {what} (is it whole, and of this type?): {error}"
            raise ServerError(error.status, message) from error

    async def unload(self, model_id: str) -> None:
        """Tells the server to unload."""
        try:
            await self._ask(
                self._server.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name=model_id))
            )
        except ServerError as error:
            if error.status not in self.unknown_model_codes:
                raise ServerError(
                    error.status, f"{self.title} could not unload the model: {error}"
                ) from error

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except aio.AioRpcError as error:
            code, details = error.code(), error.details() or "no message"
            if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise ServerUnreachableError(f"{self.title} gives no answer: {details}") from error
            raise ServerError(code, details) from error
