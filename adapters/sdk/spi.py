"""The management SPI (`mmesh.ModelRuntime`) over the models of one server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

from adapters.errors import AdapterError
from adapters.sdk.answers import answered
from adapters.sdk.follow import State
from adapters.sdk.models import LoadRequest, Models
from api.proto.model_runtime_pb2 import (
    LoadModelRequest,
    LoadModelResponse,
    ModelSizeRequest,
    ModelSizeResponse,
    PredictModelSizeRequest,
    PredictModelSizeResponse,
    RuntimeStatusRequest,
    RuntimeStatusResponse,
    UnloadModelRequest,
    UnloadModelResponse,
)
from api.proto.model_runtime_pb2_grpc import ModelRuntimeServicer

if TYPE_CHECKING:
    from adapters.sdk.adapter import ServerAdapter
    from adapters.sdk.settings import Settings

log = structlog.get_logger(__name__)

SESSION_HEADER = "mm-session"
# A status call waits this long for a server that is about to be ready, so that a start costs no further poll.
_STATUS_WAIT_S = 1.0


class ModelRuntime(ModelRuntimeServicer):
    """Answers the mesh.

    A mesh that asks for the status begins anew and expects an empty server: that is the original's contract,
    and what a call without metadata gets. A mesh that wants to ask again while it has models names itself by
    the metadata `mm-session`, a random id of its process, which is echoed: then only a new id empties the
    server, and calls without one are taken for somebody who looks. After the model server has died, STARTING
    is answered at least once, however fast it came back, and then READY with nothing loaded.
    """

    def __init__(self, adapter: ServerAdapter, settings: Settings, models: Models) -> None:
        self._adapter = adapter
        self._settings = settings
        self._models = models
        self._session: str | None = None
        self._told_epoch: int | None = None
        self._emptying: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends what runs behind the calls."""
        if self._emptying:
            self._emptying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._emptying

    async def loadModel(self, request: LoadModelRequest, context: Any) -> LoadModelResponse:  # noqa: N802
        """Pulls and loads a model."""
        size = await answered(self._models.load(_load_request(request)), context)
        return LoadModelResponse(sizeInBytes=size, maxConcurrency=self._settings.per_model_concurrency)

    async def unloadModel(self, request: UnloadModelRequest, context: Any) -> UnloadModelResponse:  # noqa: N802
        """Unloads a model and removes its files."""
        # Once begun it is finished, also when the caller has left.
        await answered(asyncio.shield(self._models.unload(request.modelId)), context)
        return UnloadModelResponse()

    async def predictModelSize(  # noqa: N802
        self, request: PredictModelSizeRequest, context: Any
    ) -> PredictModelSizeResponse:
        """Estimates a model's size from the sizes of its objects in the storage."""
        size = await answered(self._models.predict_size(_load_request(request)), context)
        return PredictModelSizeResponse(sizeInBytes=size)

    async def modelSize(self, request: ModelSizeRequest, context: Any) -> ModelSizeResponse:  # noqa: N802
        """Tells the size of a loaded model."""
        size = await answered(self._models.size(request.modelId), context)
        return ModelSizeResponse(sizeInBytes=size)

    async def runtimeStatus(  # noqa: N802
        self,
        request: RuntimeStatusRequest,  # noqa: ARG002 - it has no fields
        context: Any,
    ) -> RuntimeStatusResponse:
        """Tells whether models can be loaded, and the limits of the runtime."""
        await self._admit(context)
        state = await self._state()
        if state is not State.READY:
            return RuntimeStatusResponse(status=RuntimeStatusResponse.Status.Value(state.value))
        settings = self._settings
        response = RuntimeStatusResponse(
            status=RuntimeStatusResponse.READY,
            capacityInBytes=settings.capacity,
            maxLoadingConcurrency=settings.loading_concurrency,
            modelLoadingTimeoutMs=settings.load_timeout_ms,
            defaultModelSizeInBytes=settings.default_model_size,
            runtimeVersion=self._models.server.version or settings.server_version,
            limitModelConcurrency=settings.per_model_concurrency > 0,
        )
        for method, path in self._adapter.methods.items():
            response.methodInfos[method].idInjectionPath.extend(path)
        return response

    async def _admit(self, context: Any) -> None:
        """Notices a mesh that begins anew, and empties the server for it."""
        session = dict(context.invocation_metadata() or ()).get(SESSION_HEADER)
        if session:
            await context.send_initial_metadata(((SESSION_HEADER, session),))
            known = session == self._session
            self._session = session
        else:
            known = self._session is not None
        under_way = self._emptying is not None and not self._emptying.done()
        if not known and not under_way and not self._models.pristine:
            log.info("emptying the server for a mesh that begins anew", session=session)
            self._told_epoch = None
            self._emptying = asyncio.create_task(self._models.empty())

    async def _state(self) -> State:
        server = self._models.server
        with contextlib.suppress(AdapterError, TimeoutError):
            async with asyncio.timeout(_STATUS_WAIT_S):
                if self._emptying:
                    await asyncio.shield(self._emptying)
                if server.state is State.STARTING:
                    await server.ready(_STATUS_WAIT_S)
        if self._emptying and not self._emptying.done():
            return State.STARTING
        if server.state is State.READY and self._told_epoch not in {None, server.epoch}:
            # The server died and came back between two calls; the mesh must hear of it.
            self._told_epoch = None
            return State.STARTING
        if server.state is State.READY:
            self._told_epoch = server.epoch
        elif self._told_epoch is not None:
            self._told_epoch = None
        return server.state


def _load_request(request: LoadModelRequest | PredictModelSizeRequest) -> LoadRequest:
    return LoadRequest(
        id=request.modelId, label=request.modelType, path=request.modelPath, key=request.modelKey
    )
