"""Makes an object that a controller owns what it should be, and writes only a real difference.

A reconciler states the whole object it wants, every time. `ensure` creates it, or changes what differs (see
`merge`), or does nothing: a controller that writes on every reconcile wakes itself and everybody who
watches. Which fields are ours is kept in an annotation of the object, as names without values.

Writes carry the resourceVersion that was looked at, so a change made in between is a Conflict and the
reconcile is tried again on the newer object.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import structlog

from api.meta import KubeObject
from controller.runtime.errors import AlreadyExists, NotFound
from controller.runtime.merge import difference, fields_of, merge

if TYPE_CHECKING:
    from api.resource import Resource
    from controller.runtime.client import JSON, Client

_log = structlog.get_logger(__name__)

FIELDS_ANNOTATION = "controller-runtime.python/fields"
"""Where the names of the fields we set are kept."""
_NOT_OURS = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")


class Ensured(NamedTuple):
    """What `ensure` did, and the object as it is now."""

    object: JSON
    action: Literal["created", "updated", "unchanged"]


async def ensure(
    client: Client,
    resource: Resource,
    desired: KubeObject | JSON,
    *,
    live: KubeObject | JSON | None = None,
    annotation: str = FIELDS_ANNOTATION,
) -> Ensured:
    """Create `desired`, or bring the object that is there to it.

    Fields set in `desired` get its values; fields set by an earlier call and left out now are removed; all
    others are kept. The status is not touched.

    Args:
        client: the API server.
        resource: the type of the object.
        desired: all that we want of the object. Secrets: `data`, not `stringData`, which cannot be read back.
        live: the object from a cache, which saves a request; without it, it is read.
        annotation: where the names of our fields are kept; different for several owners of one object.

    Raises:
        Conflict: the object changed since `live` was read; reconcile again.
        ApiError: the API server refuses the object.
    """
    wanted = _wanted(_raw(desired))
    metadata = wanted["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "")
    ours = fields_of({key: wanted[key] for key in wanted.keys() - {"apiVersion", "kind"}})
    note = json.dumps(ours, separators=(",", ":"), sort_keys=True)
    metadata["annotations"] = {**metadata.get("annotations", {}), annotation: note}
    present = _raw(live) if live is not None else await _find(client, resource, name, namespace)
    if present is None:
        try:
            body = {"apiVersion": resource.api_version, "kind": resource.kind} | wanted
            return Ensured(await client.create(resource, body), "created")
        except AlreadyExists:
            present = await client.get(resource, name, namespace)
    patch = difference(present, merge(wanted, present, _owned(present, annotation)))
    if not patch:
        return Ensured(present, "unchanged")
    patch.setdefault("metadata", {})["resourceVersion"] = present["metadata"].get("resourceVersion")
    return Ensured(await client.patch(resource, name, namespace, patch), "updated")


async def ensure_absent(client: Client, live: KubeObject) -> bool:
    """Delete an object of a cache; return whether it was still there."""
    resource = live.RESOURCE
    try:
        await client.delete(resource, live.name, live.namespace)
    except NotFound:
        _log.debug("gone already", kind=resource.kind, namespace=live.namespace, name=live.name)
        return False
    return True


async def _find(client: Client, resource: Resource, name: str, namespace: str) -> JSON | None:
    try:
        return await client.get(resource, name, namespace)
    except NotFound:
        return None


def _raw(obj: KubeObject | JSON) -> JSON:
    return obj.dump() if isinstance(obj, KubeObject) else obj


def _wanted(desired: JSON) -> JSON:
    """Return the part of `desired` that is a wish, without nulls; a copy as far as it is changed here."""
    wanted: JSON = _without_nulls({key: value for key, value in desired.items() if key != "status"})
    wanted["metadata"] = {key: value for key, value in wanted["metadata"].items() if key not in _NOT_OURS}
    return wanted


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _owned(present: JSON, annotation: str) -> JSON:
    """Return the names of the fields an earlier call set; none when the note is missing or damaged."""
    note = (present["metadata"].get("annotations") or {}).get(annotation, "")
    try:
        owned = json.loads(note) if note else {}
    except ValueError:
        return {}
    return owned if isinstance(owned, dict) else {}
