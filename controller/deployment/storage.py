"""The container that fetches models: the built-in adapter of a known server, or the puller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.deployment.context import (
    ADAPTER_HEALTH_PORT,
    PULLER_PORT,
    RESTRICTED,
    STORAGE_CONFIG,
    PodContext,
    env,
    mount,
    shared_mounts,
    socket_mounts,
    wait_for_mesh,
)

if TYPE_CHECKING:
    from api.v1alpha1 import BuiltInAdapter

JSON = dict[str, Any]

PULLER = "puller"
_STORAGE_CONFIG_PATH = "/storage-config"
_DEFAULT_ADAPTER_PORT = "8085"
_HEALTH_VARIABLE = "ADAPTER_METRICS_PORT"
_LARGEST_PORT = 65535
_ANNOTATIONS = {
    "maxLoadingConcurrency": "LOADING_CONCURRENCY",
    "perModelConcurrencyLimit": "LIMIT_PER_MODEL_CONCURRENCY",
}


def image_tag(image: str) -> str:
    """Returns the tag of an image reference; empty where it has none."""
    _, _, last = image.partition("@")[0].rpartition("/")
    return last.partition(":")[2]


def _storage_mounts(context: PodContext) -> list[JSON]:
    return [
        *shared_mounts(context),
        mount(STORAGE_CONFIG, _STORAGE_CONFIG_PATH, read_only=True),
        *socket_mounts(context),
    ]


def adapter(context: PodContext, adapter: BuiltInAdapter) -> JSON:
    """Builds container `TYPE-adapter`, which drives the server and fetches its models."""
    type_ = adapter.server_type
    configuration = context.configuration
    server = next(c for c in context.spec.containers if c.name == type_)
    variables: dict[str, str | JSON] = {
        "ADAPTER_PORT": context.management.port or _DEFAULT_ADAPTER_PORT,
        "RUNTIME_PORT": str(adapter.runtime_management_port),
        "RUNTIME_DATA_ENDPOINT": (
            context.spec.grpc_data_endpoint or f"port:{adapter.runtime_management_port}"
        ),
        "CONTAINER_MEM_REQ_BYTES": {
            "resourceFieldRef": {"containerName": type_, "resource": "requests.memory"},
        },
        "MEM_BUFFER_BYTES": str(adapter.mem_buffer_bytes),
        "LOADTIME_TIMEOUT": str(adapter.model_loading_timeout_millis),
        "USE_EMBEDDED_PULLER": "true",
        "RUNTIME_VERSION": image_tag(server.image),
    }
    image = configuration.storage_helper_image
    if image.has_health:
        variables[_HEALTH_VARIABLE] = str(ADAPTER_HEALTH_PORT)
    annotations = context.runtime.metadata.annotations
    variables |= {name: annotations[key] for key, name in _ANNOTATIONS.items() if key in annotations}
    variables_by_name = {item["name"]: item for item in env(variables)}
    variables_by_name |= {item.name: item.dump() for item in adapter.env}
    return {
        "name": f"{type_}-adapter",
        "image": image.reference,
        "command": [f"/opt/app/{type_}-adapter"],
        "env": list(variables_by_name.values()),
        **(_health(variables_by_name[_HEALTH_VARIABLE]) if image.has_health else {}),
        "resources": configuration.storage_helper_resources.dump(),
        "lifecycle": wait_for_mesh(),
        "securityContext": RESTRICTED,
        "volumeMounts": _storage_mounts(context),
    }


def _health(variable: JSON) -> JSON:
    """Builds the port of health and metrics and the probe on it; none where the runtime turned it off."""
    port = variable.get("value", "")
    if not port.isdecimal() or not 1 <= int(port) <= _LARGEST_PORT:
        return {}
    return {
        "ports": [{"name": "mm-adapter", "containerPort": int(port)}],
        # Only an adapter whose loop stands still fails it; one whose server is away answers.
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": int(port)},
            "initialDelaySeconds": 30,
            "periodSeconds": 30,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }


def puller(context: PodContext) -> JSON:
    """Builds container `puller`, which stands before the management API of a custom server."""
    image = context.configuration.storage_helper_image
    return {
        "name": PULLER,
        "image": image.reference,
        "command": list(image.command),
        "env": env(
            {
                "PORT": str(PULLER_PORT),
                "MODEL_SERVER_ENDPOINT": context.spec.grpc_endpoint or "",
                "ROOT_MODEL_DIR": "/models",
                "STORAGE_CONFIG_DIR": _STORAGE_CONFIG_PATH,
                "PVC_MOUNTS_DIR": "/pvc_mounts",
            },
        ),
        # Not named `grpc`: a Service finds its target by name, and that name is the mesh's.
        "ports": [{"name": "mm-puller", "containerPort": PULLER_PORT}],
        "resources": context.configuration.storage_helper_resources.dump(),
        "securityContext": RESTRICTED,
        "volumeMounts": _storage_mounts(context),
    }
