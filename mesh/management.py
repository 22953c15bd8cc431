"""The gRPC services of the policy: `mmesh.ModelMesh`, health, and readiness of models that are not loaded.

They are served on a private socket; the byte path forwards to it what comes in on the public port.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog
from grpc.aio import ServicerContext

from api.proto import model_mesh_pb2_grpc
from api.proto.kfs_inference_v2_pb2 import ModelReadyRequest, ModelReadyResponse
from api.proto.model_mesh_pb2 import (
    DeleteVModelRequest,
    DeleteVModelResponse,
    EnsureLoadedRequest,
    GetStatusRequest,
    GetVModelStatusRequest,
    ModelInfo,
    ModelStatusInfo,
    RegisterModelRequest,
    SetVModelRequest,
    UnregisterModelRequest,
    UnregisterModelResponse,
    VModelStatusInfo,
)
from mesh.errors import InvalidRequestError, MeshError
from mesh.models import Models
from mesh.status import StatusReporter
from mesh.vmodels import NewModel, SetVModel, VModels

RETRY_KEY = "grpc-retry-pushback-ms"

log = structlog.get_logger(__name__)
T = TypeVar("T")
Context = ServicerContext[Any, Any]


async def answer(context: Context, work: Awaitable[T]) -> T:
    """Awaits the work; turns its MeshError into a gRPC status."""
    try:
        return await work
    except MeshError as error:
        if error.retry_after_ms is not None:
            context.set_trailing_metadata(((RETRY_KEY, str(error.retry_after_ms)),))
        await context.abort(error.code, str(error))
        raise


class ModelMeshServicer(model_mesh_pb2_grpc.ModelMeshServicer):
    """The management API."""

    def __init__(self, models: Models, vmodels: VModels, status: StatusReporter) -> None:
        self._models = models
        self._vmodels = vmodels
        self._status = status

    async def registerModel(self, request: RegisterModelRequest, context: Context) -> ModelStatusInfo:  # noqa: N802
        """Registers a model, and has it loaded where asked to."""

        async def work() -> ModelStatusInfo:
            model_id = _required(request.modelId)
            model = _model(request.modelInfo)
            last_used = await self._models.register(
                model_id, model, load_now=request.loadNow, last_used=request.lastUsedTime
            )
            if request.loadNow:
                await self._models.want(model_id, last_used=last_used, sync=request.sync)
            return self._status.model(model_id)

        return await answer(context, work())

    async def unregisterModel(  # noqa: N802
        self, request: UnregisterModelRequest, context: Context
    ) -> UnregisterModelResponse:
        """Deletes a model."""
        await answer(context, self._models.unregister(request.modelId))
        return UnregisterModelResponse()

    async def getModelStatus(self, request: GetStatusRequest, context: Context) -> ModelStatusInfo:  # noqa: N802
        """Tells about a model, known or not."""

        async def work() -> ModelStatusInfo:
            await self._models.look_up(_required(request.modelId))
            return self._status.model(request.modelId)

        return await answer(context, work())

    async def ensureLoaded(self, request: EnsureLoadedRequest, context: Context) -> ModelStatusInfo:  # noqa: N802
        """Has a model loaded where it is not."""

        async def work() -> ModelStatusInfo:
            model_id = _required(request.modelId)
            await self._models.find(model_id)
            await self._models.want(model_id, last_used=request.lastUsedTime, sync=request.sync)
            return self._status.model(model_id)

        return await answer(context, work())

    async def setVModel(self, request: SetVModelRequest, context: Context) -> VModelStatusInfo:  # noqa: N802
        """Creates a vmodel or moves it."""

        async def work() -> VModelStatusInfo:
            record = await self._vmodels.set(
                SetVModel(
                    vmodel_id=request.vModelId,
                    target=request.targetModelId,
                    model=_model(request.modelInfo, required=False)
                    if request.HasField("modelInfo")
                    else None,
                    owner=request.owner,
                    expected_target=request.expectedTargetModelId,
                    update_only=request.updateOnly,
                    auto_delete=request.autoDeleteTargetModel,
                    load_now=request.loadNow,
                    force=request.force,
                    sync=request.sync,
                )
            )
            if record.in_transition:
                if request.sync:
                    await self._vmodels.settled(request.vModelId, request.targetModelId)
            elif request.loadNow or self._models.has_copies(record.active):
                await self._models.want(record.active, last_used=0, sync=request.sync, touch=False)
            return self._status.vmodel(request.vModelId)

        return await answer(context, work())

    async def deleteVModel(self, request: DeleteVModelRequest, context: Context) -> DeleteVModelResponse:  # noqa: N802
        """Removes a vmodel."""
        await answer(context, self._vmodels.delete(request.vModelId, request.owner))
        return DeleteVModelResponse()

    async def getVModelStatus(  # noqa: N802
        self, request: GetVModelStatusRequest, context: Context
    ) -> VModelStatusInfo:
        """Tells about a vmodel, known or not."""

        async def work() -> VModelStatusInfo:
            await self._models.look_up_vmodel(_required(request.vModelId, "vModelId"))
            return self._status.vmodel(request.vModelId, request.owner)

        return await answer(context, work())


class ModelReadyHandler(grpc.GenericRpcHandler):
    """`ModelReady` of the V2 protocol, for what the byte path has no loaded copy of.

    True for a model that was loaded before and went to make room: a request has it loaded again. A model that
    was never loaded is being loaded from now on, and is not ready until that has succeeded.
    """

    METHOD = "/inference.GRPCInferenceService/ModelReady"

    def __init__(self, models: Models, vmodels: VModels, status: StatusReporter) -> None:
        self._models = models
        self._vmodels = vmodels
        self._status = status

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds the method."""
        if handler_call_details.method != self.METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._model_ready,
            request_deserializer=ModelReadyRequest.FromString,
            response_serializer=ModelReadyResponse.SerializeToString,
        )

    async def _model_ready(self, request: ModelReadyRequest, context: Context) -> ModelReadyResponse:
        return ModelReadyResponse(ready=await answer(context, self._is_ready(request.name)))

    async def _is_ready(self, name: str) -> bool:
        known = await self._vmodels.find(_required(name, "name"))
        model_id = known.active if known else name
        record = await self._models.find(model_id)
        status = self._status.model(model_id).status
        if status == ModelStatusInfo.NOT_LOADED and record.size is None:
            await self._models.want(model_id, last_used=0, sync=False)
            return False
        return status in {ModelStatusInfo.LOADED, ModelStatusInfo.NOT_LOADED}


class HealthHandler(grpc.GenericRpcHandler):
    """`grpc.health.v1.Health`, whose messages are so small that they are written by hand here.

    HealthCheckResponse is one enum, field 1: SERVING 1, NOT_SERVING 2.
    """

    CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
    SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Finds the method; Watch is UNIMPLEMENTED, which clients take as "do not watch"."""
        if handler_call_details.method != self.CHECK:
            return None
        return grpc.unary_unary_rpc_method_handler(self._check)

    async def _check(self, _request: bytes, _context: Context) -> bytes:
        return self.SERVING if self._is_ready() else self.NOT_SERVING


def _required(value: str, name: str = "modelId") -> str:
    if not value:
        raise InvalidRequestError(f"must provide non-empty {name}")
    return value


def _model(info: ModelInfo, *, required: bool = True) -> NewModel:
    if required and not info.type:
        raise InvalidRequestError("must provide a non-empty model type")
    return NewModel(info.type, info.path, info.key)
