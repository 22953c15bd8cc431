"""`serving.kserve.io/v1alpha1`: runtimes and the older way to declare a model."""

from api.v1alpha1.predictor import (
    PREDICTOR,
    FailureInfo,
    ModelType,
    Predictor,
    PredictorSpec,
    PredictorStatus,
    RuntimeReference,
    S3Storage,
    Storage,
)
from api.v1alpha1.rules import CLUSTER_SERVING_RUNTIME, SERVING_RUNTIME
from api.v1alpha1.servingruntime import (
    BuiltInAdapter,
    ClusterServingRuntime,
    PodCounts,
    RuntimeMemory,
    ServingRuntime,
    ServingRuntimeSpec,
    ServingRuntimeStatus,
    StorageHelper,
    SupportedModelFormat,
)

__all__ = [
    "CLUSTER_SERVING_RUNTIME",
    "PREDICTOR",
    "SERVING_RUNTIME",
    "BuiltInAdapter",
    "ClusterServingRuntime",
    "FailureInfo",
    "ModelType",
    "PodCounts",
    "Predictor",
    "PredictorSpec",
    "PredictorStatus",
    "RuntimeMemory",
    "RuntimeReference",
    "S3Storage",
    "ServingRuntime",
    "ServingRuntimeSpec",
    "ServingRuntimeStatus",
    "Storage",
    "StorageHelper",
    "SupportedModelFormat",
]
