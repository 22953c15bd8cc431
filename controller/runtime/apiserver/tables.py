"""Tables: the server-side printing that `kubectl get` shows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from controller.runtime.apiserver.jsonpath import compile_path
from controller.runtime.apiserver.kinds import Column
from controller.runtime.apiserver.values import get_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controller.runtime.apiserver.kinds import ServedKind
    from controller.runtime.client import JSON


def human_duration(age: timedelta) -> str:
    """Return an age as `kubectl` prints it: two units while the second one matters (`5m30s`, `2d4h`)."""
    seconds = int(age.total_seconds())
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < -1:
        return "<invalid>"
    if seconds < 120:  # noqa: PLR2004 -- the steps are kubectl's
        return f"{max(seconds, 0)}s"
    steps = (
        (minutes < 10, minutes, "m", seconds % 60, "s"),  # noqa: PLR2004
        (minutes < 180, minutes, "m", 0, ""),  # noqa: PLR2004
        (hours < 8, hours, "h", minutes % 60, "m"),  # noqa: PLR2004
        (hours < 48, hours, "h", 0, ""),  # noqa: PLR2004
        (days < 8, days, "d", hours % 24, "h"),  # noqa: PLR2004
        (days < 730, days, "d", 0, ""),  # noqa: PLR2004
        (days < 2920, days // 365, "y", days % 365, "d"),  # noqa: PLR2004
        (True, days // 365, "y", 0, ""),
    )
    large, unit, small, small_unit = next(step[1:] for step in steps if step[0])
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def age_of(text: Any, now: datetime) -> str:
    """Return how long ago a timestamp of the API was; `<unknown>` without one."""
    if not text:
        return "<unknown>"
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return "<invalid>"
    return human_duration(now - moment.replace(tzinfo=moment.tzinfo or UTC))


def _name(obj: JSON, _now: datetime) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: JSON, now: datetime) -> str:
    return age_of(obj["metadata"].get("creationTimestamp"), now)


NAME = Column("Name", _name, description="Name must be unique within a namespace.", format="name")
AGE = Column("Age", _age, description="Time since the object was created.")


def custom_columns(printer_columns: list[JSON]) -> tuple[Column, ...]:
    """Return the columns of a CustomResourceDefinition; name and age where it declares none."""
    if not printer_columns:
        return NAME, AGE
    return NAME, *(
        Column(
            declared["name"],
            _path_cell(declared["type"], declared["jsonPath"]),
            declared["type"],
            declared.get("priority", 0),
            declared.get("description", ""),
            declared.get("format", ""),
        )
        for declared in printer_columns
    )


def _path_cell(kind: str, path: str) -> Callable[[JSON, datetime], Any]:
    """Read one cell: like kube-apiserver it shows the first match only, and nothing of the wrong type."""
    find = compile_path(path)

    def cell(obj: JSON, now: datetime) -> Any:
        found = find(obj)
        return _typed(kind, found[0], now) if found and found[0] is not None else None

    return cell


def _typed(kind: str, value: Any, now: datetime) -> Any:
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if kind == "date":
        return age_of(value, now)
    if kind == "boolean" or isinstance(value, bool):
        return value if kind == "boolean" and isinstance(value, bool) else None
    if not isinstance(value, int | float):
        return None
    return int(value) if kind == "integer" else value


def table(
    kind: ServedKind,
    objects: Iterable[JSON],
    *,
    now: datetime,
    metadata: JSON,
    include: str = "Metadata",
    with_columns: bool = True,
) -> JSON:
    """Return the `Table` of `objects`.

    Args:
        kind: says the columns.
        objects: one row each.
        now: the present time, for ages.
        metadata: the list's metadata (resourceVersion, continue).
        include: what a row carries of its object: `None`, `Metadata` or `Object`.
        with_columns: whether to send the column definitions; a watch sends them once.
    """
    definitions = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in kind.columns
    ]
    rows = [_row(kind, obj, now, include) for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions if with_columns else [],
        "rows": rows,
    }


def _row(kind: ServedKind, obj: JSON, now: datetime, include: str) -> JSON:
    row: JSON = {"cells": [column.cell(obj, now) for column in kind.columns]}
    if include == "Object":
        row["object"] = obj
    elif include == "Metadata":
        row["object"] = partial_metadata(obj)
    return row


def partial_metadata(obj: JSON) -> JSON:
    """Return the object's metadata alone, as `PartialObjectMetadata`."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": get_path(obj, "metadata") or {},
    }
