"""Small operations on JSON values that the whole API server needs: copy, and spec-style paths."""

from __future__ import annotations

from typing import Any


def copy_json(value: Any) -> Any:
    """Copy a JSON value deeply; several times faster than `copy.deepcopy`, which also handles cycles."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value


def drop_nulls(value: Any) -> None:
    """Remove, in place, the fields that are null: in built-in kinds null means absent."""
    if isinstance(value, dict):
        for key in [key for key, item in value.items() if item is None]:
            del value[key]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        drop_nulls(item)


def child(path: str, key: str | int) -> str:
    """Append a field or an index to a path: `spec` + `name` is `spec.name`, `ports` + 0 is `ports[0]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def get_path(obj: Any, *keys: str) -> Any:
    """Return the value under nested keys, None where a step is missing."""
    for key in keys:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(key)
    return obj
