"""The V2 protocol by gRPC, without the repository extension, which the server has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from api.proto import kfs_inference_v2_pb2 as v2
from api.proto.kfs_inference_v2_pb2_grpc import GRPCInferenceServiceServicer
from ovms_stand_in.datatypes import BY_V2
from ovms_stand_in.errors import RequestError, invalid

if TYPE_CHECKING:
    from ovms_stand_in.models import Models, Tensor


class Inference(GRPCInferenceServiceServicer):
    """Answers about and by the models."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802, D102
        return v2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802, D102
        return v2.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802, D102
        return v2.ServerMetadataResponse(
            name="OpenVINO Model Server (stand-in)", version=openvino.get_version()
        )

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        try:
            self._models.find(request.name, _number(request.version))
        except RequestError as error:
            await context.abort(error.code, str(error))
        return v2.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        try:
            version = self._models.find(request.name, _number(request.version))
        except RequestError as error:
            await context.abort(error.code, str(error))
        answer = v2.ModelMetadataResponse(
            name=request.name, versions=[str(version.number)], platform="OpenVINO"
        )
        for tensors, listed in ((version.inputs, answer.inputs), (version.outputs, answer.outputs)):
            for name, tensor in tensors.items():
                listed.add(name=name, datatype=tensor.datatype.v2, shape=tensor.shape)
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers with raw contents."""
        try:
            wanted = [output.name for output in request.outputs]
            number = _number(request.model_version)
            self._models.find(request.model_name, number)  # before the inputs are looked at
            version, outputs = await self._models.infer(request.model_name, number, _inputs(request), wanted)
        except RequestError as error:
            await context.abort(error.code, str(error))
        answer = v2.ModelInferResponse(
            model_name=request.model_name, model_version=str(version.number), id=request.id
        )
        for name, value in outputs.items():
            tensor: Tensor = version.outputs[name]
            answer.outputs.add(name=name, datatype=tensor.datatype.v2, shape=value.shape)
            answer.raw_output_contents.append(value.astype(tensor.datatype.numpy, copy=False).tobytes())
        return answer


def _number(version: str) -> int | None:
    if version and not version.isdecimal():
        raise invalid("Requested version is no number")
    return int(version) if version else None


def _inputs(request: Any) -> dict[str, np.ndarray]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid("Invalid number of raw inputs")
    inputs = {}
    for index, tensor in enumerate(request.inputs):
        datatype = BY_V2.get(tensor.datatype)
        if not datatype or (not raw and not datatype.v2_field):
            raise invalid(f"Invalid input precision - {tensor.datatype} of {tensor.name} is not supported")
        try:
            flat = (
                np.frombuffer(raw[index], datatype.numpy)
                if raw
                else np.array(getattr(tensor.contents, datatype.v2_field), datatype.numpy)
            )
            inputs[tensor.name] = flat.reshape(tuple(tensor.shape))
        except (ValueError, OverflowError) as error:
            raise invalid(f"Invalid content size of tensor proto - {tensor.name}: {error}") from error
    return inputs
