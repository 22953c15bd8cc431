"""TensorFlow Serving's Predict by gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from api.proto import tensorflow_serving_pb2 as tfs
from api.proto.tensorflow_serving_pb2_grpc import PredictionServiceServicer
from ovms_stand_in.datatypes import BY_TFS
from ovms_stand_in.errors import RequestError, invalid

if TYPE_CHECKING:
    from ovms_stand_in.models import Models


class Prediction(PredictionServiceServicer):
    """Answers by the models."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answers with `tensor_content`."""
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        try:
            self._models.find(spec.name, number)  # before the inputs are looked at
            inputs = {name: _array(name, tensor) for name, tensor in request.inputs.items()}
            wanted = list(request.output_filter)
            version, outputs = await self._models.infer(spec.name, number, inputs, wanted)
        except RequestError as error:
            await context.abort(error.code, str(error))
        answer = tfs.PredictResponse()
        answer.model_spec.name = spec.name
        answer.model_spec.version.value = version.number
        for name, value in outputs.items():
            datatype = version.outputs[name].datatype
            tensor = answer.outputs[name]
            tensor.dtype = datatype.tfs
            for size in value.shape:
                tensor.tensor_shape.dim.add(size=size)
            tensor.tensor_content = value.astype(datatype.numpy, copy=False).tobytes()
        return answer


def _array(name: str, tensor: Any) -> np.ndarray:
    datatype = BY_TFS.get(tensor.dtype)
    if not datatype or (not tensor.tensor_content and not datatype.tfs_field):
        raise invalid(f"Invalid input precision - that of {name} is not supported")
    try:
        flat = (
            np.frombuffer(tensor.tensor_content, datatype.numpy)
            if tensor.tensor_content
            else np.array(getattr(tensor, datatype.tfs_field), datatype.numpy)
        )
        return flat.reshape([dim.size for dim in tensor.tensor_shape.dim])
    except (ValueError, OverflowError) as error:
        raise invalid(f"Invalid content size of tensor proto - {name}: {error}") from error
