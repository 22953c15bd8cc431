"""The puller in front of a custom server: the SPI on both sides, with the models pulled in between.

The server gets paths on disk in place of paths in a storage, and never sees a storage key. One thing happens
to a model at a time; a load that is cancelled stops at once, and nothing of it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import structlog
from grpc import aio

from adapters.errors import AdapterError, ServerError
from adapters.puller.model_key import ModelKey
from adapters.sdk.answers import answered
from adapters.sdk.loads import Loads
from adapters.sdk.turns import Turns
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
from api.proto.model_runtime_pb2_grpc import ModelRuntimeServicer, ModelRuntimeStub

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from adapters.puller.pull import Puller

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Questions that a healthy server answers from memory; and what unloading may take after a load that failed.
_QUICK_S, _CLEAN_UP_S = 10.0, 60.0


class PullerProxy(ModelRuntimeServicer):
    """Answers the mesh by asking the server behind `channel`, whose codes and words are kept."""

    def __init__(self, puller: Puller, channel: aio.Channel) -> None:
        self._puller = puller
        self._server = ModelRuntimeStub(channel)
        self._turns = Turns()
        self._loads = Loads[LoadModelResponse]()

    async def close(self) -> None:
        """Ends the loads that are under way and waits until each has cleaned up."""
        await self._loads.end_all()

    async def loadModel(self, request: LoadModelRequest, context: Any) -> LoadModelResponse:  # noqa: N802
        """Pulls a model and has the server load it."""
        return await answered(self._loads.run(request.modelId, self._load(request)), context)

    async def unloadModel(self, request: UnloadModelRequest, context: Any) -> UnloadModelResponse:  # noqa: N802
        """Has the server unload a model, then removes its files; also when the caller has left."""
        await answered(asyncio.shield(self._unload(request.modelId)), context)
        return UnloadModelResponse()

    async def predictModelSize(  # noqa: N802
        self, request: PredictModelSizeRequest, context: Any
    ) -> PredictModelSizeResponse:
        """Asks the server, which gets the size that the files will have on disk."""
        return await answered(self._predict(request), context)

    async def modelSize(self, request: ModelSizeRequest, context: Any) -> ModelSizeResponse:  # noqa: N802
        """Asks the server."""
        return await answered(_ask(self._server.modelSize(request)), context)

    async def runtimeStatus(  # noqa: N802
        self, request: RuntimeStatusRequest, context: Any
    ) -> RuntimeStatusResponse:
        """Asks the server; before READY is passed on, all models are removed, as the mesh expects.

        A server that cannot be reached is STARTING.
        """
        return await answered(self._status(request), context)

    async def _load(self, request: LoadModelRequest) -> LoadModelResponse:
        async with self._turns.turn(request.modelId):
            try:
                key = ModelKey.parse(request.modelKey)
                pulled = await self._puller.pull(request.modelId, request.modelPath, key)
                local = LoadModelRequest(
                    modelId=request.modelId,
                    modelType=request.modelType,
                    modelPath=str(pulled.path),
                    modelKey=pulled.key.to_json(),
                )
                response: LoadModelResponse = await _ask(self._server.loadModel(local))
            except BaseException as error:
                log.warning("load failed", model=request.modelId, reason=str(error) or type(error).__name__)
                with contextlib.suppress(AdapterError, OSError):
                    await self._discard(request.modelId)
                raise
            log.info("loaded model", model=request.modelId, bytes=response.sizeInBytes)
            return response

    async def _unload(self, model_id: str) -> None:
        self._loads.end(model_id)
        async with self._turns.turn(model_id):
            await self._discard(model_id)
        log.info("unloaded model", model=model_id)

    async def _discard(self, model_id: str) -> None:
        """Files are removed only when the server holds the model no more."""
        call = self._server.unloadModel(UnloadModelRequest(modelId=model_id), timeout=_CLEAN_UP_S)
        try:
            await _ask(call)
        except ServerError as error:
            if error.status is not grpc.StatusCode.NOT_FOUND:
                raise
        await asyncio.to_thread(self._puller.remove, model_id)

    async def _predict(self, request: PredictModelSizeRequest) -> PredictModelSizeResponse:
        key = ModelKey.parse(request.modelKey)
        size = await self._puller.size(request.modelPath, key)
        local = PredictModelSizeRequest(
            modelId=request.modelId,
            modelType=request.modelType,
            modelPath=str(self._puller.path(request.modelId, request.modelPath)),
            modelKey=key.pulled(disk_size_bytes=size, schema_path="").to_json(),
        )
        response: PredictModelSizeResponse = await _ask(self._server.predictModelSize(local))
        return response

    async def _status(self, request: RuntimeStatusRequest) -> RuntimeStatusResponse:
        try:
            status: RuntimeStatusResponse = await _ask(self._server.runtimeStatus(request, timeout=_QUICK_S))
        except ServerError as error:
            if error.status not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                raise
            log.info("the server does not answer yet", reason=str(error))
            return RuntimeStatusResponse(status=RuntimeStatusResponse.STARTING)
        if status.status != RuntimeStatusResponse.READY:
            return status
        try:
            await self._purge()
        except (AdapterError, OSError) as error:
            log.exception("cannot remove old models", reason=str(error))
            return RuntimeStatusResponse(status=RuntimeStatusResponse.FAILING)
        return status

    async def _purge(self) -> None:
        """Removes what is on disk from before, but for the models whose loads somebody waits for."""
        await self._loads.cleaned_up()
        loading = self._loads.models
        for model_id in await asyncio.to_thread(self._puller.models):
            if model_id not in loading:
                await self._unload(model_id)
        await asyncio.to_thread(self._puller.purge, loading)


async def _ask(call: Awaitable[T]) -> T:
    try:
        return await call
    except aio.AioRpcError as error:
        raise ServerError(error.code(), error.details() or "the server gives no reason") from error
