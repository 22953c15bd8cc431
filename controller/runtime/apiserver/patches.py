"""The three patch formats: JSON patch (RFC 6902), JSON merge patch (RFC 7396), strategic merge patch.

Every function returns a new object and leaves its arguments as they were. A strategic merge knows by the
name of a list how its entries are matched; the names and keys are those of the built-in Kubernetes types,
so it is not for custom resources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controller.runtime.apiserver.values import copy_json
from controller.runtime.client import PatchKind
from controller.runtime.errors import BadRequest, Invalid, UnsupportedMediaType

if TYPE_CHECKING:
    from controller.runtime.client import JSON, JSONPatch

MERGE_KEYS: Final = {
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "hostIPs": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "podIPs": "ip",
    "resizePolicy": "resourceName",
    "secrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Merge key by field name (`x-kubernetes-patch-merge-key` of built-in types); `ports` has two: see below."""

PRIMITIVE_SETS: Final = frozenset({"finalizers"})
"""Lists of strings that a strategic merge adds to instead of replacing."""


def merge_key(field: str, entries: list[Any]) -> str | None:
    """Return the key that identifies entries of the list `field`, None when the list is replaced whole.

    Ports of a container are known by `containerPort`, those of a Service by `port`.
    """
    if field == "ports":
        return "containerPort" if any("containerPort" in entry for entry in entries) else "port"
    return MERGE_KEYS.get(field)


def apply(target: JSON, patch: JSON | JSONPatch, kind: PatchKind, *, custom: bool) -> Any:
    """Apply a patch of any format to an object, of a custom resource or of a built-in kind.

    Raises:
        BadRequest: the patch is not of its format's shape.
        Invalid: it does not fit the object.
        UnsupportedMediaType: strategic merge for a custom resource.
    """
    if isinstance(patch, list) != (kind is PatchKind.JSON):
        raise BadRequest(f"a JSON patch is a list of operations, all others are objects: not so in {kind}")
    if isinstance(patch, list):
        return json_patch(target, patch)
    if kind is PatchKind.MERGE:
        return merge(target, patch)
    if custom:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{PatchKind.JSON}, {PatchKind.MERGE}, application/apply-patch+yaml",
        )
    return strategic(target, patch)


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: JSON, operations: JSONPatch) -> JSON:
    """Apply a JSON patch; a path that is not there or a failed `test` is Invalid, as in kube-apiserver."""
    document: Any = copy_json(target)
    for number, operation in enumerate(operations):
        if not isinstance(operation, dict):
            raise BadRequest(f"JSON patch operation {number} is no object with op and path: {operation!r}")
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Invalid(
                f"the server rejected our request due to an error in our request: JSON patch operation "
                f"{number} ({operation.get('op')} {operation.get('path')}): {error}",
            ) from error
    if not isinstance(document, dict):
        raise BadRequest("the JSON patch turned the object into something that is not an object")
    return document


def _operate(document: Any, operation: JSON) -> Any:
    kind = operation["op"]
    path = _pointer(operation["path"])
    match kind:
        case "add":
            return _add(document, path, copy_json(operation["value"]))
        case "replace":
            _get(document, path)
            return (
                _add(_remove(document, path), path, copy_json(operation["value"]))
                if path
                else operation["value"]
            )
        case "remove":
            return _remove(document, path)
        case "move":
            source = _pointer(operation["from"])
            value = _get(document, source)
            return _add(_remove(document, source), path, value)
        case "copy":
            return _add(document, path, copy_json(_get(document, _pointer(operation["from"]))))
        case "test":
            if _get(document, path) != operation["value"]:
                raise ValueError("the value differs from the one tested for")
            return document
        case _:
            raise ValueError(f"unknown operation {kind}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f'path "{text}" does not start with /')
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[_index(document, part)] if isinstance(document, list) else document[part]
    return document


def _index(items: list[Any], part: str) -> int:
    index = int(part)
    if not 0 <= index < len(items):
        raise IndexError(f"no index {part} in a list of {len(items)}")
    return index


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        position = len(parent) if last == "-" else int(last)
        if not 0 <= position <= len(parent):
            raise IndexError(f"no index {last} in a list of {len(parent)}")
        parent.insert(position, value)
    else:
        parent[last] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[_index(parent, last)]
    else:
        del parent[last]
    return document


def strategic(target: JSON, patch: JSON) -> JSON:
    """Apply a strategic merge patch with its directives ($patch, $retainKeys, $setElementOrder, …)."""
    result = _strategic_object(target, patch)
    return result if isinstance(result, dict) else {}


def _strategic_object(target: Any, patch: JSON) -> JSON:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copy_json(value) for key, value in patch.items() if not key.startswith("$")}
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key == "$retainKeys":
            result = {kept: result[kept] for kept in result if kept in value}
        elif key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [entry for entry in result.get(field) or [] if entry not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _strategic_object(result.get(key), value)
        elif isinstance(value, list):
            order = patch.get(f"$setElementOrder/{key}")
            result[key] = _strategic_list(key, result.get(key) or [], value, order)
        else:
            result[key] = value
    return result


def _strategic_list(field: str, target: list[Any], patch: list[Any], order: list[Any] | None) -> list[Any]:
    if field in PRIMITIVE_SETS:
        return _ordered([*target, *(entry for entry in patch if entry not in target)], order, None)
    objects = all(isinstance(entry, dict) for entry in [*target, *patch])
    key = merge_key(field, [*target, *patch]) if objects else None
    if key is None or any(entry.get("$patch") == "replace" for entry in patch):
        return [copy_json(entry) for entry in patch if not (isinstance(entry, dict) and "$patch" in entry)]
    merged = {entry.get(key): entry for entry in target}
    for entry in patch:
        if key not in entry:
            raise BadRequest(f"map: {entry} does not contain declared merge key: {key}")
        if entry.get("$patch") == "delete":
            merged.pop(entry[key], None)
        else:
            merged[entry[key]] = _strategic_object(merged.get(entry[key]), entry)
    return _ordered(list(merged.values()), order, key)


def _ordered(entries: list[Any], order: list[Any] | None, key: str | None) -> list[Any]:
    """Sort into the order the client sent; entries it does not name stay behind those it does."""
    if order is None:
        return entries
    wanted = [entry.get(key) if key and isinstance(entry, dict) else entry for entry in order]
    rank = {identity: position for position, identity in enumerate(wanted)}
    return sorted(entries, key=lambda entry: rank.get(entry.get(key) if key else entry, len(rank)))
