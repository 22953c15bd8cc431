"""`serving.kserve.io/v1beta1`: InferenceService."""

from api.conditions import Condition
from api.v1beta1.component import Batcher, ComponentSpec, Logger
from api.v1beta1.inferenceservice import (
    ExplainerFrameworkSpec,
    ExplainerSpec,
    FrameworkSpec,
    InferenceService,
    InferenceServiceSpec,
    ModelFormat,
    ModelSpec,
    PredictorSpec,
    StorageSpec,
    TransformerSpec,
)
from api.v1beta1.rules import FRAMEWORKS, INFERENCE_SERVICE
from api.v1beta1.status import (
    Address,
    ComponentStatus,
    FailureInfo,
    InferenceServiceStatus,
    ModelCopies,
    ModelStates,
    ModelStatus,
    TrafficTarget,
)

__all__ = [
    "FRAMEWORKS",
    "INFERENCE_SERVICE",
    "Address",
    "Batcher",
    "ComponentSpec",
    "ComponentStatus",
    "Condition",
    "ExplainerFrameworkSpec",
    "ExplainerSpec",
    "FailureInfo",
    "FrameworkSpec",
    "InferenceService",
    "InferenceServiceSpec",
    "InferenceServiceStatus",
    "Logger",
    "ModelCopies",
    "ModelFormat",
    "ModelSpec",
    "ModelStates",
    "ModelStatus",
    "PredictorSpec",
    "StorageSpec",
    "TrafficTarget",
    "TransformerSpec",
]
