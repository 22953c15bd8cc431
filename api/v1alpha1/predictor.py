"""Predictor: a model to serve, in the form that predates InferenceService. Fully supported."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from api.conditions import Condition
from api.core.pod import PersistentVolumeClaimVolumeSource
from api.meta import JSON, KubeObject, Model
from api.resource import Resource
from api.rules import Rule
from api.states import FailureReason, ModelState, TransitionStatus
from api.v1alpha1 import rules

PREDICTOR = Resource("serving.kserve.io", "v1alpha1", "Predictor", "predictors")


class ModelType(Model):
    """What kind of model it is."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """Format, such as sklearn."""
    version: str | None = None
    """Version of the format."""


class S3Storage(Model):
    """The older way to name an S3 store."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    secret_key: str
    """Deprecated: use storage.key."""
    bucket: str | None = None
    """Deprecated: use the bucket of storage.parameters."""


class Storage(Model):
    """Where the model's files are. An absent field and an empty one are different models."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    path: str | None = None
    """Path of the model in its store."""
    schema_path: str | None = None
    """Path of the model's schema file in its store."""
    parameters: dict[str, str] | None = None
    """Parameters of the store, over those of its key."""
    key: str | None = None
    """Entry of the storage-config secret."""
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    """Not supported; name a claim in parameters."""
    s3: S3Storage | None = None
    """Deprecated: use key and parameters."""


class RuntimeReference(Model):
    """A runtime by name."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """Runtime; empty means any that fits."""


class PredictorSpec(Model):
    """The model to serve. An absent field and an empty one are different models."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    RULES: ClassVar[tuple[Rule, ...]] = rules.PREDICTOR

    model_type: ModelType
    """What kind of model it is."""
    path: str | None = None
    """Deprecated: use storage.path."""
    schema_path: str | None = None
    """Deprecated: use storage.schemaPath."""
    storage: Storage | None = None
    """Where the model's files are."""
    gpu: Literal["required", "preferred"] | None = None
    """Not used yet."""
    runtime: RuntimeReference | None = None
    """The runtime that must serve the model."""
    protocol_version: str | None = None
    """Inference protocol that the runtime must speak."""
    service_account_name: str | None = None
    """Not used."""


class FailureInfo(Model):
    """The last thing that went wrong with the model."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reason: FailureReason | None = None
    """Kind of failure."""
    message: str | None = None
    """What happened."""
    location: str | None = None
    """Pod where it happened."""
    model_id: str | None = None
    """Concrete model it happened to."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When it happened."""


_INITIAL_STATUS: JSON = {
    "activeModelState": "Pending",
    "available": False,
    "failedCopies": 0,
    "targetModelState": "",
    "totalCopies": 0,
    "transitionStatus": "UpToDate",
}


class PredictorStatus(Model):
    """The model as it is served."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"required": [*_INITIAL_STATUS]}
    )

    ALWAYS: ClassVar[frozenset[str]] = frozenset(
        {
            "available",
            "transition_status",
            "active_model_state",
            "target_model_state",
            "grpc_endpoint",
            "http_endpoint",
            "failed_copies",
            "total_copies",
        }
    )

    available: bool = False
    """Whether requests can be served."""
    transition_status: TransitionStatus = "UpToDate"
    """How far the declared model has replaced the served one."""
    active_model_state: ModelState = "Pending"
    """State of the model that requests go to."""
    target_model_state: ModelState = ""
    """State of the model that shall take over; empty when there is none."""
    last_failure_info: FailureInfo | None = None
    """The last thing that went wrong."""
    grpc_endpoint: str = ""
    """Where to send gRPC requests."""
    http_endpoint: str = ""
    """Where to send HTTP requests."""
    failed_copies: int = 0
    """Copies that failed to load."""
    total_copies: int = 0
    """Copies in any state."""
    conditions: list[Condition] = Field(default_factory=list)
    """Ready: whether requests can be served, with a reason and what to do."""
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Generation of the spec that this status is about."""


class Predictor(KubeObject):
    """A model to serve."""

    RESOURCE: ClassVar[Resource] = PREDICTOR

    spec: PredictorSpec
    status: PredictorStatus = Field(
        default_factory=PredictorStatus, json_schema_extra={"default": _INITIAL_STATUS}
    )
