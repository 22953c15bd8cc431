"""Columns of the built-in kinds, as `kubectl get` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controller.runtime.apiserver.kinds import Column
from controller.runtime.apiserver.tables import AGE, NAME, age_of
from controller.runtime.apiserver.values import get_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from controller.runtime.client import JSON

_NONE: Final = "<none>"


def _column(name: str, cell: Callable[[JSON], Any], kind: str = "string", priority: int = 0) -> Column:
    return Column(name, lambda obj, _now: cell(obj), kind, priority)


def _aged(name: str, *paths: tuple[str, ...], priority: int = 0) -> Column:
    def cell(obj: JSON, now: datetime) -> str:
        return age_of(next(filter(None, (get_path(obj, *path) for path in paths)), None), now)

    return Column(name, cell, "string", priority)


def _text(*path: str, missing: Any = _NONE) -> Callable[[JSON], Any]:
    def cell(obj: JSON) -> Any:
        value = get_path(obj, *path)
        return missing if value is None or value == "" else value

    return cell


def _count(*path: str) -> Callable[[JSON], int]:
    return lambda obj: len(get_path(obj, *path) or ())


def _joined(values: Any) -> str:
    return ",".join(str(value) for value in values) or _NONE


def _labels(*path: str) -> Callable[[JSON], str]:
    return lambda obj: _joined(f"{key}={value}" for key, value in (get_path(obj, *path) or {}).items())


def _containers(field: str) -> Callable[[JSON], str]:
    return lambda obj: _joined(
        container.get(field, "")
        for container in get_path(obj, "spec", "template", "spec", "containers") or ()
    )


def _pod_ready(pod: JSON) -> str:
    statuses = get_path(pod, "status", "containerStatuses") or ()
    total = len(get_path(pod, "spec", "containers") or ())
    return f"{sum(1 for status in statuses if status.get('ready'))}/{total}"


def _pod_status(pod: JSON) -> str:
    """Return the most telling word: what a container waits for or died of, else the phase."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status") or {}
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    for container in reversed(status.get("containerStatuses") or ()):
        state = container.get("state") or {}
        waiting = get_path(state, "waiting", "reason")
        terminated = state.get("terminated")
        if waiting:
            reason = waiting
        elif terminated:
            ended = f"ExitCode:{terminated.get('exitCode')}"
            if terminated.get("signal"):
                ended = f"Signal:{terminated['signal']}"
            reason = terminated.get("reason") or ended
    return reason


def _restarts(pod: JSON, now: datetime) -> str:
    statuses = get_path(pod, "status", "containerStatuses") or ()
    total = sum(status.get("restartCount") or 0 for status in statuses)
    ends = [get_path(status, "lastState", "terminated", "finishedAt") for status in statuses]
    last = max(filter(None, ends), default=None)
    return f"{total} ({age_of(last, now)} ago)" if total and last else str(total)


def _service_port(port: JSON) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"


def _service_ports(service: JSON) -> str:
    return _joined(map(_service_port, get_path(service, "spec", "ports") or ()))


def _endpoint_addresses(endpoints: JSON) -> str:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in endpoints.get("subsets") or ()
        for address in subset.get("addresses") or ()
        for port in subset.get("ports") or ()
    ]
    shown = 3  # kubectl's own cut
    more = f" + {len(found) - shown} more..." if len(found) > shown else ""
    return _joined(found[:shown]) + more


def _deployment_ready(deployment: JSON) -> str:
    ready = get_path(deployment, "status", "readyReplicas") or 0
    return f"{ready}/{get_path(deployment, 'spec', 'replicas') or 0}"


def _event_object(event: JSON) -> str:
    involved = event.get("involvedObject") or {}
    return f"{str(involved.get('kind')).lower()}/{involved.get('name')}"


def _event_source(event: JSON) -> str:
    return (
        _joined(filter(None, (event.get("source") or {}).values()))
        if event.get("source")
        else str(
            event.get("reportingComponent") or "",
        )
    )


def _autoscaler_target(autoscaler: JSON) -> str:
    reference = get_path(autoscaler, "spec", "scaleTargetRef") or {}
    return f"{reference.get('kind')}/{reference.get('name')}"


def _zero(*path: str) -> Callable[[JSON], int]:
    return lambda obj: get_path(obj, *path) or 0


_LAST_SEEN: Final = (("series", "lastObservedTime"), ("lastTimestamp",), ("eventTime",))

POD: Final = (
    NAME,
    _column("Ready", _pod_ready),
    _column("Status", _pod_status),
    Column("Restarts", _restarts),
    AGE,
    _column("IP", _text("status", "podIP"), priority=1),
    _column("Node", _text("spec", "nodeName"), priority=1),
)
DEPLOYMENT: Final = (
    NAME,
    _column("Ready", _deployment_ready),
    _column("Up-to-date", _zero("status", "updatedReplicas"), "integer"),
    _column("Available", _zero("status", "availableReplicas"), "integer"),
    AGE,
    _column("Containers", _containers("name"), priority=1),
    _column("Images", _containers("image"), priority=1),
    _column("Selector", _labels("spec", "selector", "matchLabels"), priority=1),
)
REPLICA_SET: Final = (
    NAME,
    _column("Desired", _zero("spec", "replicas"), "integer"),
    _column("Current", _zero("status", "replicas"), "integer"),
    _column("Ready", _zero("status", "readyReplicas"), "integer"),
    AGE,
)
SERVICE: Final = (
    NAME,
    _column("Type", _text("spec", "type")),
    _column("Cluster-IP", _text("spec", "clusterIP")),
    _column("External-IP", lambda obj: _joined(get_path(obj, "spec", "externalIPs") or ())),
    _column("Port(s)", _service_ports),
    AGE,
    _column("Selector", _labels("spec", "selector"), priority=1),
)
ENDPOINTS: Final = (NAME, _column("Endpoints", _endpoint_addresses), AGE)
CONFIG_MAP: Final = (NAME, _column("Data", _count("data"), "integer"), AGE)
SECRET: Final = (NAME, _column("Type", _text("type")), _column("Data", _count("data"), "integer"), AGE)
NAMESPACE: Final = (NAME, _column("Status", _text("status", "phase")), AGE)
NODE: Final = (
    NAME,
    _column("Status", _text("status", "phase", missing="Ready")),
    AGE,
    _column("Version", _text("status", "nodeInfo", "kubeletVersion", missing="")),
)
EVENT: Final = (
    _aged("Last Seen", *_LAST_SEEN),
    _column("Type", _text("type", missing="")),
    _column("Reason", _text("reason", missing="")),
    _column("Object", _event_object),
    _column("Subobject", _text("involvedObject", "fieldPath", missing=""), priority=1),
    _column("Source", _event_source, priority=1),
    _column("Message", _text("message", missing="")),
    _aged("First Seen", ("firstTimestamp",), ("eventTime",), priority=1),
    _column("Count", _text("count", missing=1), "integer", priority=1),
    NAME._replace(priority=1),
)
LEASE: Final = (NAME, _column("Holder", _text("spec", "holderIdentity", missing="")), AGE)
CLAIM: Final = (
    NAME,
    _column("Status", _text("status", "phase", missing="")),
    _column("Volume", _text("spec", "volumeName", missing="")),
    _column("Capacity", _text("status", "capacity", "storage", missing="")),
    _column("Access Modes", lambda obj: ",".join(get_path(obj, "spec", "accessModes") or ())),
    AGE,
)
AUTOSCALER: Final = (
    NAME,
    _column("Reference", _autoscaler_target),
    _column("MinPods", _text("spec", "minReplicas", missing=1)),
    _column("MaxPods", _text("spec", "maxReplicas")),
    _column("Replicas", _zero("status", "currentReplicas"), "integer"),
    AGE,
)
DEFINITION: Final = (NAME, _column("Created At", _text("metadata", "creationTimestamp")))
PLAIN: Final = (NAME, AGE)
