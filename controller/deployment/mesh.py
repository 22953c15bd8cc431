"""Container `mm`: the mesh instance beside the model server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.deployment.context import (
    CONSTRAINTS,
    ETCD_CONFIG,
    PULLER_PORT,
    RESTRICTED,
    TLS_CERTS,
    PodContext,
    env,
    field_ref,
    mount,
    socket_mounts,
)
from controller.labels import runtime_labels

if TYPE_CHECKING:
    from controller.endpoint import Endpoint

JSON = dict[str, Any]

NAME = "mm"
GRACE_PERIOD_S = 90
KVSTORE_PREFIX = "mm"
_PROBE_PORT = 8089
_ETCD_PATH = "/opt/kserve/mmesh/etcd"
_CONSTRAINTS_PATH = "/etc/watson/mmesh/config"
_TLS_PATH = "/opt/kserve/mmesh/tls"


def _endpoint(prefix: str, endpoint: Endpoint) -> dict[str, str]:
    if endpoint.socket_path:
        return {f"{prefix}_SOCKET_PATH": endpoint.socket_path}
    return {f"{prefix}_PORT": endpoint.port}


def _identity(context: PodContext) -> dict[str, str | JSON]:
    configuration = context.configuration
    metrics, proxy = configuration.metrics, configuration.rest_proxy
    return {
        "MM_SERVICE_NAME": configuration.inference_service_name,
        "MM_SVC_GRPC_PORT": str(configuration.inference_service_port),
        "MM_SVC_REST_PORT": str(proxy.port) if proxy.enabled else "0",
        "WKUBE_POD_NAME": field_ref("metadata.name"),
        "WKUBE_POD_IPADDR": field_ref("status.podIP"),
        "MM_LOCATION": field_ref("status.hostIP"),
        "KV_STORE": "",
        "MM_METRICS": (
            f"prometheus:port={metrics.port};scheme={metrics.scheme}" if metrics.enabled else "disabled"
        ),
        "SHUTDOWN_TIMEOUT_MS": str(GRACE_PERIOD_S * 1000),
    }


def _runtime(context: PodContext) -> dict[str, str]:
    configuration = context.configuration
    values: dict[str, str] = {"KV_STORE": f"etcd:{_ETCD_PATH}/etcd_connection"}
    if context.data is not None:
        values |= _endpoint("INTERNAL_SERVING_GRPC", context.data)
    if context.has_puller:
        values["INTERNAL_GRPC_PORT"] = str(PULLER_PORT)
    else:
        values |= _endpoint("INTERNAL_GRPC", context.management)
    if configuration.enable_access_logging:
        values["MM_LOG_EACH_INVOKE"] = "true"
    if configuration.grpc_max_message_size_bytes:
        values["MM_SVC_GRPC_MAX_MSG_SIZE"] = str(configuration.grpc_max_message_size_bytes)
    values |= {"MM_KVSTORE_PREFIX": KVSTORE_PREFIX, "MM_DEFAULT_VMODEL_OWNER": "ksp"}
    if configuration.payload_processors:
        values["MM_PAYLOAD_PROCESSORS"] = " ".join(configuration.payload_processors)
    rest = configuration.rest_proxy.enabled
    return values | {
        "MM_LABELS": ",".join(runtime_labels(context.runtime.name, context.spec, rest=rest)),
        "MM_TYPE_CONSTRAINTS_PATH": f"{_CONSTRAINTS_PATH}/type_constraints",
        "MM_DATAPLANE_CONFIG_PATH": f"{_CONSTRAINTS_PATH}/dataplane_api_config",
    }


def _tls(context: PodContext) -> dict[str, str]:
    if context.tls is None:
        return {}
    values = {
        "MM_TLS_KEY_CERT_PATH": f"{_TLS_PATH}/tls.crt",
        "MM_TLS_PRIVATE_KEY_PATH": f"{_TLS_PATH}/tls.key",
    }
    if client_auth := context.configuration.tls.client_auth:
        trusted = [f"{_TLS_PATH}/tls.crt", *([f"{_TLS_PATH}/ca.crt"] if context.tls.has_ca else [])]
        values |= {"MM_TLS_CLIENT_AUTH": client_auth, "MM_TLS_TRUST_CERT_PATH": ",".join(trusted)}
    return values


def _ports(context: PodContext) -> list[JSON]:
    configuration = context.configuration
    ports = [{"name": "grpc", "containerPort": configuration.inference_service_port}]
    if configuration.rest_proxy.enabled:
        ports.append({"name": "http", "containerPort": configuration.rest_proxy.port})
    if configuration.metrics.enabled:
        ports.append({"name": "prometheus", "containerPort": configuration.metrics.port})
    return ports


def container(context: PodContext) -> JSON:
    """Builds the container.

    Internal variables of the configuration may replace what identifies the instance, and are themselves
    replaced by what the runtime determines.
    """
    configuration = context.configuration
    internal = {item.name: item.value for item in configuration.internal_model_mesh_env_vars}
    variables = _identity(context) | internal | _runtime(context) | _tls(context)
    return {
        "name": NAME,
        "image": configuration.model_mesh_image.reference,
        "env": env(variables),
        "ports": _ports(context),
        "resources": configuration.model_mesh_resources.dump(),
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": _PROBE_PORT},
            "initialDelaySeconds": 5,
            "periodSeconds": 5,
            "timeoutSeconds": 1,
        },
        "livenessProbe": {
            "httpGet": {"path": "/live", "port": _PROBE_PORT},
            "initialDelaySeconds": 90,
            "periodSeconds": 30,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["/opt/kserve/mmesh/stop.sh", "wait"]}}},
        "securityContext": RESTRICTED,
        "volumeMounts": [
            *socket_mounts(context),
            mount(CONSTRAINTS, _CONSTRAINTS_PATH),
            mount(ETCD_CONFIG, _ETCD_PATH, read_only=True),
            *([mount(TLS_CERTS, _TLS_PATH, read_only=True)] if context.tls else []),
        ],
    }
