"""Checks of what a client sent against what its request is about: type, place, identity, version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.runtime.apiserver.decoding import refusal
from controller.runtime.apiserver.schema import invalid
from controller.runtime.apiserver.values import copy_json
from controller.runtime.errors import BadRequest, Conflict

if TYPE_CHECKING:
    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.client import JSON

_STALE = "the object has been modified; please apply your changes to the latest version and try again"


def accept(kind: ServedKind, obj: Any, namespace: str) -> JSON:
    """Return a copy of an object that a client sent, of the right kind and with its namespace.

    Raises:
        BadRequest: it is no object, of another kind, or in another namespace than the request's.
    """
    resource = kind.resource
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict | None):
        raise BadRequest(f"the body is no object of kind {resource.kind}")
    new: JSON = {"apiVersion": resource.api_version, "kind": resource.kind, **copy_json(obj)}
    if (new["kind"], new["apiVersion"]) != (resource.kind, resource.api_version):
        sent, expected = (
            f"{new['apiVersion']}, Kind={new['kind']}",
            f"{resource.api_version}, Kind={resource.kind}",
        )
        raise BadRequest(f"the object provided is unrecognized: it is {sent}, expected {expected}")
    meta = new["metadata"] = new.get("metadata") or {}
    if not resource.namespaced:
        meta.pop("namespace", None)
        return new
    if namespace and (meta.get("namespace") or namespace) != namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request: "
            f"{meta['namespace']} and {namespace}",
        )
    meta["namespace"] = meta.get("namespace") or namespace
    if not meta["namespace"]:
        raise BadRequest(f"metadata.namespace is missing: {resource.plural} live in namespaces")
    return new


def check_identity(kind: ServedKind, old: JSON, new: JSON) -> None:
    """Check that `new` is a change of `old` as it is now.

    Raises:
        BadRequest: it has another name.
        Conflict: it is of an earlier version.
        Invalid: it has another uid.
    """
    was, meta = old["metadata"], new["metadata"]
    name = was["name"]
    if meta.get("name", name) != name:
        raise BadRequest(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
    check_preconditions(kind, old, "", meta.get("resourceVersion") or "")
    if (meta.get("uid") or was["uid"]) != was["uid"]:
        raise refusal(kind, name, [invalid("metadata.uid", meta["uid"], "field is immutable")])


def check_preconditions(kind: ServedKind, old: JSON, uid: str, resource_version: str) -> None:
    """Raise Conflict when `uid` or `resource_version` is given and not that of `old`."""
    meta = old["metadata"]
    if uid and uid != meta["uid"]:
        cause = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
        raise Conflict.of(kind.resource, meta["name"], cause)
    if resource_version and resource_version != meta["resourceVersion"]:
        raise Conflict.of(kind.resource, meta["name"], _STALE)
