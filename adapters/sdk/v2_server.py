"""Servers with the model repository extension of the V2 protocol over gRPC: MLServer and Triton."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import grpc

from adapters.errors import ServerError, ServerUnreachableError
from adapters.sdk.adapter import INFERENCE, V2_METHODS
from adapters.sdk.grpc_server import GrpcServer
from api.proto.kfs_inference_v2_pb2 import (
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerMetadataRequest,
    ServerReadyRequest,
)
from api.proto.kfs_inference_v2_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.sdk.adapter import Model
    from adapters.sdk.settings import Settings

# Questions that a healthy server answers from memory.
_QUICK_S = 5.0


class V2Server(GrpcServer):
    """The part of an adapter that tells such a server; a subclass adds the layout."""

    methods: ClassVar[Mapping[str, Sequence[int]]] = dict(V2_METHODS) | {f"{INFERENCE}/ModelStreamInfer": [1]}

    unknown_model_codes: ClassVar[Collection[grpc.StatusCode]] = (grpc.StatusCode.NOT_FOUND,)
    """What the server answers to unloading a model that it does not know."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._server = GRPCInferenceServiceStub(self.channel)

    async def is_ready(self) -> bool:
        """Asks ServerReady."""
        try:
            return (await self.ask(self._server.ServerReady(ServerReadyRequest(), timeout=_QUICK_S))).ready
        except (ServerError, ServerUnreachableError):
            return False

    async def loaded(self) -> list[str]:
        """Asks for the repository's index of models that can serve."""
        index = await self.ask(
            self._server.RepositoryIndex(RepositoryIndexRequest(ready=True), timeout=_QUICK_S)
        )
        return [model.name for model in index.models]

    async def busy(self) -> list[str]:
        """Asks for the whole index, in which the others are READY, UNAVAILABLE or without a state."""
        index = await self.ask(self._server.RepositoryIndex(RepositoryIndexRequest(), timeout=_QUICK_S))
        return [model.name for model in index.models if model.state in {"LOADING", "UNLOADING"}]

    async def version(self) -> str:
        """Asks ServerMetadata."""
        return (
            await self.ask(self._server.ServerMetadata(ServerMetadataRequest(), timeout=_QUICK_S))
        ).version

    async def load(self, model: Model) -> None:
        """Tells the server to load; it has as long as it takes, the SDK watches the time."""
        call = self._server.RepositoryModelLoad(RepositoryModelLoadRequest(model_name=model.id))
        what = f"{model.path.name} as a model of type {model.type or 'unknown'}"
        await self.ask_to_load(call, what=what)

    async def unload(self, model_id: str) -> None:
        """Tells the server to unload."""
        try:
            await self.ask(
                self._server.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name=model_id))
            )
        except ServerError as error:
            if error.status not in self.unknown_model_codes:
                raise ServerError(
                    error.status, f"{self.title} could not unload the model: {error}"
                ) from error
