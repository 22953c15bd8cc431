"""What the policy answers at the ports for clients: `mmesh.ModelMesh`, and readiness of models not loaded."""

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
from mesh.bytes import Handler
from mesh.calls import handler
from mesh.errors import InvalidRequestError
from mesh.legacy import with_old_names
from mesh.models import Models
from mesh.policy import Policy
from mesh.status import StatusReporter
from mesh.vmodels import NewModel, SetVModel, VModels

MODEL_READY = "inference.GRPCInferenceService/ModelReady"


class ManagementApi:
    """The management API. What goes wrong is raised as MeshError."""

    def __init__(self, models: Models, vmodels: VModels, status: StatusReporter) -> None:
        self._models = models
        self._vmodels = vmodels
        self._status = status

    def handlers(self) -> dict[str, Handler]:
        """The methods by their names, old names included."""
        management = {
            "registerModel": handler(RegisterModelRequest, self.register_model),
            "unregisterModel": handler(UnregisterModelRequest, self.unregister_model),
            "getModelStatus": handler(GetStatusRequest, self.get_model_status),
            "ensureLoaded": handler(EnsureLoadedRequest, self.ensure_loaded),
            "setVModel": handler(SetVModelRequest, self.set_vmodel),
            "deleteVModel": handler(DeleteVModelRequest, self.delete_vmodel),
            "getVModelStatus": handler(GetVModelStatusRequest, self.get_vmodel_status),
        }
        return with_old_names(management) | {MODEL_READY: handler(ModelReadyRequest, self.model_ready)}

    async def register_model(self, request: RegisterModelRequest) -> ModelStatusInfo:
        """Registers a model, and has it loaded where asked to."""
        model_id = _required(request.modelId)
        last_used = await self._models.register(
            model_id,
            _model(request.modelInfo),
            load_now=request.loadNow,
            last_used=request.lastUsedTime,
            policy=_policy(request),
        )
        if request.loadNow:
            await self._models.want(model_id, last_used=last_used, sync=request.sync)
        return self._status.model(model_id)

    async def unregister_model(self, request: UnregisterModelRequest) -> UnregisterModelResponse:
        """Deletes a model."""
        await self._models.unregister(request.modelId)
        return UnregisterModelResponse()

    async def get_model_status(self, request: GetStatusRequest) -> ModelStatusInfo:
        """Tells about a model, known or not."""
        await self._models.look_up(_required(request.modelId))
        return self._status.model(request.modelId)

    async def ensure_loaded(self, request: EnsureLoadedRequest) -> ModelStatusInfo:
        """Has a model loaded where it is not."""
        model_id = _required(request.modelId)
        await self._models.find(model_id)
        await self._models.want(model_id, last_used=request.lastUsedTime, sync=request.sync)
        return self._status.model(model_id)

    async def set_vmodel(self, request: SetVModelRequest) -> VModelStatusInfo:
        """Creates a vmodel or moves it."""
        model = _model(request.modelInfo, required=False) if request.HasField("modelInfo") else None
        record = await self._vmodels.set(
            SetVModel(
                vmodel_id=request.vModelId,
                target=request.targetModelId,
                model=model,
                owner=request.owner,
                expected_target=request.expectedTargetModelId,
                update_only=request.updateOnly,
                auto_delete=request.autoDeleteTargetModel,
                load_now=request.loadNow,
                force=request.force,
                sync=request.sync,
                policy=_policy(request),
            )
        )
        if record.in_transition:
            if request.sync:
                await self._vmodels.settled(request.vModelId, request.targetModelId)
        elif request.loadNow or self._models.has_copies(record.active):
            await self._models.want(record.active, last_used=0, sync=request.sync, touch=False)
        return self._status.vmodel(request.vModelId)

    async def delete_vmodel(self, request: DeleteVModelRequest) -> DeleteVModelResponse:
        """Removes a vmodel."""
        await self._vmodels.delete(request.vModelId, request.owner)
        return DeleteVModelResponse()

    async def get_vmodel_status(self, request: GetVModelStatusRequest) -> VModelStatusInfo:
        """Tells about a vmodel, known or not."""
        await self._models.look_up_vmodel(_required(request.vModelId, "vModelId"))
        return self._status.vmodel(request.vModelId, request.owner)

    async def model_ready(self, request: ModelReadyRequest) -> ModelReadyResponse:
        """`ModelReady` of the V2 protocol, for what the byte path has no loaded copy of.

        True for a model that was loaded before and went to make room: a request has it loaded again. A model
        that was never loaded is being loaded from now on, and is not ready until that has succeeded.
        """
        known = await self._vmodels.find(_required(request.name, "name"))
        model_id = known.active if known else request.name
        record = await self._models.find(model_id)
        status = self._status.model(model_id).status
        if status == ModelStatusInfo.NOT_LOADED and record.size is None:
            await self._models.want(model_id, last_used=0, sync=False)
            return ModelReadyResponse(ready=False)
        return ModelReadyResponse(ready=status in {ModelStatusInfo.LOADED, ModelStatusInfo.NOT_LOADED})


def _required(value: str, name: str = "modelId") -> str:
    if not value:
        raise InvalidRequestError(f"must provide non-empty {name}")
    return value


def _model(info: ModelInfo, *, required: bool = True) -> NewModel:
    if required and not info.type:
        raise InvalidRequestError("must provide a non-empty model type")
    return NewModel(info.type, info.path, info.key)


def _policy(request: RegisterModelRequest | SetVModelRequest) -> Policy | None:
    if not request.HasField("policy"):
        return None
    wanted = request.policy
    return Policy(wanted.minCopies, wanted.maxCopies, wanted.pinned, wanted.priority)
