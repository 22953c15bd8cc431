"""What an endpoint of an object shows and may change: the whole but its status, the status, the scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.runtime.apiserver import scaling
from controller.runtime.apiserver.store import Snapshot
from controller.runtime.apiserver.values import copy_json
from controller.runtime.apiserver.watching import in_version
from controller.runtime.errors import NotFound

if TYPE_CHECKING:
    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.client import JSON


def check(kind: ServedKind, subresource: str) -> None:
    """Raise NotFound when `kind` has no such subresource; the empty one is the object itself."""
    offered = {"": True, "status": kind.has_status, "scale": kind.scale is not None}
    if not offered.get(subresource):
        raise NotFound("the server could not find the requested resource", details={"kind": subresource})


def view(kind: ServedKind, snapshot: Snapshot, subresource: str) -> Snapshot:
    """Return what a request on a subresource answers with."""
    if subresource == "scale":
        return Snapshot(scaling.read(kind, snapshot.object))
    return in_version(kind, snapshot)


def own_part(kind: ServedKind, old: JSON, new: JSON, subresource: str) -> JSON:
    """Return `new` with what this endpoint may not change put back: `status`, or all but it."""
    if not kind.has_status:
        return new
    source, other = (new, old) if subresource == "status" else (old, new)
    result: JSON = {key: copy_json(value) for key, value in other.items() if key != "status"}
    if source.get("status") is not None:
        result["status"] = copy_json(source["status"])
    return result


def applicable(wanted: JSON, subresource: str) -> JSON:
    """Return what may be applied here: all but the status, or besides identity nothing but the status."""
    if subresource != "status":
        return {key: value for key, value in wanted.items() if key != "status"}
    identity = {"name", "namespace", "resourceVersion", "uid"}
    meta = {key: value for key, value in wanted["metadata"].items() if key in identity}
    return {key: wanted[key] for key in ("apiVersion", "kind", "status") if key in wanted} | {
        "metadata": meta
    }


def desired(kind: ServedKind, obj: JSON) -> Any:
    """Return the part of an object whose change counts as a new generation."""
    if not kind.custom:
        return obj.get("spec")
    return {key: value for key, value in obj.items() if key not in {"metadata", "status", "apiVersion"}}
