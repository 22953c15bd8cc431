"""ServingRuntime and ClusterServingRuntime: a model server, how to run it and what it can load."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from api.conditions import Condition
from api.core.pod import Affinity, Container, EnvVar, LocalObjectReference, Toleration, Volume
from api.meta import KubeObject, Model
from api.resource import Resource
from api.rules import Rule
from api.v1alpha1 import rules
from api.v1alpha1.rules import CLUSTER_SERVING_RUNTIME, SERVING_RUNTIME


class SupportedModelFormat(Model):
    """A kind of model that the runtime can load."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """Format, such as sklearn or onnx."""
    version: str | None = None
    """Version of the format, compared as an opaque string."""
    auto_select: bool = False
    """Whether models that name no runtime may be given to this one."""
    priority: Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})] | None = None
    """Preference among runtimes; ModelMesh does not use it."""


class StorageHelper(Model):
    """The container that fetches models for runtimes without a built-in adapter."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    disabled: bool = False
    """True: the runtime fetches models by itself."""


class BuiltInAdapter(Model):
    """The adapter that drives a known model server."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    server_type: str = ""
    """Kind of server; a container must have this name."""
    runtime_management_port: int = 0
    """Port of the server's management API."""
    mem_buffer_bytes: int = 0
    """Bytes of the container's memory request that models may not use."""
    model_loading_timeout_millis: int = 0
    """Milliseconds after which a load counts as failed."""
    env: list[EnvVar] = Field(default_factory=list)
    """Environment of the adapter, over its defaults."""


class ServingRuntimeSpec(Model):
    """A model server's pod and its capabilities."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    RULES: ClassVar[tuple[Rule, ...]] = rules.RUNTIME
    MAX_ITEMS: ClassVar[Mapping[str, int]] = rules.MAX_ITEMS
    MAX_LENGTH: ClassVar[Mapping[str, int]] = rules.MAX_LENGTH

    containers: Annotated[
        list[Container],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ]
    """Containers of the pod, the model server among them."""
    volumes: Annotated[
        list[Volume],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = Field(default_factory=list)
    """Volumes of the pod."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must have."""
    affinity: Affinity | None = None
    """Scheduling constraints of the pod."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Taints that the pod tolerates."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels added to the pod."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations added to the pod."""
    image_pull_secrets: list[LocalObjectReference] = Field(default_factory=list)
    """Secrets with registry credentials."""
    multi_model: bool = False
    """Must be true for ModelMesh to act on the runtime."""
    disabled: bool = False
    """True: no pods, no models."""
    replicas: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Number of pods; the configured podsPerRuntime if absent."""
    supported_model_formats: list[SupportedModelFormat] = Field(default_factory=list)
    """Kinds of model that the server can load."""
    protocol_versions: list[str] = Field(default_factory=list)
    """Inference protocols that the server speaks: v1, v2, grpc-v1, grpc-v2."""
    grpc_endpoint: str | None = None
    """Management endpoint, port:NUMBER or unix:PATH."""
    grpc_data_endpoint: str | None = None
    """Inference endpoint, port:NUMBER or unix:PATH."""
    http_data_endpoint: str | None = None
    """HTTP inference endpoint; ModelMesh does not use it."""
    storage_helper: StorageHelper | None = None
    """The model-fetching container."""
    built_in_adapter: BuiltInAdapter | None = None
    """The adapter for a known model server."""


class PodCounts(Model):
    """Pods of a runtime."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    desired: int = 0
    """Pods that there should be."""
    ready: int = 0
    """Pods that serve."""


class RuntimeMemory(Model):
    """Memory for models in all pods of a runtime together, as Kubernetes quantities."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    capacity: str = ""
    """What models may use."""
    used: str = ""
    """What they use."""


class ServingRuntimeStatus(Model):
    """The runtime as it is; for a cluster's runtime, in all served namespaces together."""

    model_config = ConfigDict(
        use_attribute_docstrings=True, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )

    conditions: list[Condition] = Field(default_factory=list)
    """Ready: whether models can be served. Absent while the runtime is disabled."""
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Generation of the spec that this status is about."""
    pods: PodCounts | None = None
    """Pods of the runtime."""
    models: int | None = None
    """Copies of models in the pods, loaded or being loaded; absent until the registry has been read."""
    memory: RuntimeMemory | None = None
    """Memory for models; absent until the registry has been read."""


class ServingRuntime(KubeObject):
    """A model server that the models of one namespace can use."""

    RESOURCE: ClassVar[Resource] = SERVING_RUNTIME

    spec: ServingRuntimeSpec
    status: ServingRuntimeStatus = Field(default_factory=ServingRuntimeStatus)


class ClusterServingRuntime(KubeObject):
    """A model server that the models of every enabled namespace can use."""

    RESOURCE: ClassVar[Resource] = CLUSTER_SERVING_RUNTIME

    spec: ServingRuntimeSpec
    status: ServingRuntimeStatus = Field(default_factory=ServingRuntimeStatus)
