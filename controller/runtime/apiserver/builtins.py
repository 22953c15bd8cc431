"""The built-in kinds the server speaks from the start: their names, their defaults, their columns.

Names and types of their fields are checked against Kubernetes' definitions (`fields`). The rules here are
what a later reader relies on: a pod's containers (`pods`), and the few defaults without which a client would
find a field missing that a real API server always gives.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from api.core import CONFIG_MAP, CRD, DEPLOYMENT, ENDPOINTS, EVENT, LEASE, NAMESPACE, POD, SECRET, SERVICE
from api.resource import Resource
from controller.runtime.apiserver import pods, printers
from controller.runtime.apiserver.definitions import check_definition, prepare_definition
from controller.runtime.apiserver.kinds import METADATA_FIELDS, ScalePaths, ServedKind
from controller.runtime.apiserver.schema import Cause, invalid, required
from controller.runtime.apiserver.values import get_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controller.runtime.client import JSON

SERVICE_ACCOUNT: Final = Resource("", "v1", "ServiceAccount", "serviceaccounts")
PERSISTENT_VOLUME_CLAIM: Final = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NODE: Final = Resource("", "v1", "Node", "nodes", namespaced=False)
REPLICA_SET: Final = Resource("apps", "v1", "ReplicaSet", "replicasets")
AUTOSCALER: Final = Resource("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")

_EVENT_FIELDS: Final = METADATA_FIELDS | {
    *(
        f"involvedObject.{name}"
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
    "reason",
    "reportingComponent",
    "type",
}
_POD_FIELDS: Final = METADATA_FIELDS | {
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
}


def _prepare_namespace(namespace: JSON) -> None:
    name = namespace["metadata"].get("name")
    namespace["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    namespace.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    namespace.setdefault("status", {}).setdefault("phase", "Active")


def _prepare_secret(secret: JSON) -> None:
    """Set the type and turn `stringData` into `data`, as the API server does on every write."""
    secret["type"] = secret.get("type") or "Opaque"
    for key, text in (secret.pop("stringData", None) or {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def _check_immutable(obj: JSON, old: JSON | None) -> Iterator[Cause]:
    if not old or not old.get("immutable"):
        return
    message = "Forbidden: field is immutable when `immutable` is set"
    for field in ("immutable", "data", "binaryData"):
        if (obj.get(field) or {}) != (old.get(field) or {}):
            yield Cause(field, "FieldValueForbidden", message)


def _check_secret(secret: JSON, old: JSON | None) -> Iterator[Cause]:
    yield from _check_immutable(secret, old)
    for key, value in (secret.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            yield Cause(f"data[{key}]", "FieldValueInvalid", "Invalid value: must be base64; use stringData")


def _prepare_service(service: JSON) -> None:
    spec = service.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))


def _check_service(service: JSON, _old: JSON | None) -> Iterator[Cause]:
    ports = get_path(service, "spec", "ports") or []
    if not ports and get_path(service, "spec", "clusterIP") != "None":
        yield required("spec.ports")
    for index, port in enumerate(ports):
        if len(ports) > 1 and not port.get("name"):
            yield required(f"spec.ports[{index}].name")


def _prepare_deployment(deployment: JSON) -> None:
    spec = deployment.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("progressDeadlineSeconds", 600)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    pods.prepare(get_path(spec, "template", "spec"))


def _check_deployment(deployment: JSON, old: JSON | None) -> Iterator[Cause]:
    selector = get_path(deployment, "spec", "selector", "matchLabels") or {}
    labels = get_path(deployment, "spec", "template", "metadata", "labels") or {}
    if not get_path(deployment, "spec", "selector"):
        yield required("spec.selector")
    elif any(labels.get(key) != value for key, value in selector.items()):
        yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if old and get_path(old, "spec", "selector") != get_path(deployment, "spec", "selector"):
        yield invalid("spec.selector", get_path(deployment, "spec", "selector"), "field is immutable")
    replicas = deployment["spec"]["replicas"]
    if replicas < 0:
        yield invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    yield from pods.check(get_path(deployment, "spec", "template", "spec"), "spec.template.spec")


def _prepare_pod(pod: JSON) -> None:
    pods.prepare(pod.setdefault("spec", {}))
    pod.setdefault("status", {}).setdefault("phase", "Pending")


def _check_pod(pod: JSON, _old: JSON | None) -> Iterator[Cause]:
    yield from pods.check(pod.get("spec"), "spec")


def _bound(pod: JSON) -> bool:
    """Whether a pod runner may have started it, so that its deletion waits for that runner."""
    return bool(get_path(pod, "spec", "nodeName"))


def _prepare_event(event: JSON) -> None:
    event.setdefault("type", "Normal")


def _check_event(event: JSON, _old: JSON | None) -> Iterator[Cause]:
    involved: Any = get_path(event, "involvedObject", "namespace") or "default"
    if involved != event["metadata"].get("namespace"):
        yield invalid("involvedObject.namespace", involved, "does not match event.namespace")


BUILTINS: Final = (
    ServedKind(
        resource=NAMESPACE,
        short_names=("ns",),
        has_status=True,
        columns=printers.NAMESPACE,
        selectable=METADATA_FIELDS | {"status.phase"},
        prepare=_prepare_namespace,
    ),
    ServedKind(resource=NODE, short_names=("no",), has_status=True, columns=printers.NODE),
    ServedKind(
        resource=POD,
        short_names=("po",),
        categories=("all",),
        has_status=True,
        columns=printers.POD,
        selectable=_POD_FIELDS,
        prepare=_prepare_pod,
        check=_check_pod,
        graceful=_bound,
    ),
    ServedKind(
        resource=SERVICE,
        short_names=("svc",),
        categories=("all",),
        has_status=True,
        columns=printers.SERVICE,
        prepare=_prepare_service,
        check=_check_service,
    ),
    ServedKind(resource=ENDPOINTS, singular="endpoints", short_names=("ep",), columns=printers.ENDPOINTS),
    ServedKind(
        resource=CONFIG_MAP,
        short_names=("cm",),
        columns=printers.CONFIG_MAP,
        check=_check_immutable,
    ),
    ServedKind(
        resource=SECRET,
        columns=printers.SECRET,
        selectable=METADATA_FIELDS | {"type"},
        prepare=_prepare_secret,
        check=_check_secret,
    ),
    ServedKind(resource=SERVICE_ACCOUNT, short_names=("sa",), columns=printers.PLAIN),
    ServedKind(
        resource=PERSISTENT_VOLUME_CLAIM,
        short_names=("pvc",),
        has_status=True,
        columns=printers.CLAIM,
    ),
    ServedKind(
        resource=EVENT,
        short_names=("ev",),
        columns=printers.EVENT,
        selectable=_EVENT_FIELDS,
        prepare=_prepare_event,
        check=_check_event,
    ),
    ServedKind(
        resource=DEPLOYMENT,
        short_names=("deploy",),
        categories=("all",),
        has_status=True,
        scale=ScalePaths(),
        columns=printers.DEPLOYMENT,
        prepare=_prepare_deployment,
        check=_check_deployment,
    ),
    ServedKind(
        resource=REPLICA_SET,
        short_names=("rs",),
        categories=("all",),
        has_status=True,
        scale=ScalePaths(),
        columns=printers.REPLICA_SET,
    ),
    ServedKind(
        resource=AUTOSCALER,
        short_names=("hpa",),
        categories=("all",),
        has_status=True,
        columns=printers.AUTOSCALER,
    ),
    ServedKind(resource=LEASE, columns=printers.LEASE),
    ServedKind(
        resource=CRD,
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        has_status=True,
        columns=printers.DEFINITION,
        prepare=prepare_definition,
        check=check_definition,
    ),
)
