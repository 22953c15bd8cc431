"""ConfigMap `tc-config`: what the mesh instances of a namespace know about placement and inference RPCs.

It is mounted into every `mm` container, which watches the file: a runtime that comes or goes reaches the
running pods this way.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from controller import marks
from controller.labels import NO_RUNTIME, format_labels, protocol_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.v1alpha1 import ServingRuntimeSpec

JSON = dict[str, Any]

NAME = "tc-config"

_DATAPLANE_API = {
    "rpcConfigs": {
        "inference.GRPCInferenceService/ModelInfer": {"idExtractionPath": [1], "vModelId": True},
        "inference.GRPCInferenceService/ModelMetadata": {"idExtractionPath": [1], "vModelId": True},
        "inference.GRPCInferenceService/ModelStreamInfer": {"idExtractionPath": [1], "vModelId": True},
        "tensorflow.serving.PredictionService/Predict": {"idExtractionPath": [1, 1], "vModelId": True},
        "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions": {
            "idExtractionPath": [1],
            "vModelId": True,
        },
    },
    "allowOtherRpcs": True,
}


def _compact(value: JSON) -> str:
    return json.dumps(value, separators=(",", ":"))


def type_constraints(runtimes: Mapping[str, ServingRuntimeSpec], *, rest: bool) -> str:
    """Returns the JSON that maps each model type to the labels a pod must have to load it.

    Args:
        runtimes: enabled multi-model runtimes by name.
        rest: whether gRPC V2 is offered as REST V2 as well.
    """
    required: dict[str, list[str]] = {"_default": [NO_RUNTIME]}
    for name, spec in runtimes.items():
        required[f"rt:{name}"] = [f"rt:{name}"]
        for label in format_labels(spec):
            required[label] = [label]
            for protocol in protocol_labels(spec, rest=rest):
                required[f"{label}|{protocol}"] = [label, protocol]
    return _compact({type_: {"required": labels} for type_, labels in sorted(required.items())})


def config_map(
    namespace: str, runtimes: Mapping[str, ServingRuntimeSpec], controller: str, *, rest: bool
) -> JSON:
    """Builds `tc-config`; `controller` is the namespace of the controller that makes it.

    The entries are binary, as they have always been.
    """
    files = {
        "dataplane_api_config": _compact(_DATAPLANE_API),
        "type_constraints": type_constraints(runtimes, rest=rest),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace, "labels": marks.labels(controller)},
        "binaryData": {name: base64.b64encode(text.encode()).decode() for name, text in files.items()},
    }
