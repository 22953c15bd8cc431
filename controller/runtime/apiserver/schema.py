"""Structural schemas: what is unknown, what is missing, what is wrong.

Three passes over an object, in kube-apiserver's order: `prune` takes out fields the schema does not name,
`default` fills in what it gives values for, `validate` lists what breaks it. The wording of a cause is
kube-apiserver's, because people search for it and tools match on it.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controller.runtime.apiserver.values import child, copy_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import UnionType

    from controller.runtime.client import JSON

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
REQUIRED: Final = "FieldValueRequired"
"""Reason of a cause that names a missing field."""
_RANGES: Final = {"int32": 2**31, "int64": 2**63}
_OBJECT_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata"})


class Cause(NamedTuple):
    """One field that is wrong: `Status.details.causes` in the making."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    def to_json(self) -> JSON:
        """Return the cause as a `StatusCause` object."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


def required(field: str, detail: str = "") -> Cause:
    """Return the cause for a field that is missing."""
    return Cause(field, REQUIRED, f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: Any, detail: str) -> Cause:
    """Return the cause for a value that breaks a rule."""
    shown = json.dumps(value, ensure_ascii=False)
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {detail}")


def unsupported(field: str, value: Any, allowed: list[Any]) -> Cause:
    """Return the cause for a value outside an enumeration."""
    shown = ", ".join(json.dumps(item) for item in allowed)
    message = f"Unsupported value: {json.dumps(value, ensure_ascii=False)}: supported values: {shown}"
    return Cause(field, "FieldValueNotSupported", message)


def duplicate(field: str, value: Any) -> Cause:
    """Return the cause for an entry that must be unique in its list."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {json.dumps(value, ensure_ascii=False)}")


def prune(schema: JSON, value: Any, path: str = "") -> list[str]:
    """Remove from `value`, in place, the fields that `schema` does not know; return their paths."""
    if isinstance(value, list):
        items = schema.get("items", {})
        return [gone for index, item in enumerate(value) for gone in prune(items, item, child(path, index))]
    if not isinstance(value, dict):
        return []
    removed: list[str] = []
    properties = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    object_like = not path or schema.get(EMBEDDED)
    for key in list(value):
        if object_like and key in _OBJECT_FIELDS:
            continue
        if key in properties:
            removed += prune(properties[key], value[key], child(path, key))
        elif isinstance(extra, dict):
            removed += prune(extra, value[key], child(path, key))
        elif not (extra or schema.get(PRESERVE)):
            del value[key]
            removed.append(child(path, key))
    return removed


def default(schema: JSON, value: Any) -> None:
    """Fill in, in place, the defaults of `schema`; a null that may not be null counts as absent."""
    if isinstance(value, list):
        for item in value:
            default(schema.get("items", {}), item)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties", {})
    for key, subschema in properties.items():
        if "default" in subschema and (
            key not in value or (value[key] is None and not subschema.get("nullable"))
        ):
            value[key] = copy_json(subschema["default"])
    extra = schema.get("additionalProperties")
    for key, item in value.items():
        subschema = properties.get(key, extra)
        if isinstance(subschema, dict):
            default(subschema, item)


def validate(schema: JSON, value: Any, path: str = "") -> Iterator[Cause]:
    """Yield everything in `value` that breaks `schema`, with paths such as `spec.containers[0].name`."""
    if value is None and schema.get("nullable"):
        return
    expected = schema.get("type")
    if schema.get(INT_OR_STRING):
        if not _is_type(value, "integer") and not isinstance(value, str):
            yield _wrong_type(path, value, "integer,string")
            return
    elif expected and not _is_type(value, expected):
        yield _wrong_type(path, value, expected)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(path, value, schema["enum"])
    if isinstance(value, dict):
        yield from _validate_object(schema, value, path)
    elif isinstance(value, list):
        yield from _validate_list(schema, value, path)
    elif isinstance(value, str):
        yield from _validate_string(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _validate_number(schema, value, path)
    yield from _validate_combined(schema, value, path)


_TYPES: Final[dict[str, type | UnionType]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "number": int | float,
}


def _is_type(value: Any, expected: str) -> bool:
    if expected in {"integer", "number"} and isinstance(value, bool):
        return False
    if expected == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _TYPES.get(expected, object))


def _wrong_type(path: str, value: Any, expected: str) -> Cause:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    found = names.get(type(value), "null")
    detail = f'{path} in body must be of type {expected}: "{found}"'
    return Cause(path, "FieldValueTypeInvalid", f'Invalid value: "{found}": {detail}')


def _validate_object(schema: JSON, value: JSON, path: str) -> Iterator[Cause]:
    for key in schema.get("required", ()):
        if key not in value:
            yield required(child(path, key))
    properties = schema.get("properties", {})
    extra = schema.get("additionalProperties")
    skip_metadata = not path or schema.get(EMBEDDED)
    for key, item in value.items():
        if skip_metadata and key == "metadata":
            continue
        subschema = properties.get(key, extra)
        if isinstance(subschema, dict):
            yield from validate(subschema, item, child(path, key))
    if len(value) > schema.get("maxProperties", len(value)):
        limit = schema["maxProperties"]
        message = f"Too many: {len(value)}: must have at most {limit} items"
        yield Cause(path, "FieldValueTooMany", message)
    if len(value) < schema.get("minProperties", 0):
        detail = f"{path} in body should have at least {schema['minProperties']} properties"
        yield invalid(path, value, detail)


def _validate_list(schema: JSON, value: list[Any], path: str) -> Iterator[Cause]:
    items = schema.get("items", {})
    for index, item in enumerate(value):
        yield from validate(items, item, child(path, index))
    if len(value) > schema.get("maxItems", len(value)):
        limit = schema["maxItems"]
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {limit} items")
    if len(value) < schema.get("minItems", 0):
        yield invalid(path, len(value), f"{path} in body should have at least {schema['minItems']} items")
    keys = schema.get("x-kubernetes-list-map-keys") or []
    unique = schema.get("x-kubernetes-list-type") in {"map", "set"}
    seen: list[Any] = []
    for index, item in enumerate(value if unique else ()):
        identity = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
        if identity in seen:
            yield duplicate(child(path, index), identity)
        seen.append(identity)


def _validate_string(schema: JSON, value: str, path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxLength", len(value)):
        message = f"Too long: may not be more than {schema['maxLength']} bytes"
        yield Cause(path, "FieldValueTooLong", message)
    if len(value) < schema.get("minLength", 0):
        yield invalid(path, value, f"{path} in body should be at least {schema['minLength']} chars long")
    pattern = schema.get("pattern")
    if pattern and not _compiled(pattern).search(value):
        yield invalid(path, value, f"{path} in body should match '{pattern}'")
    if schema.get("format") == "date-time":
        try:
            datetime.fromisoformat(value)
        except ValueError:
            yield invalid(path, value, f'{path} in body must be of type date-time: "{value}"')


def _validate_number(schema: JSON, value: float, path: str) -> Iterator[Cause]:
    if value < schema.get("minimum", value):
        bound = f"greater than or equal to {schema['minimum']}"
        yield invalid(path, value, f"{path} in body should be {bound}")
    if value > schema.get("maximum", value):
        bound = f"less than or equal to {schema['maximum']}"
        yield invalid(path, value, f"{path} in body should be {bound}")
    limit = _RANGES.get(schema.get("format", ""))
    if limit and not -limit <= value < limit:
        yield invalid(path, value, f"{path} in body must be of type {schema['format']}: {value}")


def _validate_combined(schema: JSON, value: Any, path: str) -> Iterator[Cause]:
    for subschema in schema.get("allOf", ()):
        yield from validate(subschema, value, path)
    for word in ("anyOf", "oneOf"):
        options = schema.get(word)
        if options and not schema.get(INT_OR_STRING):
            fitting = sum(1 for option in options if next(validate(option, value, path), None) is None)
            if fitting == 0 or (word == "oneOf" and fitting > 1):
                rule = "at least one" if word == "anyOf" else "one and only one"
                yield invalid(path, value, f"{path} in body must validate {rule} schema ({word})")
    if "not" in schema and next(validate(schema["not"], value, path), None) is None:
        yield invalid(path, value, f"{path} in body must not validate the schema (not)")


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    # RE2's `$` is the end of the text; Python's also matches before a last newline.
    return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", pattern))
