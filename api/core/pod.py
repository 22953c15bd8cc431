"""Pods and what they are made of (`v1`), typed where we read or write them."""

from typing import ClassVar

from pydantic import Field

from api.meta import JSON, IntOrString, KubeObject, Model, ObjectMeta, Quantity
from api.resource import Resource

POD = Resource("", "v1", "Pod", "pods")

_CORE = "io.k8s.api.core.v1."


class LocalObjectReference(Model):
    """An object of the same namespace, by name."""

    OPENAPI = _CORE + "LocalObjectReference"

    name: str = ""


class KeySelector(Model):
    """One key of a ConfigMap or a Secret of the same namespace."""

    key: str
    name: str = ""
    optional: bool | None = None


class ObjectFieldSelector(Model):
    """A field of the pod itself, such as `status.podIP`."""

    field_path: str
    api_version: str | None = None


class ResourceFieldSelector(Model):
    """A request or limit of one of the pod's containers, such as `requests.memory`, divided by `divisor`."""

    resource: str
    container_name: str | None = None
    divisor: Quantity | None = None


class EnvVarSource(Model):
    """Where a variable's value comes from."""

    config_map_key_ref: KeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(Model):
    """One environment variable; `$(NAME)` in `value` expands earlier variables."""

    OPENAPI = _CORE + "EnvVar"

    name: str
    value: str | None = None
    value_from: EnvVarSource | None = None


class ContainerPort(Model):
    """A port that a container listens on."""

    container_port: int
    name: str | None = None
    protocol: str | None = None
    host_ip: str | None = None
    host_port: int | None = None


class VolumeMount(Model):
    """Where a volume of the pod appears in a container."""

    name: str
    mount_path: str
    read_only: bool | None = None
    sub_path: str | None = None
    mount_propagation: str | None = None


class ResourceRequirements(Model):
    """Compute that a container asks for (`requests`) and may use at most (`limits`)."""

    OPENAPI = _CORE + "ResourceRequirements"

    limits: dict[str, Quantity] = Field(default_factory=dict)
    requests: dict[str, Quantity] = Field(default_factory=dict)


class ExecAction(Model):
    """A command run inside the container."""

    command: list[str] = Field(default_factory=list)


class HTTPGetAction(Model):
    """An HTTP GET against the pod."""

    port: IntOrString | None = None
    path: str | None = None
    host: str | None = None
    scheme: str | None = None
    http_headers: list[JSON] | None = None


class TCPSocketAction(Model):
    """A TCP connection to the pod."""

    port: IntOrString | None = None
    host: str | None = None


class GRPCAction(Model):
    """A call of the gRPC health service."""

    port: int
    service: str | None = None


class Probe(Model):
    """How the kubelet checks a container. Times are seconds."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int | None = None
    period_seconds: int | None = None
    timeout_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None
    termination_grace_period_seconds: int | None = None


class LifecycleHandler(Model):
    """What runs at a point of a container's life."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: JSON | None = None


class Lifecycle(Model):
    """Hooks after a container's start and before its end."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class Container(Model):
    """One container of a pod."""

    OPENAPI = _CORE + "Container"

    name: str = ""
    image: str = ""
    command: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)
    working_dir: str | None = None
    ports: list[ContainerPort] = Field(default_factory=list)
    env: list[EnvVar] = Field(default_factory=list)
    env_from: list[JSON] = Field(default_factory=list)
    resources: ResourceRequirements = Field(default_factory=ResourceRequirements)
    volume_mounts: list[VolumeMount] = Field(default_factory=list)
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    security_context: JSON | None = None
    image_pull_policy: str | None = None


class KeyToPath(Model):
    """One key projected to a file."""

    key: str
    path: str
    mode: int | None = None


class SecretVolumeSource(Model):
    """A Secret as files."""

    secret_name: str = ""
    items: list[KeyToPath] = Field(default_factory=list)
    default_mode: int | None = None
    optional: bool | None = None


class ConfigMapVolumeSource(Model):
    """A ConfigMap as files."""

    name: str = ""
    items: list[KeyToPath] = Field(default_factory=list)
    default_mode: int | None = None
    optional: bool | None = None


class EmptyDirVolumeSource(Model):
    """An empty folder that lives as long as the pod."""

    medium: str | None = None
    size_limit: Quantity | None = None


class PersistentVolumeClaimVolumeSource(Model):
    """A claim of the same namespace. `readOnly` is written only where given."""

    OPENAPI = _CORE + "PersistentVolumeClaimVolumeSource"

    claim_name: str
    read_only: bool | None = None


class HostPathVolumeSource(Model):
    """A path of the node."""

    path: str
    type: str | None = None


class Volume(Model):
    """A named volume of a pod; other kinds of source are kept as they are."""

    OPENAPI = _CORE + "Volume"

    name: str
    secret: SecretVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None


class NodeSelectorRequirement(Model):
    """A condition on a node's label."""

    key: str
    operator: str
    values: list[str] = Field(default_factory=list)


class NodeSelectorTerm(Model):
    """Conditions that must all hold."""

    match_expressions: list[NodeSelectorRequirement] = Field(default_factory=list)
    match_fields: list[NodeSelectorRequirement] = Field(default_factory=list)


class NodeSelector(Model):
    """Terms of which one must hold."""

    node_selector_terms: list[NodeSelectorTerm] = Field(default_factory=list)


class NodeAffinity(Model):
    """Which nodes a pod needs or prefers."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[JSON] | None = None


class Affinity(Model):
    """Scheduling constraints; those between pods are kept as they are."""

    OPENAPI = _CORE + "Affinity"

    node_affinity: NodeAffinity | None = None
    pod_affinity: JSON | None = None
    pod_anti_affinity: JSON | None = None


class Toleration(Model):
    """A node taint that a pod tolerates."""

    OPENAPI = _CORE + "Toleration"

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None
    toleration_seconds: int | None = None


class PodSpec(Model):
    """What a pod runs."""

    OPENAPI = _CORE + "PodSpec"

    containers: list[Container] = Field(default_factory=list)
    init_containers: list[Container] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    node_selector: dict[str, str] = Field(default_factory=dict)
    affinity: Affinity | None = None
    tolerations: list[Toleration] = Field(default_factory=list)
    image_pull_secrets: list[LocalObjectReference] = Field(default_factory=list)
    service_account_name: str | None = None
    node_name: str | None = None
    restart_policy: str | None = None
    security_context: JSON | None = None
    termination_grace_period_seconds: int | None = None


class PodTemplateSpec(Model):
    """The pod that a Deployment makes copies of."""

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PodSpec = Field(default_factory=PodSpec)


class ContainerStatus(Model):
    """What the kubelet reports about one container; `state` has one of `waiting`, `running`, `terminated`."""

    name: str
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = ""
    container_id: str | None = None
    state: JSON = Field(default_factory=dict)
    last_state: JSON = Field(default_factory=dict)


class PodCondition(Model):
    """One aspect of a pod's state, such as `Ready`."""

    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_probe_time: str | None = None
    last_transition_time: str | None = None


class PodStatus(Model):
    """What the kubelet reports about a pod."""

    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    host_ip: str | None = None
    pod_ip: str | None = None
    start_time: str | None = None
    qos_class: str | None = None
    conditions: list[PodCondition] = Field(default_factory=list)
    container_statuses: list[ContainerStatus] = Field(default_factory=list)


class Pod(KubeObject):
    """Containers that run together on one node."""

    RESOURCE: ClassVar[Resource] = POD

    spec: PodSpec = Field(default_factory=PodSpec)
    status: PodStatus = Field(default_factory=PodStatus)
