"""Defaults and rules of a pod spec: what a bad template would otherwise show only when it is started."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from controller.runtime.apiserver.schema import Cause, duplicate, invalid, required, unsupported
from controller.runtime.apiserver.values import copy_json, get_path

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = dict[str, Any]

DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_RULE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character"
)
_POD_DEFAULTS: Final[JSON] = {
    "dnsPolicy": "ClusterFirst",
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}
_CONTAINER_DEFAULTS: Final[JSON] = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_PROBE_DEFAULTS: Final[JSON] = {
    "failureThreshold": 3,
    "periodSeconds": 10,
    "successThreshold": 1,
    "timeoutSeconds": 1,
}
_FILE_MODES: Final = {"configMap", "downwardAPI", "projected", "secret"}
"""Volumes whose files get a mode."""
_RESTART_POLICIES: Final = ["Always", "OnFailure", "Never"]


def prepare(spec: JSON | None) -> None:
    """Fill in, in place, the defaults that clients read back."""
    if not isinstance(spec, dict):
        return
    _fill(spec, _POD_DEFAULTS)
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        _prepare_container(container)
    for volume in spec.get("volumes") or ():
        for source in _FILE_MODES & volume.keys():
            _fill(volume[source], {"defaultMode": 420})


def _prepare_container(container: JSON) -> None:
    _fill(container, _CONTAINER_DEFAULTS)
    image = str(container.get("image", ""))
    latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for port in container.get("ports") or ():
        _fill(port, {"protocol": "TCP"})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        _fill(probe, _PROBE_DEFAULTS)
        _fill(get_path(probe, "httpGet"), {"scheme": "HTTP"})
    for name in ("postStart", "preStop"):
        _fill(get_path(container, "lifecycle", name, "httpGet"), {"scheme": "HTTP"})
    for variable in container.get("env") or ():
        _fill(get_path(variable, "valueFrom", "fieldRef"), {"apiVersion": "v1"})


def _fill(obj: Any, defaults: JSON) -> None:
    if isinstance(obj, dict):
        for key, value in defaults.items():
            obj.setdefault(key, copy_json(value))


def check(spec: JSON | None, path: str) -> Iterator[Cause]:
    """Yield what is wrong with a pod spec found under `path`."""
    if not isinstance(spec, dict) or not spec.get("containers"):
        yield required(f"{path}.containers")
        return
    policy = spec.get("restartPolicy")
    if policy not in _RESTART_POLICIES:
        yield unsupported(f"{path}.restartPolicy", policy, _RESTART_POLICIES)
    volumes = spec.get("volumes") or []
    yield from _names(volumes, f"{path}.volumes")
    known = {volume.get("name") for volume in volumes}
    taken: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            where = f"{path}.{field}[{index}]"
            yield from _name(container, where, taken)
            yield from _check_container(container, where, known)


def _names(entries: list[JSON], path: str) -> Iterator[Cause]:
    taken: set[str] = set()
    for index, entry in enumerate(entries):
        yield from _name(entry, f"{path}[{index}]", taken)


def _name(entry: JSON, path: str, taken: set[str]) -> Iterator[Cause]:
    name = entry.get("name")
    if not name:
        yield required(f"{path}.name")
    elif not DNS_LABEL.fullmatch(name):
        yield invalid(f"{path}.name", name, _LABEL_RULE)
    elif name in taken:
        yield duplicate(f"{path}.name", name)
    else:
        taken.add(name)


def _check_container(container: JSON, path: str, volumes: set[Any]) -> Iterator[Cause]:
    if not container.get("image"):
        yield required(f"{path}.image")
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield required(f"{path}.env[{index}].name")
    yield from _check_mounts(container, path, volumes)
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort")
        if not isinstance(number, int) or not 0 < number < 2**16:
            where = f"{path}.ports[{index}].containerPort"
            yield invalid(where, number, "must be between 1 and 65535, inclusive")


def _check_mounts(container: JSON, path: str, volumes: set[Any]) -> Iterator[Cause]:
    paths: set[Any] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            yield Cause(f"{where}.name", "FieldValueNotFound", f'Not found: "{mount.get("name")}"')
        if not mount.get("mountPath"):
            yield required(f"{where}.mountPath")
        elif mount["mountPath"] in paths:
            yield invalid(f"{where}.mountPath", mount["mountPath"], "must be unique")
        paths.add(mount.get("mountPath"))
