"""The fields of built-in kinds against Kubernetes' definitions: what is unknown, of a wrong type, missing.

Only what a write changes is looked at: what is stored fitted when it was written. So a change of a status
costs no walk over the spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from api.schema import definition_of, native
from controller.runtime.apiserver import schema

if TYPE_CHECKING:
    from api.resource import Resource
    from controller.runtime.apiserver.schema import Cause
    from controller.runtime.client import JSON

_IDENTITY: Final = frozenset({"apiVersion", "kind", "metadata"})
_NOTHING: Final[JSON] = {}
_LEAF_TYPES: Final[dict[type, str]] = {str: "string", bool: "boolean"}
_INTEGERS: Final = frozenset({"int32", "int64"})


class Findings(NamedTuple):
    """What does not fit a definition.

    Attributes:
        unknown: paths of the fields that are taken out.
        wrong: values that cannot be what the field holds.
        missing: required fields that are not there.
    """

    unknown: list[str]
    wrong: list[Cause]
    missing: list[Cause]


def prune(resource: Resource, obj: JSON, old: JSON | None) -> Findings:
    """Take what its definition does not know out of `obj`, in place, where it differs from `old`.

    A kind without a definition (a CustomResourceDefinition) may have any field.
    """
    name = definition_of(resource)
    if not name:
        return Findings([], [], [])
    definition = native(name)
    before = old or {}
    changed = {
        key: value
        for key, value in obj.items()
        if key not in _IDENTITY and (key not in before or before[key] != value)
    }
    properties = definition["properties"]
    if all(key in properties and _fits(properties[key], value) for key, value in changed.items()):
        return Findings([], [], [])
    sent = set(changed)
    unknown = schema.prune(definition, changed)
    for key in sent - changed.keys():
        del obj[key]
    causes = [cause for key in changed for cause in schema.validate(properties[key], changed[key], key)]
    wrong = [cause for cause in causes if cause.reason != schema.REQUIRED]
    return Findings(unknown, wrong, [cause for cause in causes if cause.reason == schema.REQUIRED])


def _fits(definition: JSON, value: Any) -> bool:
    """Whether `prune` and `validate` would find nothing; many times faster, as it names no fields."""
    if isinstance(value, dict):
        return definition.get("type") == "object" and _object_fits(definition, value)
    if isinstance(value, list):
        items = definition.get("items")
        return items is not None and all(_fits(items, item) for item in value)
    if _LEAF_TYPES.get(type(value)) == definition.get("type", "") and "format" not in definition:
        return True
    if type(value) is int and definition.get("format") in _INTEGERS and -(2**31) <= value < 2**31:
        return True
    return next(schema.validate(definition, value), None) is None


def _object_fits(definition: JSON, value: JSON) -> bool:
    for key in definition.get("required", ()):
        if key not in value:
            return False
    properties = definition.get("properties", _NOTHING)
    extra = definition.get("additionalProperties")
    for key, item in value.items():
        below = properties.get(key, extra)
        if not (_fits(below, item) if below else schema.PRESERVE in definition):
            return False
    return True
