"""The `scale` subresource: one shape (`autoscaling/v1 Scale`) for whatever counts replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.runtime.apiserver.values import copy_json, get_path
from controller.runtime.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from controller.runtime.apiserver.kinds import ScalePaths, ServedKind
    from controller.runtime.client import JSON


def _paths(kind: ServedKind) -> ScalePaths:
    if kind.scale is None:
        raise NotFound("the server could not find the requested resource", details={"kind": "scale"})
    return kind.scale


def read(kind: ServedKind, obj: JSON) -> JSON:
    """Return the `Scale` of an object."""
    paths = _paths(kind)
    selector: Any = get_path(obj, *paths.selector)
    if isinstance(selector, dict):
        selector = ",".join(f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items())
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: obj["metadata"][key] for key in kept if key in obj["metadata"]},
        "spec": {"replicas": get_path(obj, *paths.replicas) or 0},
        "status": {"replicas": get_path(obj, *paths.status_replicas) or 0, "selector": selector or ""},
    }


def write(kind: ServedKind, obj: JSON, scale: JSON) -> JSON:
    """Return a copy of the object with the replicas that a `Scale` asks for, and its resourceVersion."""
    replicas = get_path(scale, "spec", "replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        raise BadRequest(f"spec.replicas: {replicas!r} is not a number of at least 0")
    new: JSON = copy_json(obj)
    meta = new["metadata"]
    meta["resourceVersion"] = get_path(scale, "metadata", "resourceVersion") or meta["resourceVersion"]
    *parents, last = _paths(kind).replicas
    target = new
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = replicas
    return new
