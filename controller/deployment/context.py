"""What every part of a runtime's pod is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller import endpoint
from controller.claims import volume_name
from controller.errors import InvalidRuntimeError

if TYPE_CHECKING:
    from api.v1alpha1 import BuiltInAdapter, ClusterServingRuntime, ServingRuntime, ServingRuntimeSpec
    from controller.config import Configuration
    from controller.endpoint import Endpoint

JSON = dict[str, Any]

PULLER_PORT = 8086
PRESTOP_PORT = 8090
ADAPTER_HEALTH_PORT = 11881
"""Of the range that no user's container may declare."""
DROP_ALL: JSON = {"capabilities": {"drop": ["ALL"]}}
"""Of a user's container that says nothing of its own: more could keep it from running."""
RESTRICTED: JSON = DROP_ALL | {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Of our own containers: the Pod Security Standard *restricted*."""

MODELS = "models-dir"
SOCKET = "domain-socket"
STORAGE_CONFIG = "storage-config"
ETCD_CONFIG = "etcd-config"
CONSTRAINTS = "tc-config"
TLS_CERTS = "tls-certs"


@dataclass(frozen=True, slots=True)
class Tls:
    """The Secret with the key pair of the inference ports, in the runtime's namespace.

    Attributes:
        secret_name: name of the Secret.
        has_ca: whether it has an entry `ca.crt` to check clients against.
    """

    secret_name: str
    has_ca: bool = False


@dataclass(frozen=True, slots=True)
class PodContext:
    """One runtime in one namespace, and what it is deployed with.

    Attributes:
        runtime: the (Cluster)ServingRuntime; its spec has been validated.
        namespace: where the pods run.
        configuration: the user's configuration.
        controller: namespace of the controller.
        etcd_secret: name of the Secret with `etcd_connection`.
        storage_secret: name of the Secret with the storages.
        replicas: number of pods.
        claims: PersistentVolumeClaims to mount, sorted.
        tls: key pair of the inference ports; None for plain text.
    """

    runtime: ServingRuntime | ClusterServingRuntime
    namespace: str
    configuration: Configuration
    controller: str
    etcd_secret: str
    storage_secret: str
    replicas: int
    claims: tuple[str, ...] = ()
    tls: Tls | None = None

    @property
    def spec(self) -> ServingRuntimeSpec:
        """The runtime's spec."""
        return self.runtime.spec

    @property
    def adapter(self) -> BuiltInAdapter | None:
        """The built-in adapter, where the runtime has one."""
        return self.spec.built_in_adapter

    @property
    def has_puller(self) -> bool:
        """Whether a puller container fetches models for the server."""
        helper = self.spec.storage_helper
        return self.adapter is None and not (helper is not None and helper.disabled)

    @property
    def management(self) -> Endpoint:
        """Where the runtime's management API listens."""
        return endpoint.parse(self.spec.grpc_endpoint or "")

    @property
    def data(self) -> Endpoint | None:
        """Where inference requests go; None: to the management endpoint's server."""
        return endpoint.parse(self.spec.grpc_data_endpoint) if self.spec.grpc_data_endpoint else None

    @property
    def socket_directory(self) -> str:
        """The folder that holds the runtime's Unix sockets; empty where it has none.

        Raises:
            InvalidRuntimeError: the two endpoints lie in different folders.
        """
        found = {e.socket_directory for e in (self.management, self.data) if e and e.socket_directory}
        if len(found) > 1:
            raise InvalidRuntimeError(
                f"grpcEndpoint and grpcDataEndpoint are sockets in {' and '.join(sorted(found))}; "
                "one volume holds both, so they must share a folder",
            )
        return found.pop() if found else ""


def mount(name: str, path: str, *, read_only: bool = False) -> JSON:
    """Builds a volume mount."""
    return {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})


def env(values: dict[str, str | JSON]) -> list[JSON]:
    """Builds a container's variables: texts are values, objects are sources."""
    return [
        {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}
        for name, value in values.items()
    ]


def field_ref(path: str) -> JSON:
    """Builds a variable's source: a field of the pod."""
    return {"fieldRef": {"fieldPath": path}}


def shared_mounts(context: PodContext) -> list[JSON]:
    """Returns the mounts of every container that reads models."""
    claims = (mount(volume_name(claim), f"/pvc_mounts/{claim}", read_only=True) for claim in context.claims)
    return [mount(MODELS, "/models"), *claims]


def socket_mounts(context: PodContext) -> list[JSON]:
    """Returns the mount of the runtime's sockets, where it has any."""
    directory = context.socket_directory
    return [mount(SOCKET, directory)] if directory else []


def wait_for_mesh() -> JSON:
    """Returns the hook that keeps a container up until the mesh has moved its models elsewhere."""
    return {"preStop": {"httpGet": {"path": "/prestop", "port": PRESTOP_PORT}}}
