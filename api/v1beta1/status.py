"""The status of an InferenceService."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from api.conditions import Condition
from api.meta import Model
from api.states import FailureReason, ModelState, TransitionStatus
from api.v1beta1.component import INT64


class Address(Model):
    """Where something listens; KServe only."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str | None = None
    """Name of the address."""
    url: str | None = None
    """The address."""
    audience: str | None = None
    """Audience of the tokens that callers need."""
    ca_certs: str | None = None
    """Certificates that callers trust, as PEM."""


class TrafficTarget(Model):
    """A revision's share of traffic; KServe only."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    configuration_name: str | None = None
    """Configuration whose newest revision is meant."""
    latest_revision: bool | None = None
    """Whether the newest revision is meant."""
    percent: Annotated[int, INT64] | None = None
    """Share of traffic."""
    revision_name: str | None = None
    """The revision."""
    tag: str | None = None
    """Name in the revision's own address."""
    url: str | None = None
    """The revision's own address."""


class ComponentStatus(Model):
    """One component's addresses and revisions; ModelMesh sets the three URLs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    url: str | None = None
    """Main address."""
    grpc_url: str | None = None
    """Where to send gRPC requests."""
    rest_url: str | None = None
    """Where to send REST requests."""
    address: Address | None = None
    """Address inside the cluster; KServe only."""
    latest_created_revision: str | None = None
    """Newest revision; KServe only."""
    latest_ready_revision: str | None = None
    """Newest revision that is ready; KServe only."""
    latest_rolledout_revision: str | None = None
    """Newest revision that had all traffic; KServe only."""
    previous_rolledout_revision: str | None = None
    """The one before; KServe only."""
    traffic: list[TrafficTarget] = Field(default_factory=list)
    """Traffic by revision; KServe only."""


class FailureInfo(Model):
    """The last thing that went wrong with the model."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reason: Literal[FailureReason, "RuntimeDisabled"] | None = None
    """Kind of failure."""
    message: str | None = None
    """What happened."""
    location: str | None = None
    """Pod where it happened."""
    model_revision_name: str | None = None
    """Concrete model it happened to."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When it happened."""
    exit_code: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """Exit code of the container; KServe only."""


class ModelStates(Model):
    """States of the model that is served and of the one that shall replace it."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"required": ["activeModelState"]}
    )

    ALWAYS: ClassVar[frozenset[str]] = frozenset({"active_model_state"})

    active_model_state: Annotated[ModelState, Field(json_schema_extra={"default": "Pending"})] = "Pending"
    """State of the model that requests go to."""
    target_model_state: Annotated[ModelState, Field(json_schema_extra={"default": ""})] = ""
    """State of the model that shall take over; empty when there is none."""


class ModelCopies(Model):
    """How many copies of the model there are."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={"required": ["failedCopies"]},
    )

    ALWAYS: ClassVar[frozenset[str]] = frozenset({"failed_copies"})

    failed_copies: Annotated[int, Field(json_schema_extra={"default": 0})] = 0
    """Copies that failed to load."""
    total_copies: int = 0
    """Copies in any state."""


class ModelStatus(Model):
    """The model as it is served."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"required": ["transitionStatus"]}
    )

    ALWAYS: ClassVar[frozenset[str]] = frozenset({"transition_status"})

    transition_status: Annotated[
        Literal["", TransitionStatus], Field(json_schema_extra={"default": "UpToDate"})
    ] = "UpToDate"
    """How far the declared model has replaced the served one."""
    states: ModelStates | None = None
    """States of the served and the declared model."""
    copies: ModelCopies | None = None
    """How many copies there are."""
    last_failure_info: FailureInfo | None = None
    """The last thing that went wrong."""


class InferenceServiceStatus(Model):
    """The service as it is."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )

    url: str | None = None
    """Main address, while the service is available."""
    address: Address | None = None
    """Address inside the cluster; KServe only."""
    components: dict[str, ComponentStatus] = Field(default_factory=dict)
    """Addresses by component; ModelMesh has the predictor only."""
    conditions: list[Condition] = Field(default_factory=list)
    """Aspects of the state, sorted by type."""
    model_status: ModelStatus | None = None
    """The model as it is served."""
    observed_generation: Annotated[int, INT64] | None = None
    """Generation of the spec that this status is about."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Notes of other controllers."""
